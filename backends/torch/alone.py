"""Some functions of a module as a module of their own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from nldsl.backends.torch.scope import Scope
from nldsl.backends.torch.segment import IMPORTS, sources
from nldsl.backends.torch.split import split


def alone(functions: Sequence[Scope], new_scope: Callable[[str, str], Scope]) -> str:
    """The source of functions that call nothing but one another and what every module has."""
    text = "\n\n".join(part.text() for function in functions for part in split(function, new_scope))
    imports = [*(IMPORTS if "scan_wide(" in text else ()), "import torch"]
    text = "\n\n".join([*sources(text), text])
    imports += ["from torch.nn import functional as F"] if re.search(r"\bF\.", text) else []
    return "\n".join([*imports, "", "", text])
