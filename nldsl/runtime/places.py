"""Where the parameters of a program are in a module."""

from __future__ import annotations

from torch import nn


def register(root: nn.Module, name: str, parameter: nn.Parameter) -> tuple[nn.Module, str]:
    """Put a parameter where ``state_dict`` finds it under its dotted name.

    Entered into the tables of ``nn.Module`` directly: a part of the name may be that of a method.
    """
    *path, key = name.split(".")
    owner = root
    for part in path:
        child = owner._modules.get(part)
        if child is None:
            child = owner._modules[part] = nn.Module()
        owner = child
    owner._parameters[key] = parameter
    return owner, key
