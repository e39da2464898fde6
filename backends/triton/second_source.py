"""The second derivative of a loop, as source: what its operator gives, by the function of the torch backend.

The emitted module has ``SECOND``: by loop, what gives second derivatives (``backends/again.py``). Whoever imports the
module fills it; in a module on its own it is empty, and a second derivative is refused.
"""

from __future__ import annotations

from nldsl.backends.again import TorchForm
from nldsl.backends.interface import LoopCall
from nldsl.backends.triton.host import Written, arguments, listed
from nldsl.backends.triton.job import Source
from nldsl.backends.triton.jobs import Naming
from nldsl.backends.triton.printer import INDENT
from nldsl.ir.types import BATCH, TIME

TABLE = "SECOND: dict[str, object] = {}  # by loop: what gives second derivatives; put there by who imports this"


def missing(naming: Naming, forward: Written) -> list[Source]:
    """The arguments of the function of the loop that no kernel reads: parameters that states are reset to."""
    own, packed = _own_names(naming), {m for _, members, _ in packs(naming) for m in members}
    known = {s.name for s in forward.inputs} | packed
    return [Source(own[a.name], a.type) for a in naming.call.arguments if own[a.name] not in known]


def torch_form(call: LoopCall) -> TorchForm:
    """The same function in the form of the torch backend."""
    assert call.plain is not None
    order = tuple(range(len(call.results)))
    return TorchForm(call.plain(), call.name, call.counts, order, ", ".join(call.phase.states) or "pointwise work")


def packs(naming: Naming) -> list[tuple[str, list[str], int]]:
    """Packed tensors: name, those of the members, the dim along which they lie."""
    call, own = naming.call, _own_names(naming)
    found = []
    for pack in call.phase.packs:
        for (state, period), source in naming.variables.items():
            if state == pack.name:
                held = {a.keys[0]: a.name for a in call.arguments if a.kind in ("state", "anchor")}
                members = [own.get(held[s, period], held[s, period]) for s in pack.states]
                found.append((source.name, members, source.type.axes.index(pack.axis)))
    return found


def again_source(naming: Naming, forward: Written, name: str) -> str:
    """The function that gives what the operator gives, sequence by sequence where they are packed in a row."""
    call, own, given = naming.call, _own_names(naming), arguments(forward)
    lines = [f"def {name}_again(results, tick, TICKS, cuts, {', '.join(given)}):"]
    lines.append(f'{INDENT}"""What the operator gives, in the form of the torch backend."""')
    outs = [*forward.job.variables.values(), *(s for s, _ in forward.job.outputs)]
    lines += [INDENT + line for line in _by_sequence(forward, name, outs)]
    for whole, members, dim in packs(naming):
        lines.append(f"{INDENT}{listed(members)} = {whole}.unbind({dim})")
    taken = [own[a.name] for a in call.arguments]
    texts = [f"{own[r.name]}_out" if r.kind != "output" else naming.outputs[r.keys[0][1]].name for r in call.results]
    lines.append(f"{INDENT}{listed(texts)} = results({listed(taken)}, tick, TICKS)")
    for whole, members, dim in packs(naming):
        lines.append(f"{INDENT}{whole}_out = torch.stack([{', '.join(f'{m}_out' for m in members)}], {dim})")
    names = [f"{s.name}_out" for s in forward.job.variables.values()] + [s.name for s, _ in forward.job.outputs]
    return "\n".join([*lines, f"{INDENT}return [{', '.join(names)}]"])


def _own_names(naming: Naming) -> dict[str, str]:
    """What an argument or result is called in the emitted functions, by its name in the call."""
    new = {old: own for own, old in naming.renamed.items()}
    return {a.name: new.get(a.name, a.name) for a in (*naming.call.arguments, *naming.call.results)}


def _by_sequence(forward: Written, name: str, outs: list[Source]) -> list[str]:
    """The lines for sequences that lie in one row."""
    pieces = [_piece(s) for s in forward.inputs]
    if not any(BATCH in s.type.axes for s in forward.inputs):
        return []
    dims = [s.type.axes.index(TIME if TIME in s.type.axes else BATCH) for s in outs if BATCH in s.type.axes]
    if len(dims) < len(outs):
        return []  # what is shared by sequences is never packed
    return [
        "if cuts:",
        f"{INDENT}parts = [",
        f"{INDENT * 2}{name}_again(results, tick, stop - start, [], {', '.join(pieces)})",
        f"{INDENT * 2}for n, (start, stop) in enumerate(zip(cuts, cuts[1:]))",
        f"{INDENT}]",
        f"{INDENT}return [torch.cat(rows, dim) for rows, dim in zip(zip(*parts), {listed([str(d) for d in dims])})]",
    ]


def _piece(source: Source) -> str:
    """What one of several packed sequences has of a tensor."""
    axes = source.type.axes
    if TIME in axes:
        return f"{source.name}.narrow({axes.index(TIME)}, start, stop - start)"
    return f"{source.name}.narrow({axes.index(BATCH)}, n, 1)" if BATCH in axes else source.name
