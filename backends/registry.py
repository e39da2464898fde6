"""The backends by name, each imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable

from nldsl.backends.interface import Backend, LoopKernels


def _torch(required: bool = False) -> Backend:  # noqa: ARG001 - every loop has this form
    from nldsl.backends.torch.backend import TorchBackend

    return TorchBackend()


def native_backend(required: bool = False) -> Backend:
    """Loops as native functions; ``required``: a loop that has no such form is an error."""
    from nldsl.backends.mlir.backend import MlirBackend, NativeKernels
    from nldsl.backends.torch.backend import TorchBackend

    kernels = NativeKernels(required, functions=TorchBackend().functions)
    return MlirBackend(TorchBackend(name="mlir", stored=False, kernels=kernels), kernels, TorchBackend())


def kernel_backend(required: bool = False, keep_states: bool | None = None) -> Backend:
    """Loops as Triton kernels; ``required``: a loop that has no such form is an error. ``keep_states``: loops over
    segments keep states for the way back; None: where they are small."""
    from nldsl.backends.torch.backend import TorchBackend
    from nldsl.backends.triton.backend import TritonBackend
    from nldsl.backends.triton.provider import LoopKernelWriter

    def emitter(kernels: LoopKernels) -> Backend:
        return TorchBackend(name="triton", stored=False, kernels=kernels)

    kernels = LoopKernelWriter(required, keep_states=keep_states)
    return TritonBackend(emitter(kernels), kernels, emitter, TorchBackend().functions)


BACKENDS: dict[str, Callable[..., Backend]] = {"torch": _torch, "mlir": native_backend, "triton": kernel_backend}
DEFAULT = "torch"
VERIFIED = ("torch",)  # what ``nldsl verify`` compares unless it is told: those that compile in no time


def backend_named(name: str, required: bool = False, keep_states: bool | None = None) -> Backend:
    """A backend; ``auto`` is the default one. ``required``: a loop that it has no form for is an error.
    ``keep_states``: see ``kernel_backend``. Raises ValueError for a name that is none, and for a choice that the
    backend does not have."""
    chosen = DEFAULT if name == "auto" else name
    if chosen not in BACKENDS:
        raise ValueError(f"no backend `{name}`; there are {', '.join(sorted(BACKENDS))}")
    if keep_states is not None:
        if chosen != "triton":
            raise ValueError(f"`keep_states` is a choice of the backend `triton`, not of `{chosen}`")
        return BACKENDS[chosen](required, keep_states)
    return BACKENDS[chosen](required) if required else BACKENDS[chosen]()
