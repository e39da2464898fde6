"""Where the numbers of a run go: always a JSONL file, on request TensorBoard.

Each line of `log.jsonl` is one record with a `kind`: `start`, `step`, `evaluation`, `checkpoint`, `nonfinite`,
`rollback`, `resume` or `end`. A resumed run first removes the records after the step it goes on from, so that no step
appears twice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from nldsl.extras import require
from nldsl.train.disk import Disk, replace_file

__all__ = ["JsonlLog", "LogSink", "Logs", "TensorBoardLog", "read_log"]

Record = Mapping[str, Any]
LOG_NAME = "log.jsonl"


class LogSink(Protocol):
    """Something that keeps records."""

    def write(self, record: Record) -> None:
        """Keep one record."""

    def close(self) -> None:
        """Write what is pending."""


class JsonlLog:
    """One JSON object per line. Numbers that JSON does not know are written as text: `"nan"`, `"inf"`."""

    def __init__(self, directory: Path, *, resume_after: int | None = None) -> None:
        self.path = directory / LOG_NAME
        if resume_after is not None and self.path.exists():
            kept = [r for r in read_log(self.path) if r.get("kind") != "end" and r.get("step", 0) <= resume_after]
            replace_file(Disk(), self.path, "".join(_line(record) for record in kept).encode())

    def write(self, record: Record) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(record))

    def close(self) -> None:
        """Nothing is pending."""


class TensorBoardLog:
    """Every number of the step and evaluation records as a scalar; the path in the record is its tag."""

    def __init__(self, directory: Path, *, resume_after: int | None = None) -> None:
        require("tensorboard", "train", f"for `--tensorboard`; the same numbers are always in `{LOG_NAME}`")
        from torch.utils.tensorboard import SummaryWriter

        purge = None if resume_after is None else resume_after + 1
        self._writer: Any = SummaryWriter(str(directory / "tensorboard"), purge_step=purge)

    def write(self, record: Record) -> None:
        if record.get("kind") not in ("step", "evaluation"):
            return
        for tag, value in scalars(record):
            if tag != "step":
                self._writer.add_scalar(tag if "/" in tag else f"{record['kind']}/{tag}", value, record["step"])

    def close(self) -> None:
        self._writer.close()


class Logs:
    """All sinks of a run."""

    def __init__(self, sinks: tuple[LogSink, ...] = ()) -> None:
        self.sinks = sinks

    def write(self, kind: str, step: int, **fields: Any) -> dict[str, Any]:
        """Give every sink a record, and return it."""
        record = {"kind": kind, "step": step, **fields}
        for sink in self.sinks:
            sink.write(record)
        return record

    def close(self) -> None:
        """Close every sink."""
        for sink in self.sinks:
            sink.close()


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Return the records of a log; a line that a kill cut short is left out."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record


def scalars(record: Record, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Return the numbers of a nested record with their paths."""
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from scalars(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{prefix}{key}", float(value)


def _line(record: Record) -> str:
    return json.dumps(_plain(record), allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, float):
        return float(f"{value:.7g}")
    return value
