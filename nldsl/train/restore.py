"""Does a checkpoint fit the program? Every difference is named before anything is copied."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import torch

from nldsl.train.checkpoint import Checkpoint, Spec
from nldsl.train.errors import listed, problem

__all__ = ["check_parameters", "check_spec", "describe"]


def check_spec(checkpoint: Checkpoint, spec: Spec) -> None:
    """Refuse a checkpoint of another program, and show what differs."""
    old = checkpoint.spec
    if old.sha256 == spec.sha256:
        return
    notes: list[str] = []
    if old.entry != spec.entry:
        notes.append(f"it is of the model `{old.entry}`, this is `{spec.entry}`")
    then, now = dict(old.dims), dict(spec.dims)
    notes += [
        f"`{name}` was {_value(then, name)}, now it is {_value(now, name)}"
        for name in sorted(then.keys() | now.keys())
        if _value(then, name) != _value(now, name)
    ]
    lines = difflib.unified_diff(old.text.splitlines(), spec.text.splitlines(), "checkpoint", "now", n=0, lineterm="")
    notes += listed(line for line in lines if not line.startswith(("---", "+++")))
    if not notes:
        notes.append("the text is the same, but something that it imports has changed")
    raise problem(
        "NL0812",
        "the checkpoint was written for another program",
        notes=notes,
        hints=("if its parameters still mean the same, say `--allow-changed-spec`",),
    )


def check_parameters(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], what: str) -> None:
    """Refuse tensors that are missing, unknown, or of another shape or type; one line for each."""
    lines = differences(found, expected)
    if lines:
        raise problem(
            "NL0816",
            f"the {what} in the checkpoint do not fit the program",
            notes=listed(lines),
            hints=("compile the program with the sizes (`--set`) and `--dtype` of the run that wrote it",),
        )


def differences(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> list[str]:
    """Return a readable line for each name that differs."""
    lines: list[str] = []
    unknown = {name for name in found if name not in expected}
    for name, tensor in expected.items():
        if name not in found:
            alike = [u for u in sorted(unknown) if found[u].shape == tensor.shape]
            near = difflib.get_close_matches(name, alike, 1, 0.0)
            renamed = f" (renamed from `{near[0]}`?)" if near else ""
            lines.append(f"missing: `{name}` {describe(tensor)}{renamed}")
        elif found[name].shape != tensor.shape or found[name].dtype != tensor.dtype:
            lines.append(f"different: `{name}` is {describe(found[name])} there, {describe(tensor)} in the program")
    lines += [f"unknown: `{name}` {describe(found[name])}" for name in found if name in unknown]
    return lines


def describe(tensor: torch.Tensor) -> str:
    """Return shape and type as a program writes them."""
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _value(table: dict[str, Any], name: str) -> str:
    return repr(table[name]) if name in table else "the default"
