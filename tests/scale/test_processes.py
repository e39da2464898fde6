"""Training on several processes (gloo, on the CPU) ends with the parameters of training on one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import nldsl
from nldsl.runtime.parallel import ParallelError, ShardedOptimizers, data_parallel, shard

WORKER = Path(__file__).parent / "worker.py"
BOUND = 1e-5


def trained(mode: str, processes: int, steps: int, folder: Path) -> dict[str, torch.Tensor]:
    path = folder / f"{mode}_{processes}.safetensors"
    command = [sys.executable]
    if mode != "one":
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += [str(WORKER), mode, str(steps), str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return load_file(path)


def check(mode: str, processes: int, steps: int, folder: Path) -> None:
    expected, found = trained("one", 1, steps, folder), trained(mode, processes, steps, folder)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert (value - found[name]).abs().max() < BOUND, name


def test_two_processes_with_ddp(tmp_path: Path) -> None:
    check("ddp", 2, 4, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("mode", ["ddp", "fsdp", "sequence", "pipeline"])
def test_fifty_steps(mode: str, processes: int, tmp_path: Path) -> None:
    check(mode, processes, 50, tmp_path)


SHARED = """
memory Shared(d: dim) {
  shared state W: [d, d] = 0
  step(k: [d], v: [d]) -> [d] {
    y = W @ k
    W <- W - 0.1 * grad(l2(W @ k, v), W)
    return y
  }
}
objective l2(y: [n], v: [n]) = 0.5 * sum((y - v)^2)
"""


def test_what_reduces_over_the_batch_is_refused() -> None:
    module = nldsl.compile("shared.nl", text=SHARED, d=2)
    with pytest.raises(ParallelError, match="`W` is shared by all sequences"):
        data_parallel(module)


def test_an_optimizer_of_whole_matrices_is_refused_for_shards(tmp_path: Path) -> None:
    text = (WORKER.parent / "memory.nl").read_text().replace("AdamW(rate = 1e-2)", "Muon(rate = 1e-2)")
    module = nldsl.compile("muon.nl", text=text)
    store = torch.distributed.FileStore(  # type: ignore[attr-defined]
        str(tmp_path / "store"), 1
    )
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        shard(module)
        with pytest.raises(ParallelError, match="does not treat the entries of"):
            ShardedOptimizers(module)
    finally:
        torch.distributed.destroy_process_group()
