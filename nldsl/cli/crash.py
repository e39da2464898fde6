"""What happens when the compiler itself is at fault: a report in a file, and a few lines that say so."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nldsl import __version__
from nldsl.diagnostics.internal import InternalError, internal_diagnostic

from .output import note, print_diagnostics

__all__ = ["crash_data", "report_crash"]


def report_crash(error: BaseException, arguments: Sequence[str]) -> Path | None:
    """Write the report and tell the user where it is; the file's path, or None if it could not be written."""
    print_diagnostics([internal_diagnostic(error)])
    data = crash_data(error, arguments)
    path = _save(json.dumps(data, indent=2) + "\n")
    if path is not None:
        note(f"  report: {path}")
    note(f"  reproduce: NLDSL_TRACEBACK=1 {data['command']}")
    note("  please file it with the report and the program; read the report first, it holds paths and program text")
    return path


def crash_data(error: BaseException, arguments: Sequence[str]) -> dict[str, Any]:
    """Collect what a maintainer needs; nothing of the environment beyond versions."""
    artifacts: dict[str, str] = {}
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, InternalError):
            artifacts |= link.artifacts
        link = link.__cause__ or link.__context__
    return {
        "nldsl": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "modules": {name: _version(name) for name in ("lark", "sympy", "numpy", "torch") if name in sys.modules},
        "command": shlex.join(["nldsl", *arguments]),
        "error": f"{type(error).__name__}: {error}",
        # A RecursionError's traceback has a thousand equal frames.
        "traceback": "".join(traceback.format_exception(error))[-50_000:],
        "artifacts": artifacts,
    }


def _version(module: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(module)
    except PackageNotFoundError:
        return "unknown"


def _save(text: str) -> Path | None:
    name = f"nldsl-crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.json"
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        try:
            # "x": never through a link that somebody left there.
            with (folder / name).open("x", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError:
            continue
        return folder / name
    return None
