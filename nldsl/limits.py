"""Bounds on what a program may ask of the compiler.

A program is data from anywhere: it must not make the compiler use unbounded time or memory. Each bound has its own
diagnostic, and nothing in a program can change one. The defaults are far above what programs need.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Bounds by stage: text, syntax, expansion, intermediate form, run."""

    file_bytes: int = 2**20
    """Size of one file."""
    total_bytes: int = 16 * 2**20
    """Size of a program with all its imports."""
    files: int = 1000
    """Number of files of a program."""
    tokens: int = 500_000
    """Tokens of one file."""
    nesting: int = 256
    """Brackets and braces inside one another."""
    depth: int = 1024
    """Nodes of the syntax tree inside one another."""
    name_length: int = 64
    """Characters of a name; names reach generated code."""
    magnitude: int = 2**31
    """Largest absolute value of an integer, written or computed."""
    instances: int = 20_000
    """Memories and blocks after `repeat`, `for` and calls are expanded."""
    expansion: int = 100_000
    """Statements after `repeat`, `for` and `iterate` are expanded."""
    call_depth: int = 128
    """Functions, blocks and memories expanded inside one another."""
    ir_nodes: int = 200_000
    """Nodes of the per-token intermediate form, derivatives included."""
    state_bytes: int = 2**34
    """Bytes of the states of one sequence, when its sizes are numbers."""
    diagnostics: int = 50
    """Findings shown in one run."""
