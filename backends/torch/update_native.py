"""An entrywise update as one C function over all parameters: one pass over memory, whatever the update computes.

The function splits the entries of all tensors evenly over threads. It holds numbers of the program and names that are
made here, never text of the program.
"""

from __future__ import annotations

from nldsl.ir.demand import reachable
from nldsl.ir.entrywise import Entrywise
from nldsl.ir.program import Instr

# one operand, two operands; `real` is float or double, F(name) the function of that precision
EXPRESSIONS = {
    "neg": "-{}",
    "to_real": "{}",
    "rsqrt": "1 / F(sqrt)({})",
    "abs": "F(fabs)({})",
    "arctan": "F(atan)({})",
    "sign": "({0} > 0 ? 1 : {0} < 0 ? -1 : {0})",
    "sigmoid": "1 / (1 + F(exp)(-{}))",
    "softplus": "({0} > 0 ? {0} + F(log1p)(F(exp)(-{0})) : F(log1p)(F(exp)({0})))",
    "relu": "({0} < 0 ? 0 : {0})",
    "logical_not": "({} == 0)",
    "logical_and": "({} != 0 && {} != 0)",
    "logical_or": "({} != 0 || {} != 0)",
    "where": "({} != 0 ? {} : {})",
    "maximum": "({0} > {1} || {0} != {0} ? {0} : {1})",
    "minimum": "({0} < {1} || {0} != {0} ? {0} : {1})",
    "pow": "F(pow)({}, {})",
    "mod": "({0} - F(floor)({0} / {1}) * {1})",
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": "{} * {}",
    "div": "{} / {}",
    **{op: f"F({op})({{}})" for op in "exp log log1p expm1 sqrt sin cos tanh erf floor".split()},
    **{op: f"({{}} {s} {{}})" for op, s in zip("lt le gt ge eq ne".split(), "< <= > >= == !=".split(), strict=True)},
}

TEMPLATE = """\
/* One tick of an optimizer for all entries of all its parameters, compiled by nldsl. */
#include <math.h>
#include <pthread.h>

typedef {real} real;
#define F(name) {function}

static void entries(long n, {arguments}, const double *numbers, real rate)
{{
{numbers}    for (long i = 0; i < n; i++) {{
{body}    }}
}}

typedef struct {{
    long tensors, total, *next;
    const long *starts;
    real *const *g, *const *w, *const *s;
    const double *numbers;
    double rate;
}} Work;

/* Pieces of the tensors put one after the other, until all are done: whoever is free takes the next. */
static void *work(void *given)
{{
    enum {{ PIECE = 1 << 16 }};
    const Work *p = given;
    for (long begin; (begin = __atomic_fetch_add(p->next, PIECE, __ATOMIC_RELAXED)) < p->total;) {{
        long end = begin + PIECE < p->total ? begin + PIECE : p->total, t = 0, above = p->tensors;
        while (above - t > 1) {{ /* the tensor of the first entry */
            long middle = (t + above) / 2;
            if (p->starts[middle] <= begin)
                t = middle;
            else
                above = middle;
        }}
        for (long from = begin; from < end; t++) {{
            long to = p->starts[t + 1] < end ? p->starts[t + 1] : end, at = from - p->starts[t];
            if (from < to)
                entries(to - from, {call}, p->numbers, (real)p->rate);
            from = to > from ? to : from;
        }}
    }}
    return 0;
}}

void update(long threads, long tensors, const long *starts, real *const *g, real *const *w, real *const *s,
            const double *numbers, double rate)
{{
    enum {{ MOST = 64 }};
    pthread_t running[MOST];
    int started[MOST] = {{0}};
    long next = 0;
    Work all = {{tensors, starts[tensors], &next, starts, g, w, s, numbers, rate}};
    threads = threads < 1 ? 1 : threads > MOST ? MOST : threads;
    for (long i = 1; i < threads; i++)
        started[i] = pthread_create(&running[i], 0, work, &all) == 0;
    work(&all);
    for (long i = 1; i < threads; i++)
        if (started[i])
            pthread_join(running[i], 0);
}}
"""


def write_native(rule: Entrywise, double: bool) -> str:
    """The C source of the update for tensors of float32 or float64.

    ``update(threads, tensors, starts, g, w, s, numbers, rate)``: ``starts`` are the offsets of the tensors among all
    entries, ``g`` and ``w`` point at each tensor's gradient and weight, ``s`` at each state's entries.
    """
    states = [f"real *restrict s{i}" for i in range(len(rule.states))]
    values = [f"p->s[{i}] + from" for i in range(len(rule.states))]
    shared = [f"x{v}" for v in rule.needed_numbers()] + [f"fires{i}" for i in range(len(rule.needed_clocks()))]
    numbers = [f"    const real {name} = (real)numbers[{i}];\n" for i, name in enumerate(shared)]
    places = {name: i for i, (name, _, _) in enumerate(rule.states)}
    lines = [f"const real x{value} = {_text(rule, rule.body[value], places)};" for value in _order(rule)]
    lines += [f"s{i}[i] = {_operand(rule, value)};" for i, (_, _, value) in enumerate(rule.states)]
    lines.append(f"w[i] += rate * ({_operand(rule, rule.change)});")
    return TEMPLATE.format(
        real="double" if double else "float",
        function="name" if double else "name##f",
        arguments=", ".join(["const real *restrict g", "real *restrict w", *states]),
        call=", ".join(["p->g[t] + at", "p->w[t] + at", *values]),
        numbers="".join(numbers),
        body="".join(f"        {line}\n" for line in lines),
    )


def _order(rule: Entrywise) -> list[int]:
    """The values of an entry that something needs, operands first."""
    return sorted(reachable(rule.body, [rule.change, *(value for _, _, value in rule.states)], rule.entries))


def _operand(rule: Entrywise, value: int) -> str:
    instr = rule.body[value]
    return _number(instr.attr("value")) if instr.op == "const" and value not in rule.entries else f"x{value}"


def _text(rule: Entrywise, instr: Instr, places: dict[str, int]) -> str:
    if instr.op == "input":
        return "g[i]" if instr.attr("input") == "g" else "w[i]"
    if instr.op == "state":
        return f"s{places[instr.attr('state')]}[i]"
    args = [_operand(rule, a) for a in instr.args]
    if instr.op == "when":
        flag = f"fires{rule.needed_clocks().index(instr.attr('clock'))}"
        return f"{flag} != 0 ? {args[0]} : {args[1]}"
    if instr.op == "pow" and rule.body[instr.args[1]].op == "const":
        exponent = rule.body[instr.args[1]].attr("value")
        simple = {2: "{0} * {0}", 3: "{0} * {0} * {0}", 0.5: "F(sqrt)({0})", -1: "1 / {0}", -0.5: "1 / F(sqrt)({0})"}
        if exponent in simple:
            return simple[exponent].format(args[0])
    if instr.op == "div" and instr.args[1] not in rule.entries:
        return f"{args[0]} * (1 / {args[1]})"  # the quotient leaves the loop; a division takes ten times a product
    return EXPRESSIONS[instr.op].format(*args)


def _number(value: float | int) -> str:
    """A constant, exact."""
    value = float(value)
    if value != value:
        return "(real)NAN"
    if value in (float("inf"), float("-inf")):
        return "(real)INFINITY" if value > 0 else "(real)-INFINITY"
    return f"(real){value.hex()}"
