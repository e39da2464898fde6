"""`nldsl bench` prints a time for each kind of run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from nldsl.cli.bench import command

PROGRAM = """memory M(d: dim = 4) {
  state s: [d] = 0
  step(x: [d], keep: []) -> [d] {
    s <- keep * s + x
    return s
  }
}
"""


@pytest.mark.parametrize("loops", [False, True])
def test_times(tmp_path: Path, loops: bool) -> None:
    (tmp_path / "m.nl").write_text(PROGRAM)
    arguments = [str(tmp_path / "m.nl"), "--batch", "2", "--ticks", "9", "--repetitions", "1", "--json"]
    result = CliRunner().invoke(command, [*arguments, *(["--loops"] if loops else [])], standalone_mode=False)
    assert result.exception is None
    times = json.loads(result.stdout)
    assert list(times) == (["parallel", "loops"] if loops else ["parallel"])
    for timings in times.values():
        assert [t["name"] for t in timings] == ["forward", "forward+backward", "one token"]
        assert all(t["milliseconds"] > 0 for t in timings)
