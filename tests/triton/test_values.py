"""Generated kernels against the program run tick by tick: values, final states, gradients of everything."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from nldsl.api import load_program
from nldsl.backends.triton.generate import Choices
from tests.triton.compare import inputs_of, kernels_of, largest_error, low_errors, program, run, ticks_of

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy, about padding that nothing uses

QUICK = [
    ("memories/linear_attention.nl", "NormalizedLinearAttention", {"dk": 4, "dv": 3}),
    ("memories/gated_linear.nl", "Mamba2", {"dk": 4, "dv": 3}),
    ("memories/delta.nl", "GatedDelta", {"dk": 4, "dv": 3}),
    ("memories/delta.nl", "KimiDelta", {"dk": 4, "dv": 3}),
    ("memories/ttt.nl", "TTTLinear", {"d": 4}),
    ("memories/titans.nl", "TitansLinear", {"dk": 4, "dv": 3}),
]
SLOW = [
    ("memories/titans.nl", "Titans", {"dk": 4, "dv": 3}),
    ("memories/linear_attention.nl", "LinearAttention", {"dk": 5, "dv": 3}),
    ("memories/gated_linear.nl", "GatedLinearAttention", {"dk": 5, "dv": 3}),
    ("memories/gated_linear.nl", "RetNet", {"dk": 5, "dv": 3}),
    ("memories/gated_linear.nl", "HGRN2", {"dk": 5, "dv": 3}),
    ("memories/gated_linear.nl", "RWKV6", {"dk": 5, "dv": 3}),
    ("memories/delta.nl", "DeltaNet", {"dk": 5, "dv": 3}),
    ("memories/delta.nl", "GatedDeltaProduct", {"dk": 5, "dv": 3}),
    ("memories/delta.nl", "GatedDelta2", {"dk": 5, "dv": 3}),
    ("memories/low_rank.nl", "DiagonalPlusLowRank", {"dk": 5, "dv": 3}),
    ("memories/low_rank.nl", "RWKV7", {"dk": 5, "dv": 3}),
    ("memories/low_rank.nl", "Comba", {"dk": 5, "dv": 3}),
    ("memories/low_rank.nl", "Longhorn", {"dk": 5, "dv": 3}),
    ("memories/low_rank.nl", "GatedOja", {"dk": 5, "dv": 3}),
    ("memories/miras.nl", "Yaad", {"d": 4, "hidden": 6}),
    ("memories/miras.nl", "Moneta", {"d": 4, "hidden": 6}),
    ("memories/miras.nl", "Memora", {"d": 4, "hidden": 6}),
    ("memories/lact.nl", "LaCT", {"dk": 4, "dv": 3, "hidden": 6}),
    ("memories/ttt.nl", "TTTMlp", {"d": 4, "hidden": 6}),
    ("memories/adaptive.nl", "AdaptiveLinear", {"dk": 4, "dv": 3}),
    ("memories/adaptive.nl", "FullyAdaptive", {"d": 4}),
]


def check(path: str, entry: str, dims: dict[str, int], ticks: int, calls: tuple[int, ...] = ()) -> None:
    source = program(path, entry, **dims)
    inputs = inputs_of(source, 2, ticks, torch.float64)
    expected = run(ticks_of(source).double(), inputs)
    found = run(kernels_of(source).double(), inputs, calls)
    assert largest_error(expected, found) < 1e-10


@pytest.mark.parametrize(("path", "entry", "dims"), QUICK, ids=[entry for _, entry, _ in QUICK])
def test_kernels_are_the_program(path: str, entry: str, dims: dict[str, int]) -> None:
    check(path, entry, dims, 19)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "entry", "dims"), QUICK + SLOW, ids=[entry for _, entry, _ in QUICK + SLOW])
def test_kernels_are_the_program_in_several_calls(path: str, entry: str, dims: dict[str, int]) -> None:
    check(path, entry, dims, 21, (1, 17, 3))


@pytest.mark.slow
def test_states_that_are_reset_within_the_sequence() -> None:
    source = program("memories/tnt.nl", "TNT", d=4, hidden=5, shard=16)
    inputs = inputs_of(source, 1, 35, torch.float64)
    expected = run(ticks_of(source).double(), inputs)
    assert largest_error(expected, run(kernels_of(source).double(), inputs)) < 1e-10


def test_columns_divided_among_programs() -> None:
    source = program("memories/delta.nl", "GatedDelta", dk=4, dv=6)  # three pairs of columns, of four in a workspace
    inputs = inputs_of(source, 1, 18, torch.float64)
    expected = run(ticks_of(source).double(), inputs)
    module = kernels_of(source, Choices(step_columns=2, finish_columns=4, back_columns=2))
    assert module.emitted.source.count("column = tl.program_id") >= 3
    assert largest_error(expected, run(module.double(), inputs)) < 1e-10


@pytest.mark.parametrize("entry", ["GatedDelta", pytest.param("KimiDelta", marks=pytest.mark.slow)])
def test_single_precision(entry: str) -> None:
    source = program("memories/delta.nl", entry, dk=16, dv=16)
    inputs = inputs_of(source, 1, 32, torch.float32)
    wide = {n: x.double() for n, x in inputs.items()}
    expected = run(ticks_of(source).double(), wide)
    assert largest_error(expected, run(kernels_of(source), inputs)) < 1e-5


ONE_DECAY = pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    # 0.02, -0.13 and 0.31 in three draws: in float64 with rounded operands it is off by a tenth where it is smallest
    reason="the gradient of the one decay is a sum that cancels in this draw",
)
ERASE_KEY = pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="7.2e-3 for the gradient of `erase_key`, behind a key of length 1; all others are within 4.3e-3",
)


@pytest.mark.parametrize(
    ("path", "entry"),
    [
        ("memories/delta.nl", "GatedDelta"),
        pytest.param("memories/delta.nl", "DeltaNet", marks=pytest.mark.slow),
        pytest.param("memories/delta.nl", "KimiDelta", marks=pytest.mark.slow),
        pytest.param("memories/gated_linear.nl", "GatedLinearAttention", marks=pytest.mark.slow),
        pytest.param("memories/gated_linear.nl", "Mamba2", marks=[pytest.mark.slow, ONE_DECAY]),
        pytest.param("memories/low_rank.nl", "RWKV7", marks=[pytest.mark.slow, ERASE_KEY]),
    ],
)
def test_half_precision(path: str, entry: str) -> None:
    """Everything that a kernel reads, writes and multiplies in bfloat16; states within it and gates in float32."""
    errors = low_errors(program(path, entry, dk=32, dv=32), 64)
    assert max(errors.values()) < 6e-3, errors


@pytest.mark.slow
def test_half_precision_over_several_draws() -> None:
    errors = low_errors(program("memories/gated_linear.nl", "Mamba2", dk=32, dv=32), 64, draws=3, same_cotangents=True)
    assert max(errors.values()) < 6e-3, errors


def test_states_that_are_reset_to_what_is_computed() -> None:
    text = """
    memory Fresh(d: dim) {
      param a, b: [d, d] = normal(0.5)
      state rows: [d, d] = a @ b reset every 7 token
      state more: [d, d] = 2 * a reset every 5 token
      step(k: [d], v: [d], keep: []) -> [d] {
        rows <- keep * rows + outer(v, k)
        more <- keep * more + outer(k, v)
        return rows @ k + more @ v
      }
    }
    """
    source = load_program("fresh.nl", "Fresh", text=text, d=3)
    inputs = inputs_of(source, 2, 19, torch.float64)
    expected = run(ticks_of(source).double(), inputs)
    assert largest_error(expected, run(kernels_of(source).double(), inputs, (1, 12, 6))) < 1e-10


def test_a_hidden_layer_in_tiles() -> None:
    """A program that goes through the columns of a layer in tiles, its states in memory, with an anchor and momenta."""
    source = load_program(Path(__file__).parent / "novel.nl", "DeepMoments", dk=4, dv=3, hidden=20)
    inputs = inputs_of(source, 2, 12, torch.float64)
    expected = run(ticks_of(source).double(), inputs)
    module = kernels_of(source, Choices(room=2000))
    assert module.emitted.source.count(" in range(0, 32, BV):") >= 6
    assert largest_error(expected, run(module.double(), inputs)) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "entry", "dims", "room"),
    [
        ("memories/titans.nl", "Titans", {"dk": 6, "dv": 6, "chunk": 4}, 1200),
        ("memories/ttt.nl", "TTTMlp", {"d": 4, "hidden": 24, "chunk": 4}, 1200),
        ("memories/ttt.nl", "TTTMlp", {"d": 4, "hidden": 24, "chunk": 4}, 2500),
    ],
)
def test_hidden_layers_in_several_rounds(path: str, entry: str, dims: dict[str, int], room: int) -> None:
    """Rounds that read what earlier ones have left: sizes that are no powers of two, tails, several calls."""
    source = program(path, entry, **dims)
    inputs = inputs_of(source, 2, 13, torch.float64)
    module = kernels_of(source, Choices(room=room))
    steps = re.findall(r"def \w+_step\(.*?(?=\n@|\ndef |\Z)", module.emitted.source, re.DOTALL)
    assert len(steps) == 2
    assert all(step.count("tl.debug_barrier()") > 2 for step in steps)
    assert largest_error(run(ticks_of(source).double(), inputs), run(module.double(), inputs, (1, 7, 5))) < 1e-10


WINDOWS = [
    ("memories/attention.nl", "SoftmaxAttention", {"dk": 4, "dv": 3, "reach": 6}),
    ("memories/attention.nl", "Hopfield", {"d": 3, "reach": 9}),
    ("memories/atlas.nl", "Omega", {"dk": 4, "dv": 3, "reach": 5}),
]


@pytest.mark.parametrize(
    ("path", "entry", "dims"),
    [pytest.param(*w, marks=[pytest.mark.slow] if w[1] == "Hopfield" else []) for w in WINDOWS],
    ids=[entry for _, entry, _ in WINDOWS],
)
def test_windows_of_ticks(path: str, entry: str, dims: dict[str, int]) -> None:
    """Calls that are shorter than the window, and longer than a segment."""
    check(path, entry, dims, 19, (1, 18))


@pytest.mark.slow
def test_a_window_longer_than_a_segment() -> None:
    check("memories/attention.nl", "SoftmaxAttention", {"dk": 4, "dv": 3, "reach": 70}, 150, (3, 147))
