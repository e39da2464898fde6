"""The search for choices, and its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from nldsl.backends.triton.generate import Choices
from nldsl.backends.triton.provider import LoopKernelWriter
from nldsl.backends.triton.tune import DEVICE, VARIABLE, Tuned, candidates, read, tune, write


def test_the_fastest_is_kept() -> None:
    found = tune(lambda choices: abs(choices.step_columns - 16) + abs(choices.segment - 32))
    assert (found.choices.step_columns, found.choices.segment, found.interrupted) == (16, 32, False)


def test_ctrl_c_keeps_the_best_so_far() -> None:
    tries = iter(candidates())
    seen: list[Choices] = []

    def measure(choices: Choices) -> float:
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(choices)
        return 10.0 - len(seen)

    found = tune(measure, tries)
    assert found == Tuned(seen[-1], 7.0, True)


def test_the_file_is_read_where_kernels_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nldsl.backends.torch.backend import TorchBackend
    from nldsl.backends.triton.provider import key_of
    from nldsl.passes.plan import plan
    from tests.triton.compare import program

    planned = plan(program("memories/linear_attention.nl", "LinearAttention", dk=4, dv=3))
    keys: list[str] = []

    class Spy(LoopKernelWriter):
        def loop(self, call):  # type: ignore[no-untyped-def]
            keys.append(key_of(call))
            return super().loop(call)

    TorchBackend("triton", kernels=Spy()).emit(planned)
    path = tmp_path / "tuned.json"
    write(path, keys[0], Tuned(Choices(segment=32), 1.0, False), "sm_90 one")
    write(path, keys[0], Tuned(Choices(segment=16), 1.0, False), "sm_80 another")
    assert read(path, "sm_90 one") == {keys[0]: Choices(segment=32)}
    monkeypatch.setenv(VARIABLE, str(path))
    for device, ticks in (("sm_90 one", 32), ("sm_80 another", 16), ("sm_90 a third", 64)):
        monkeypatch.setenv(DEVICE, device)
        text = TorchBackend("triton", kernels=LoopKernelWriter()).emit(planned)
        block = f"segment_block(types, {ticks}, 32)" if ticks == 64 else str(ticks)
        assert f"BT = {block}\n" in text, device


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    path.write_text('{"sm_90": {"x": {"choices": {"speed": 3}}}}')
    with pytest.raises(ValueError, match="no file of tuned kernels"):
        read(path)


@pytest.mark.parametrize(("width", "target", "ticks"), [(32, 90, 32), (128, 90, 16), (32, 80, 16)])
def test_the_ticks_of_a_segment_in_single_precision(width: int, target: int, ticks: int) -> None:
    """Fewer where a tick has many columns, and where products read their operands from registers."""
    from nldsl.backends.torch.backend import TorchBackend
    from nldsl.passes.plan import plan
    from tests.triton.compare import program

    planned = plan(program("memories/gated_linear.nl", "Mamba2", dk=width, dv=width))
    text = TorchBackend("triton", kernels=LoopKernelWriter(capability=target)).emit(planned)
    assert text.count(f"BT = segment_block(types, 64, {ticks})\n") >= 2
    assert "BV=tile_columns(types, " in text
