"""Pointwise operations on single numbers, inside a ``linalg.generic``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nldsl.backends.iree.nodes import BOOL, INT, REAL
from nldsl.ir.ops import COMPARISONS, KEEPS_INTEGERS

Let = Callable[[str], str]  # a new value that is this text
Const = Callable[[float, str], str]

_MATH = {
    "exp": "math.exp", "log": "math.log", "log1p": "math.log1p", "expm1": "math.expm1", "sqrt": "math.sqrt",
    "rsqrt": "math.rsqrt", "abs": "math.absf", "sin": "math.sin", "cos": "math.cos", "tanh": "math.tanh",
    "arctan": "math.atan", "erf": "math.erf", "floor": "math.floor", "neg": "arith.negf",
}  # fmt: skip
_REAL = {"add": "addf", "sub": "subf", "mul": "mulf", "div": "divf", "maximum": "maximumf", "minimum": "minimumf"}
_INT = {"add": "addi", "sub": "subi", "mul": "muli", "maximum": "maxsi", "minimum": "minsi"}
_ORDER = {"lt": ("olt", "slt"), "le": ("ole", "sle"), "gt": ("ogt", "sgt"), "ge": ("oge", "sge"), "eq": ("oeq", "eq"),
          "ne": ("une", "ne")}  # fmt: skip
POINTWISE = frozenset({*_MATH, *_REAL, *_ORDER}) | frozenset(
    "sign sigmoid softplus relu logical_not logical_and logical_or to_real pow mod where".split()
)
_LARGEST_POWER = 16


def result_of(op: str, elems: Sequence[str]) -> str:
    """The type of the result of ``op`` on operands of these types."""
    if op in COMPARISONS:
        return BOOL
    if op == "where":
        elems = elems[1:]
    if op == "quotient":  # of integers that are not negative
        return INT
    if op in KEEPS_INTEGERS and all(e == INT for e in elems):
        return INT
    return REAL


def converted(let: Let, const: Const, value: str, old: str, new: str) -> str:
    """A number as one of another type; a condition is 0 or 1, and true where a number is not 0."""
    if old == new:
        return value
    if new == BOOL:
        zero = const(0, old)
        return let(
            f"arith.cmpf une, {value}, {zero} : {old}" if old == REAL else f"arith.cmpi ne, {value}, {zero} : {old}"
        )
    if old == BOOL:
        return let(f"arith.uitofp {value} : i1 to f32" if new == REAL else f"arith.extui {value} : i1 to i64")
    return let(f"arith.sitofp {value} : i64 to f32" if new == REAL else f"arith.fptosi {value} : f32 to i64")


def apply(let: Let, const: Const, op: str, args: Sequence[tuple[str, str]], literal: float | None) -> str:
    """``op`` on (value, type) pairs. ``literal``: the last operand, where it is a number that is known."""
    out = result_of(op, [e for _, e in args])

    def as_(n: int, elem: str) -> str:
        return converted(let, const, args[n][0], args[n][1], elem)

    if op in _ORDER:
        whole = all(e == INT for _, e in args)
        left, right = (as_(n, INT if whole else REAL) for n in (0, 1))
        real, integer = _ORDER[op]
        return let(
            f"arith.cmpi {integer}, {left}, {right} : i64" if whole else f"arith.cmpf {real}, {left}, {right} : f32"
        )
    if op in ("logical_and", "logical_or"):
        return let(f"arith.{'andi' if op == 'logical_and' else 'ori'} {as_(0, BOOL)}, {as_(1, BOOL)} : i1")
    if op == "logical_not":
        return let(f"arith.xori {as_(0, BOOL)}, {const(1, BOOL)} : i1")
    if op == "where":
        return let(f"arith.select {as_(0, BOOL)}, {as_(1, out)}, {as_(2, out)} : {out}")
    if op == "to_real":
        return as_(0, REAL)
    if out == INT:
        return _integer(let, const, op, [as_(n, INT) for n in range(len(args))])
    return _real(let, const, op, [as_(n, REAL) for n in range(len(args))], literal)


def _integer(let: Let, const: Const, op: str, args: list[str]) -> str:
    zero = const(0, INT)
    if op in _INT:
        return let(f"arith.{_INT[op]} {args[0]}, {args[1]} : i64")
    if op == "quotient":
        return let(f"arith.divsi {args[0]}, {args[1]} : i64")
    if op == "mod":  # the sign of the divisor, as in Python
        rest = let(f"arith.remsi {args[0]}, {args[1]} : i64")
        moved = let(f"arith.addi {rest}, {args[1]} : i64")
        return let(f"arith.remsi {moved}, {args[1]} : i64")
    if op == "neg":
        return let(f"arith.subi {zero}, {args[0]} : i64")
    if op == "abs":
        return let(f"arith.maxsi {args[0]}, {let(f'arith.subi {zero}, {args[0]} : i64')} : i64")
    if op == "relu":
        return let(f"arith.maxsi {args[0]}, {zero} : i64")
    if op == "sign":
        up = let(f"arith.minsi {args[0]}, {const(1, INT)} : i64")
        return let(f"arith.maxsi {up}, {const(-1, INT)} : i64")
    return args[0]  # floor


def _real(let: Let, const: Const, op: str, args: list[str], literal: float | None) -> str:
    zero, one = const(0.0, REAL), const(1.0, REAL)
    x = args[0]
    if op in _MATH:
        return let(f"{_MATH[op]} {x} : f32")
    if op in _REAL:
        return let(f"arith.{_REAL[op]} {x}, {args[1]} : f32")
    if op == "relu":
        return let(f"arith.maximumf {x}, {zero} : f32")
    if op == "sigmoid":
        below = let(f"math.exp {let(f'arith.negf {x} : f32')} : f32")
        return let(f"arith.divf {one}, {let(f'arith.addf {one}, {below} : f32')} : f32")
    if op == "softplus":
        size = let(f"arith.negf {let(f'math.absf {x} : f32')} : f32")
        rest = let(f"math.log1p {let(f'math.exp {size} : f32')} : f32")
        return let(f"arith.addf {let(f'arith.maximumf {x}, {zero} : f32')}, {rest} : f32")
    if op == "sign":
        above, below = let(f"arith.cmpf ogt, {x}, {zero} : f32"), let(f"arith.cmpf olt, {x}, {zero} : f32")
        negative = let(f"arith.select {below}, {const(-1.0, REAL)}, {zero} : f32")
        return let(f"arith.select {above}, {one}, {negative} : f32")
    if op == "mod":
        quotient = let(f"math.floor {let(f'arith.divf {x}, {args[1]} : f32')} : f32")
        return let(f"arith.subf {x}, {let(f'arith.mulf {quotient}, {args[1]} : f32')} : f32")
    if op == "pow":
        return _power(let, const, x, args[1], literal)
    raise AssertionError(f"no pointwise operation: {op}")


def _power(let: Let, const: Const, base: str, exponent: str, literal: float | None) -> str:
    """Whole powers as products: bases may be negative."""
    if literal is not None and abs(literal) <= _LARGEST_POWER and float(literal).is_integer():
        result, factor, rest = "", base, int(abs(literal))
        while rest:
            if rest & 1:
                result = let(f"arith.mulf {result}, {factor} : f32") if result else factor
            rest >>= 1
            if rest:
                factor = let(f"arith.mulf {factor}, {factor} : f32")
        result = result or const(1.0, REAL)
        return result if literal >= 0 else let(f"arith.divf {const(1.0, REAL)}, {result} : f32")
    if literal == 0.5:
        return let(f"math.sqrt {base} : f32")
    return let(f"math.powf {base}, {exponent} : f32")
