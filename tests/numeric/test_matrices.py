"""Small states under full linear maps: the scan over matrices equals the loop over ticks; large ones are refused."""

from __future__ import annotations

import torch

from nldsl.passes.choose_chunk import ChunkOptions, chunk
from nldsl.passes.schedule import schedule
from tests.numeric.chunk_run import ChunkRun, Maker, random_data, run_ticks
from tests.numeric.matrix_programs import MATRICES
from tests.numeric.test_chunk import assert_same, chunked

TICKS = 13


def test_a_large_map_is_refused_with_its_place() -> None:
    m = Maker()
    held = m.state("h", 100)
    m.updates["h"] = m.add(m.ein("ij,j->i", m.param("A", 100, 100), held), m.input("x", 100))
    m.outputs["y"] = m.updates["h"]
    _, (note,) = chunk(schedule(m.program()), ChunkOptions())
    assert "full linear map" in note.why
    assert "mix fewer numbers" in note.lift


def test_zeros_and_large_products_stay_finite() -> None:
    program = MATRICES["left"]()
    data = random_data(program, 40, scale=0.5)
    data.inputs["A"][::7] = 0.0
    data.inputs["A"][3::7] *= 1e-200
    ticks = run_ticks(program, data, 40)
    chunks = ChunkRun(chunked(program, 16), data)
    outputs = chunks.call(40)
    assert all(torch.isfinite(y).all() for y in outputs.values())
    assert_same(ticks, chunks, outputs)
