"""Functions of real vectors. In float32: polynomials (Cephes), a few roundings from exact; in float64: the C library.

LLVM has no vector forms of these functions of its own, and calls one scalar after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nldsl.backends.mlir.text import Function, Val

EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
LOG = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
    2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
TANH = (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)


def add(f: Function, a: Val, b: Val) -> Val:
    """a + b."""
    return f.apply("arith.addf", a, b)


def sub(f: Function, a: Val, b: Val) -> Val:
    """a - b."""
    return f.apply("arith.subf", a, b)


def mul(f: Function, a: Val, b: Val) -> Val:
    """a * b."""
    return f.apply("arith.mulf", a, b)


def div(f: Function, a: Val, b: Val) -> Val:
    """a / b."""
    return f.apply("arith.divf", a, b)


def fma(f: Function, a: Val, b: Val, c: Val) -> Val:
    """a * b + c with one rounding."""
    return f.apply("vector.fma", a, b, c) if max(a.width, b.width, c.width) else f.apply("math.fma", a, b, c)


def compare(f: Function, how: str, a: Val, b: Val) -> Val:
    """A condition; ``how`` is a predicate of ``arith.cmpf``."""
    return f.apply(f"arith.cmpf {how},", a, b, kind="b")


def _number(f: Function, value: float) -> Val:
    return f.number(value)


def _polynomial(f: Function, x: Val, factors: Sequence[float]) -> Val:
    total = f.number(factors[0], x.width)
    for factor in factors[1:]:
        total = fma(f, total, x, f.number(factor))
    return total


def _bits(f: Function, op: str, value: Val, kind: str) -> Val:
    text = f"{op} {value.name} : {f.type(value.kind, value.width)} to {f.type(kind, value.width)}"
    return Val(f.op(text), kind, value.width)


def _power_of_two(f: Function, n: Val) -> Val:
    """2^n for an integer n within the exponents of normal numbers."""
    shifted = f.apply("arith.shli", f.apply("arith.addi", n, f.integer(127)), f.integer(23))
    return _bits(f, "arith.bitcast", shifted, "f")


def _at_most(f: Function, x: Val, limit: float) -> Val:
    """The smaller one; a NaN stays."""
    return f.select(compare(f, "ogt", x, f.number(limit)), f.number(limit), x)


def _at_least(f: Function, x: Val, limit: float) -> Val:
    return f.select(compare(f, "olt", x, f.number(limit)), f.number(limit), x)


def _exp_parts(f: Function, x: Val) -> tuple[Val, Val]:
    """(p, n) with e^x = p 2^n, n an integer."""
    n = f.apply("math.floor", fma(f, x, f.number(1.44269504088896341), f.number(0.5)))
    r = fma(f, n, f.number(-0.693359375), x)
    r = fma(f, n, f.number(2.12194440e-4), r)
    p = add(f, fma(f, _polynomial(f, r, EXP), mul(f, r, r), r), f.number(1.0))
    return p, f.cast(n, "i")


def exp(f: Function, x: Val) -> Val:
    """e^x, with gradual underflow and overflow to infinity."""
    if f.real != "f32":
        return f.apply("math.exp", x)
    p, whole = _exp_parts(f, _at_least(f, _at_most(f, x, 89.0), -104.0))
    half = f.apply("arith.shrsi", whole, f.integer(1))
    result = mul(f, mul(f, p, _power_of_two(f, half)), _power_of_two(f, f.apply("arith.subi", whole, half)))
    return f.select(compare(f, "uno", x, x), x, result)


def _exp_limited(f: Function, x: Val) -> Val:
    """e^x for x between -87 and 88."""
    p, whole = _exp_parts(f, x)
    return mul(f, p, _power_of_two(f, whole))


def log(f: Function, x: Val) -> Val:
    """The natural logarithm."""
    if f.real != "f32":
        return f.apply("math.log", x)
    small = compare(f, "olt", x, f.number(1.17549435e-38))
    scaled = f.select(small, mul(f, x, f.number(8388608.0)), x)
    bits = _bits(f, "arith.bitcast", scaled, "i")
    exponent = f.apply("arith.subi", f.apply("arith.shrui", bits, f.integer(23)), f.integer(126))
    exponent = f.apply("arith.subi", exponent, f.select(small, f.integer(23), f.integer(0)))
    mantissa = f.apply("arith.ori", f.apply("arith.andi", bits, f.integer(0x007FFFFF)), f.integer(0x3F000000))
    m = _bits(f, "arith.bitcast", mantissa, "f")
    low = compare(f, "olt", m, f.number(0.70710678118654752440))
    e = f.cast(f.apply("arith.subi", exponent, f.select(low, f.integer(1), f.integer(0))), "f")
    m = sub(f, f.select(low, add(f, m, m), m), f.number(1.0))
    z = mul(f, m, m)
    y = mul(f, mul(f, _polynomial(f, m, LOG), m), z)
    y = fma(f, e, f.number(-2.12194440e-4), y)
    y = fma(f, z, f.number(-0.5), y)
    result = fma(f, e, f.number(0.693359375), add(f, m, y))
    result = f.select(compare(f, "oeq", x, f.number(float("inf"))), x, result)
    result = f.select(compare(f, "oeq", x, f.number(0.0)), f.number(float("-inf")), result)
    return f.select(compare(f, "ult", x, f.number(0.0)), f.number(float("nan")), result)


def log1p(f: Function, x: Val) -> Val:
    """By Kahan's correction of ``log(1 + x)``."""
    if f.real != "f32":
        return f.apply("math.log1p", x)
    u = add(f, x, f.number(1.0))
    d = sub(f, u, f.number(1.0))
    ratio = div(f, mul(f, log(f, u), x), d)
    whole = f.select(compare(f, "oeq", u, f.number(float("inf"))), u, ratio)
    return f.select(compare(f, "oeq", d, f.number(0.0)), x, whole)


