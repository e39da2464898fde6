"""Choosing how kernels divide their work: by measuring, once, with the result in a file that can be pinned.

The file is JSON: for each device (capability and name) and each loop (by what it computes, not by its names) the
choices that were fastest. Where it says nothing the defaults of ``Choices`` hold, so nothing is ever measured behind
the user's back.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from nldsl.backends.triton.generate import Choices

VARIABLE = "NLDSL_TRITON_TUNED"  # the file to read
DEVICE = "NLDSL_TRITON_DEVICE"  # the device to compile for, where it is not the one of this machine


@dataclass(frozen=True)
class Tuned:
    """The best choices found, their time in milliseconds, and whether the search was broken off."""

    choices: Choices
    time: float
    interrupted: bool


def candidates() -> Iterable[Choices]:
    """The defaults first, then the others, near ones before far ones."""
    default = Choices()
    yield default
    for segment, step, finish, back in itertools.product((64, 32, 128), (32, 16, 64), (0, 64, 32), (0, 64, 32)):
        choices = Choices(step, finish, back, segment)
        if choices != default:
            yield choices


def tune(measure: Callable[[Choices], float], tries: Iterable[Choices] | None = None) -> Tuned:
    """The choices for which ``measure`` (milliseconds; infinite where they do not work) is least.

    Ctrl-C ends the search and keeps the best so far. Raises KeyboardInterrupt only if nothing was measured yet.
    """
    best: Tuned | None = None
    try:
        for choices in candidates() if tries is None else tries:
            time = measure(choices)
            if best is None or time < best.time:
                best = Tuned(choices, time, False)
    except KeyboardInterrupt:
        if best is None:
            raise
        return Tuned(best.choices, best.time, True)
    if best is None:
        raise ValueError("there was nothing to try")
    return best


def device_key() -> str:
    """What choices are stored for: ``sm_90 NVIDIA H100 80GB HBM3``; ``NLDSL_TRITON_DEVICE`` if that is set, and empty
    without a GPU."""
    named = os.environ.get(DEVICE)
    if named is not None:
        return named
    try:
        import torch
    except ImportError:
        return ""
    if not torch.cuda.is_available():
        return ""
    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor} {torch.cuda.get_device_name()}"


def capability() -> int:
    """The number of the GPU's instructions that kernels are made for: 80 for ``sm_80``; 90 where there is no GPU and
    ``NLDSL_TRITON_DEVICE`` names none."""
    found = re.match(r"sm_(\d+)", device_key())
    return int(found.group(1)) if found else 90


def read(path: Path | None = None, device: str | None = None) -> dict[str, Choices]:
    """The stored choices for a device (None: this one) by key; of the file that ``NLDSL_TRITON_TUNED`` names if no path
    is given.

    Raises ValueError for a file that is not one of these."""
    if path is None:
        named = os.environ.get(VARIABLE)
        if not named:
            return {}
        path = Path(named)
    if not path.exists():
        return {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        every = {
            name: {key: _choices(entry["choices"]) for key, entry in loops.items()} for name, loops in stored.items()
        }
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as problem:
        raise ValueError(f"{path} is no file of tuned kernels: {problem}") from problem
    return every.get(device_key() if device is None else device, {})


def _choices(entry: Mapping[str, object]) -> Choices:
    known = {f.name for f in fields(Choices)}
    numbers = {name: value for name, value in entry.items() if name in known and isinstance(value, int)}
    if set(numbers) != set(entry):
        raise KeyError(", ".join(sorted(set(entry) - set(numbers))))
    return Choices(**numbers)


def write(path: Path, key: str, tuned: Tuned, device: str | None = None) -> None:
    """Add an entry for a device (None: this one) to the file, or replace it; the file is whole at any time."""
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    loops = stored.setdefault(device_key() if device is None else device, {})
    loops[key] = {"choices": asdict(tuned.choices), "milliseconds": round(tuned.time, 4)}
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    new.write_text(json.dumps(stored, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    new.replace(path)
