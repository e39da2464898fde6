"""The polynomials of float32 against PyTorch's functions in float64."""

from __future__ import annotations

import ctypes

import pytest
import torch

pytest.importorskip("torch_mlir", reason="the extra mlir is not installed")

from nldsl.backends.mlir import vector_math as vm
from nldsl.backends.mlir.engine import compile_text
from nldsl.backends.mlir.memory import helpers
from nldsl.backends.mlir.nests import fill
from nldsl.backends.mlir.outlined import memref
from nldsl.backends.mlir.text import Function, Ix
from nldsl.backends.mlir.views import View, load

ORACLE = {
    "exp": torch.exp,
    "expm1": torch.expm1,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
    "log": torch.log,
    "log1p": torch.log1p,
    "rsqrt": torch.rsqrt,
    "erf": torch.erf,
    "sin": torch.sin,
    "arctan": torch.arctan,
    "sign": torch.sign,
}
SIZE = 4099  # full vectors, narrower ones, and a scalar


def arguments() -> torch.Tensor:
    near = torch.linspace(-4, 4, SIZE - 7)
    far = torch.tensor([-110.0, -88.5, -20.0, 0.0, 30.0, 88.0, 89.5])
    return torch.cat([far, near])


def compiled_functions() -> dict[str, torch.Tensor]:
    f = Function("loop", "f32", 16)
    source = View("%arg0", Ix(), (1,), (SIZE,))
    for n, name in enumerate(ORACLE):
        target = View(f"%arg{n + 1}", Ix(), (1,), (SIZE,))
        with f.fence():
            fill(f, target, lambda index, vec, name=name: vm.UNARY[name](f, load(f, source, index, vec)))  # type: ignore[misc]
    lines = [helpers("f32"), "func.func @loop(%table: !llvm.ptr, %memory: !llvm.ptr, %begin: i64, %end: i64) {"]
    lines += [f"  {name} = {text}" for text, name in f.constants.items()]
    for n in range(len(ORACLE) + 1):
        lines.append(f"  %slot{n} = arith.constant {n} : i64")
        lines.append(f"  %arg{n}_p = func.call @nl_address(%table, %slot{n}) : (!llvm.ptr, i64) -> !llvm.ptr")
        lines.append(memref(f"%arg{n}", "f32"))
    native = compile_text("\n".join([*lines, *f.lines, "  return", "}", ""]), "loop")
    x = arguments()
    found = {name: torch.empty(SIZE) for name in ORACLE}
    table = (ctypes.c_int64 * (len(ORACLE) + 1))(x.data_ptr(), *(y.data_ptr() for y in found.values()))
    numbers = (ctypes.c_int64 * 4)(ctypes.addressof(table), 0, 0, 0)
    first = ctypes.addressof(numbers)
    native.address((ctypes.c_void_p * 4)(*(first + 8 * n for n in range(4))))
    return found


def test_functions() -> None:
    x = arguments()
    for name, got in compiled_functions().items():
        want = ORACLE[name](x.double())
        single = want.float()
        assert torch.equal(got.isnan(), single.isnan()), name
        finite = single.isfinite() & (single.abs() > 1e-38)
        assert torch.equal(got[single.isinf()], single[single.isinf()]), name
        error = (got.double() - want).abs()[finite] / want.abs()[finite].clamp_min(1e-3)
        assert error.max() < 1e-6, (name, float(error.max()))
