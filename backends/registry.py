"""The backends by name, each imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable

from nldsl.backends.interface import Backend


def _torch() -> Backend:
    from nldsl.backends.torch.backend import TorchBackend

    return TorchBackend()


BACKENDS: dict[str, Callable[[], Backend]] = {"torch": _torch}
DEFAULT = "torch"


def backend_named(name: str) -> Backend:
    """A backend; ``auto`` is the default one. Raises ValueError for a name that is none."""
    chosen = DEFAULT if name == "auto" else name
    if chosen not in BACKENDS:
        raise ValueError(f"no backend `{name}`; there are {', '.join(sorted(BACKENDS))}")
    return BACKENDS[chosen]()
