"""C functions from source: compiled with the compiler of the system, loaded into this process."""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# -fno-math-errno and -fno-trapping-math change no result: they let square roots and selections be vectorized
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared", "-pthread")


@dataclass(frozen=True)
class Native:
    """A loaded C function; copies share it."""

    source: str
    function: Any

    def __deepcopy__(self, memo: dict[int, Any]) -> Native:
        return self


def compiler() -> list[str] | None:
    """The command of a C compiler: ``$CC``, else cc, gcc or clang; None where there is none."""
    if sys.platform == "win32":
        return None
    wish = shlex.split(os.environ.get("CC", ""))
    for command in ([wish] if wish else []) + [["cc"], ["gcc"], ["clang"]]:
        found = shutil.which(command[0])
        if found:
            return [found, *command[1:]]
    return None


def compile_native(source: str, name: str, seconds: float = 60.0) -> Native | None:
    """The function ``name`` of a C source, or None where no compiler takes it.

    Nothing is kept on disk: the library is built in a private folder that is removed once it is loaded.
    """
    command = compiler()
    if command is None:
        return None
    with tempfile.TemporaryDirectory(prefix="nldsl_") as folder:
        text, library = Path(folder) / "update.c", Path(folder) / "update.so"
        text.write_text(source, encoding="ascii")
        arguments = [*command, *FLAGS, str(text), "-o", str(library), "-lm"]
        try:
            subprocess.run(arguments, check=True, capture_output=True, timeout=seconds)
            return Native(source, getattr(ctypes.CDLL(str(library)), name))
        except (OSError, subprocess.SubprocessError, AttributeError):
            return None