def expm1(f: Function, x: Val) -> Val:
    """e^x - 1, by Kahan's correction."""
    if f.real != "f32":
        return f.apply("math.expm1", x)
    u = exp(f, x)
    d = sub(f, u, f.number(1.0))
    ratio = mul(f, d, div(f, x, log(f, u)))
    ratio = f.select(compare(f, "oeq", d, f.number(-1.0)), f.number(-1.0), ratio)
    ratio = f.select(compare(f, "oeq", u, f.number(float("inf"))), u, ratio)
    return f.select(compare(f, "oeq", u, f.number(1.0)), x, ratio)


def sigmoid(f: Function, x: Val) -> Val:
    """1 / (1 + e^-x)."""
    if f.real != "f32":
        return div(f, f.number(1.0), add(f, f.number(1.0), exp(f, f.apply("arith.negf", x))))
    limited = _at_least(f, _at_most(f, f.apply("arith.negf", x), 88.0), -87.0)
    return div(f, f.number(1.0), add(f, f.number(1.0), _exp_limited(f, limited)))


def tanh(f: Function, x: Val) -> Val:
    """Near zero a polynomial, else from ``exp``."""
    if f.real != "f32":
        return f.apply("math.tanh", x)
    size = f.apply("math.absf", x)
    z = mul(f, x, x)
    near = fma(f, mul(f, _polynomial(f, z, TANH), z), x, x)
    limited = _at_most(f, size, 16.0)
    twice = _exp_limited(f, add(f, limited, limited))
    far = sub(f, f.number(1.0), div(f, f.number(2.0), add(f, twice, f.number(1.0))))
    far = f.apply("math.copysign", far, x)
    return f.select(compare(f, "olt", size, f.number(0.625)), near, far)


def softplus(f: Function, x: Val) -> Val:
    """log(1 + e^x) for any size of x."""
    size = f.apply("arith.negf", f.apply("math.absf", x))
    return add(f, f.apply("arith.maximumf", x, f.number(0.0)), log1p(f, exp(f, size)))


def sign(f: Function, x: Val) -> Val:
    """-1, 0 or 1."""
    zero = f.number(0.0)
    low = f.select(compare(f, "olt", x, zero), f.number(-1.0), f.number(0.0))
    return f.select(compare(f, "ogt", x, zero), f.number(1.0), low)


def rsqrt(f: Function, x: Val) -> Val:
    """1 / sqrt(x)."""
    return div(f, f.number(1.0), f.apply("math.sqrt", x))


def _plain(op: str) -> Callable[[Function, Val], Val]:
    return lambda f, x: f.apply(op, x)


UNARY: dict[str, Callable[[Function, Val], Val]] = {
    "neg": _plain("arith.negf"),
    "exp": exp,
    "log": log,
    "log1p": log1p,
    "expm1": expm1,
    "sqrt": _plain("math.sqrt"),
    "rsqrt": rsqrt,
    "abs": _plain("math.absf"),
    "sign": sign,
    "sin": _plain("math.sin"),
    "cos": _plain("math.cos"),
    "tanh": tanh,
    "arctan": _plain("math.atan"),
    "sigmoid": sigmoid,
    "softplus": softplus,
    "relu": lambda f, x: f.apply("arith.maximumf", x, f.number(0.0)),
    "erf": _plain("math.erf"),
    "floor": _plain("math.floor"),
}
COMPARE = {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"}


def remainder(f: Function, a: Val, b: Val) -> Val:
    """With the sign of the divisor, as in Python."""
    return sub(f, a, mul(f, b, f.apply("math.floor", div(f, a, b))))


def power(f: Function, a: Val, b: Val) -> Val:
    """a^b."""
    return f.apply("math.powf", a, b)


BINARY: dict[str, Callable[[Function, Val, Val], Val]] = {
    "add": add,
    "sub": sub,
    "mul": mul,
    "div": div,
    "pow": power,
    "maximum": lambda f, a, b: f.apply("arith.maximumf", a, b),
    "minimum": lambda f, a, b: f.apply("arith.minimumf", a, b),
    "mod": remainder,
}
INTEGER = {
    "add": "arith.addi",
    "sub": "arith.subi",
    "mul": "arith.muli",
    "maximum": "arith.maxsi",
    "minimum": "arith.minsi",
}
INTEGER_COMPARE = {"lt": "slt", "le": "sle", "gt": "sgt", "ge": "sge", "eq": "eq", "ne": "ne"}
