"""How the built-in functions are written (language reference, section 9), for whoever called one in another way."""

from __future__ import annotations

__all__ = ["METHODS_ELSEWHERE", "NAMES_ELSEWHERE", "usage"]

_REDUCTIONS = "sum mean max min".split()
_ONE_ARGUMENT = (
    "exp log log1p expm1 sqrt rsqrt abs sign sin cos tanh arctan sigmoid softplus relu silu gelu gelu_erf erf "
    "floor norm softmax log_softmax logsumexp cumsum transpose column row diag trace triangle rank stop_grad "
    "fixed next length"
).split()
_OTHERS = {
    "clamp": ("clamp(x, lo, hi)",),
    "where": ("where(c, a, b)",),
    "dot": ("dot(a, b)",),
    "outer": ("outer(v, k)",),
    "unit": ("unit(x)", "unit(x, eps)"),
    "reshape": ("reshape(x, [a, b])",),
    "broadcast": ("broadcast(x, [a, b])",),
    "concat": ("concat(a, b, axis = 0)",),
    "stack": ("stack(a, b)",),
    "split": ("split(x, n)",),
    "zeros": ("zeros([a, b])",),
    "ones": ("ones([a, b])",),
    "identity": ("identity(n)",),
    "iota": ("iota(n)",),
    "range": ("range(n)",),
    "size": ("size(x, axis)",),
    "one_hot": ("one_hot(i, n)",),
    "einsum": ('einsum("ij,j->i", A, x)',),
    "solve": ("solve(A, b)",),
    "cross_entropy": ("cross_entropy(logits, target)",),
    "grad": ("grad(loss, x)",),
    "straight_through": ("straight_through(e, s)",),
    "prev": ("prev(x)", "prev(x, n)"),
    "window": ("window(x, n)",),
    "window_mask": ("window_mask(n)",),
    "clock": ("clock()", "clock(n)"),
    "normal": ("normal(std)",),
    "uniform": ("uniform(low, high)",),
}
_FORMS: dict[str, tuple[str, ...]] = {
    **{name: (f"{name}(x)", f"{name}(x, axis = i)") for name in _REDUCTIONS},
    **{name: (f"{name}(x)",) for name in _ONE_ARGUMENT},
    **_OTHERS,
}
_FORMS["max"] = (*_FORMS["max"], "max(a, b)")
_FORMS["min"] = (*_FORMS["min"], "min(a, b)")

NAMES_ELSEWHERE = {
    **dict.fromkeys(("matmul", "mm", "bmm", "mv"), "`A @ x`"),
    **dict.fromkeys(("normalize", "normalise", "l2norm", "l2_normalize"), "`unit(x)`"),
    **dict.fromkeys(("swish", "SiLU"), "`silu(x)`"),
    **dict.fromkeys(("logistic", "sigma", "expit"), "`sigmoid(x)`"),
    **dict.fromkeys(("arange", "linspace"), "`iota(n)`"),
    **dict.fromkeys(("eye",), "`identity(n)`"),
    **dict.fromkeys(("cat", "concatenate"), "`concat(a, b, axis = 0)`"),
    **dict.fromkeys(("pow", "power"), "`x ^ n`"),
    **dict.fromkeys(("square",), "`x^2`"),
    **dict.fromkeys(("detach", "no_grad"), "`stop_grad(x)`"),
    **dict.fromkeys(("tril",), "`triangle(A)`"),
    **dict.fromkeys(("clip",), "`clamp(x, lo, hi)`"),
    **dict.fromkeys(("shift", "roll", "previous", "last_value"), "`prev(x)`"),
    **dict.fromkeys(("self", "this"), "the name of the member alone"),
    **dict.fromkeys(("torch", "np", "numpy", "jnp", "jax", "nn", "F", "math"), "functions alone: `sum(x)`, `exp(x)`"),
    **dict.fromkeys(("None", "null", "nil"), "`0`, or leave the value out"),
    **dict.fromkeys(("maximum",), "`max(a, b)`"),
    **dict.fromkeys(("minimum",), "`min(a, b)`"),
}
"""Names that other languages have for what has another one here."""
METHODS_ELSEWHERE = {"T": ("{}'",), "mT": ("{}'",), "t": ("{}'",), "shape": ("size({}, axis)",), "pow": ("{} ^ n",)}
"""What tensors of Python have as members, and how it is written here."""


def usage(name: str) -> tuple[str, ...]:
    """The ways to call a built-in function; none for an unknown name."""
    return _FORMS.get(name, ())
