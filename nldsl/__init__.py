"""nldsl: a compiler for nested-learning memories written in `.nl`.

The names below are loaded on first use, so that `import nldsl` stays cheap: it imports neither torch, nor sympy, nor
the parser.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .api import check as check
    from .api import compile as compile
    from .api import load_program as load_program

__version__ = "0.1.0"
__all__ = ["__version__", "check", "compile", "load_program"]


def __getattr__(name: str) -> object:
    """Load a public name from `nldsl.api` when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'nldsl' has no attribute {name!r}")
    from . import api

    value: object = getattr(api, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the lazily loaded names too."""
    return sorted({*globals(), *__all__})
