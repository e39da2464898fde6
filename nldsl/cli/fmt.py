"""`nldsl fmt`: format programs."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import click

from nldsl.diagnostics import Diagnostic, DiagnosticBag, DiagnosticError

from .output import note, print_diagnostics

__all__ = ["command"]


@click.command("fmt")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--check", is_flag=True, help="Write nothing; fail if a file is not formatted.")
@click.option("--diff", is_flag=True, help="Write nothing; print what would change.")
def command(files: tuple[str, ...], check: bool, diff: bool) -> int:
    """Format programs in place; `-` reads from stdin and writes to stdout.

    Only white space changes. A file with mistakes in its syntax is left as it is, and the exit code is 1.
    """
    wrong: list[Diagnostic] = []
    changed = 0
    for name in files:
        try:
            before, after = _formatted(name)
        except DiagnosticError as error:
            wrong += error.diagnostics
            continue
        differs = before != after
        changed += differs
        if diff and differs:
            click.echo(_diff(name, before, after), nl=False)
        elif check and differs:
            note(f"{name}: not formatted")
        elif name == "-" and not check and not diff:
            sys.stdout.buffer.write(after.encode())
        elif differs and not check and not diff:
            _replace(Path(name), after)
            note(f"{name}: formatted")
    print_diagnostics(wrong)
    return int(bool(wrong) or (check and changed > 0))


def _formatted(name: str) -> tuple[str, str]:
    from nldsl.frontend.format import format_source
    from nldsl.frontend.text import decode
    from nldsl.limits import Limits

    limits = Limits()
    data = sys.stdin.buffer.read(limits.file_bytes + 1) if name == "-" else _read(Path(name), limits.file_bytes + 1)
    bag = DiagnosticBag()
    shown = "<stdin>" if name == "-" else name
    source = decode(data, shown, bag, limits)
    bag.raise_if_errors()
    assert source is not None
    return source.text, format_source(source.text, shown, limits)


def _read(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        return file.read(most)


def _replace(path: Path, text: str) -> None:
    """Write a file at once or not at all; a link keeps pointing to it, and it keeps its permissions."""
    path = path.resolve()
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(path.stat().st_mode & 0o7777)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _diff(name: str, before: str, after: str) -> str:
    from difflib import unified_diff

    lines = unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), name, f"{name} (formatted)")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
