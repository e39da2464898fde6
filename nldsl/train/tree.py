"""Nested values that hold tensors, split into a JSON value and a flat table of named tensors, and joined again.

Allowed are dictionaries (with string or integer keys), lists, tuples, tensors, numbers, strings, booleans and None:
data, never objects. A tensor is stored under the path that leads to it, so that messages can name it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

__all__ = ["join", "split", "tensors_of"]

_TENSOR = "$tensor"
_PAIRS = "$pairs"
_TUPLE = "$tuple"


def split(value: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """Return the value with a reference in place of each tensor, and the tensors by name."""
    tensors: dict[str, torch.Tensor] = {}
    return _split(value, "", tensors), tensors


def join(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Undo `split`; raises ValueError for what `split` cannot have made."""
    if isinstance(value, list):
        return [join(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        name = value[_TENSOR]
        if len(value) != 1 or not isinstance(name, str) or name not in tensors:
            raise ValueError(f"there is no tensor {name!r}")
        return tensors[name]
    if _TUPLE in value:
        if len(value) != 1 or not isinstance(value[_TUPLE], list):
            raise ValueError("a tuple that is not a list")
        return tuple(join(item, tensors) for item in value[_TUPLE])
    if _PAIRS in value:
        pairs = value[_PAIRS]
        if (
            len(value) != 1
            or not isinstance(pairs, list)
            or not all(isinstance(p, list) and len(p) == 2 for p in pairs)
        ):
            raise ValueError("a dictionary that is not a list of pairs")
        if not all(isinstance(key, (str, int)) for key, _ in pairs):
            raise ValueError("a key that is neither text nor an integer")
        return {key: join(item, tensors) for key, item in pairs}
    return {key: join(item, tensors) for key, item in value.items()}


def tensors_of(value: Any) -> dict[str, torch.Tensor]:
    """Return the tensors inside a value by name."""
    return split(value)[1]


def _split(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        name = path or "value"
        while name in tensors:  # {"a.b": x, "a": {"b": y}}: rare, but it must not lose a tensor
            name += "'"
        tensors[name] = value.detach()
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        prefix = f"{path}." if path else ""
        items = [(key, _split(item, f"{prefix}{key}", tensors)) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in items):
            return dict(items)
        if not all(isinstance(key, (str, int)) for key, _ in items):
            raise TypeError(f"a key of {path or 'the value'} is neither text nor an integer")
        return {_PAIRS: [list(pair) for pair in items]}
    if isinstance(value, (list, tuple)):
        prefix = f"{path}." if path else ""
        parts = [_split(item, f"{prefix}{index}", tensors) for index, item in enumerate(value)]
        return parts if isinstance(value, list) else {_TUPLE: parts}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{path or 'the value'} is a {type(value).__name__}; a checkpoint holds only data")
