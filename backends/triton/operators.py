"""The function of a loop as the emitted module has it: operators of PyTorch around the runs of its jobs.

An operator has a fake (shapes without launching) and a derivative, so that ``torch.compile``, ``torch.export`` and
autograd see through it. A derivative that is to be differentiated again goes through PyTorch's form of the loop
(``second_source.py``); where there is none it is refused, and says so.
"""

from __future__ import annotations

import hashlib

from nldsl.backends.triton.host import Written, arguments, listed, rerun_source, run_source
from nldsl.backends.triton.jobs import Naming
from nldsl.backends.triton.printer import INDENT
from nldsl.backends.triton.second_source import again_source, packs
from nldsl.ir.types import TIME


def operator_source(written: Written, run: str, name: str, digest: str) -> str:
    """A run as an operator called ``name``."""
    tensors = arguments(written)
    typed = ["tick: int", "TICKS: int", "cuts: list[int]", *(f"{a}: torch.Tensor" for a in tensors)]
    given = ", ".join(["tick", "TICKS", "cuts", *tensors])
    lines = [
        f'@torch.library.custom_op("nldsl::{name}_{digest}", mutates_args=())',
        f"def {name}(",
        *(f"{INDENT}{a}," for a in typed),
        ") -> list[torch.Tensor]:",
        f'{INDENT}check_device({tensors[0]}, "{name}")',
        f"{INDENT}return {run}({given})",
        "",
        "",
        f"@{name}.register_fake",
        f"def {name}_fake({given}):",
        f"{INDENT}return {run}({given}, launch=False)",
    ]
    return "\n".join(lines)


def derivative_source(
    naming: Naming, forward: Written, backward: Written, name: str, back: str, second: bool = True
) -> str:
    """The derivative of the operator ``name`` by the operator ``back``. ``second``: by PyTorch's form where it is to be
    differentiated again."""
    inputs, needed = arguments(forward), arguments(backward)
    results = [*(f"{s.name}_out" for s in forward.job.variables.values()), *(s.name for s, _ in forward.job.outputs)]
    saved = [*inputs, *(slot.name for slot in forward.left)]
    lines = [
        f"def {name}_keep(ctx, inputs, output):",
        f"{INDENT}ctx.set_materialize_grads(False)  # no zeros for what is left for the way back",
        f"{INDENT}ctx.tick, ctx.TICKS, ctx.cuts = inputs[:3]",
        f"{INDENT}ctx.save_for_backward(*inputs[3:], *output[{len(results)}:])",
        f"{INDENT}ctx.results = [(x.shape, x.dtype, x.device) for x in output[:{len(results)}]]",
        "",
        "",
        f"def {name}_back(ctx, grads):",
        f"{INDENT}no_cuts = None if ctx.cuts else []  # an empty list counts as one of tensors",
    ]
    if second:
        by = f'SECOND["{naming.call.name}"].through'
        lines += [
            f'{INDENT}if torch.is_grad_enabled() and "{naming.call.name}" in SECOND:  # with create_graph',
            f"{INDENT * 2}given, head = ctx.saved_tensors[:{len(inputs)}], (ctx.tick, ctx.TICKS, ctx.cuts)",
            f"{INDENT * 2}found = {by}({name}_again, given, grads[:{len(results)}], *head)",
            f"{INDENT * 2}return None, None, no_cuts, *found",
        ]
    lines += [
        f"{INDENT}{', '.join(saved)}{',' if len(saved) == 1 else ''} = ctx.saved_tensors",
        f"{INDENT}grads = [",
        f"{INDENT * 2}torch.zeros(shape, dtype=dtype, device=device) if grad is None else grad",
        f"{INDENT * 2}for grad, (shape, dtype, device) in zip(grads, ctx.results)",
        f"{INDENT}]",
    ]
    where = {}
    for n, source in enumerate(forward.job.variables.values()):
        where[naming.cotangent(source.name)] = f"grads[{n}]"
    for n, (source, _) in enumerate(forward.job.outputs):
        where[naming.cotangent(source.name)] = f"grads[{len(forward.job.variables) + n}]"
    given = [where.get(a, a) for a in needed]
    found = [s.name for s in backward.job.variables.values()] + [
        s.name for s, _ in (*backward.job.outputs, *backward.job.sums)
    ]
    found += [s.name for s in backward.initials]
    lines += [f"{INDENT}{', '.join(found)}{',' if len(found) == 1 else ''} = {back}(", f"{INDENT * 2}ctx.tick,"]
    lines += [f"{INDENT * 2}ctx.TICKS,", f"{INDENT * 2}ctx.cuts,", *(f"{INDENT * 2}{g}," for g in given), f"{INDENT})"]
    grads: dict[str, list[str]] = {}
    belongs = {naming.cotangent(s.name): s.name for s in forward.inputs}
    for source in (*backward.job.variables.values(), *backward.initials):
        grads[belongs[source.name]] = [source.name]
    for source, _ in (*backward.job.outputs, *backward.job.sums):
        grads.setdefault(backward.like[source.name].name, []).append(source.name)
    states = ", ".join(f"`{state}`" for state in naming.call.phase.states)
    texts = [" + ".join(grads.get(a, ["None"])) for a in inputs]
    lines += [
        f"{INDENT}return None, None, no_cuts, {', '.join(texts)}",
        "",
        "",
        f"{name}.register_autograd({name}_back, setup_context={name}_keep)",
        "",
        "",
        f"def {back}_again(ctx, grads):",
        f"{INDENT}raise NotImplementedError(",
        f'{INDENT * 2}"the loop of {states} has no second derivative here (`require_backend`, or PyTorch traces it): "',
        f'{INDENT * 2}"compile the module without that, or with the torch backend"',
        f"{INDENT})",
        "",
        "",
        f"{back}.register_autograd({back}_again)",
    ]
    return "\n".join(lines)


def entry_source(naming: Naming, forward: Written, name: str) -> str:
    """The function that the emitted module calls."""
    call = naming.call
    parameters = ["t", *(["T"] if call.counts else []), *(a.name for a in call.arguments), "cuts=()"]
    lines = [f"def {call.name}({', '.join(parameters)}):"]
    stream = next((a for a in call.arguments if a.kind == "stream"), None)
    lines.append(
        f"{INDENT}TICKS = T"
        if stream is None
        else f"{INDENT}TICKS = {stream.name}.shape[{stream.type.axes.index(TIME)}]"
    )
    lines += [f"{INDENT}{new} = {old}" for new, old in naming.renamed.items()]
    lines += [INDENT + line for line in _together(naming)]
    lines += [INDENT + line for line in _initials(naming)]
    lines.append(f"{INDENT}results = {name}({', '.join(['t', 'TICKS', 'cuts', *arguments(forward)])})")
    names = [f"{s.name}_out" for s in forward.job.variables.values()] + [s.name for s, _ in forward.job.outputs]
    lines.append(f"{INDENT}{', '.join(names)}{',' if len(names) == 1 else ''} = results[:{len(names)}]")
    results = [
        naming.outputs[tensor.keys[0][1]].name if tensor.kind == "output" else _result(naming, tensor.keys[0])
        for tensor in call.results
    ]
    lines += [INDENT + line for line in _apart(naming)]
    lines.append(f"{INDENT}return {', '.join(results)}")
    return "\n".join(lines)


def _together(naming: Naming) -> list[str]:
    return [f"{name} = torch.stack([{', '.join(members)}], {dim})" for name, members, dim in packs(naming)]


def _apart(naming: Naming) -> list[str]:
    return [
        f"{listed([f'{m}_out' for m in members])} = {name}_out.unbind({dim})" for name, members, dim in packs(naming)
    ]


def _result(naming: Naming, key: tuple[str, object]) -> str:
    own = next((source for known, source in naming.variables.items() if known == key), None)
    if own is not None:
        return f"{own.name}_out"
    held = {a.keys[0]: a.name for a in naming.call.arguments if a.kind in ("state", "anchor")}
    return f"{held[key]}_out"


def _initials(naming: Naming) -> list[str]:
    """The values that states are reset to, in the layout of the states."""
    own = {old: new for new, old in naming.renamed.items()}
    return [
        f"{naming.initials[state].name} = {function}({', '.join(own.get(a, a) for a in arguments)})"
        for state, function, arguments, _ in naming.call.initials
        if state in naming.initials
    ]


def digest_of(*texts: str) -> str:
    """A short name for a text: operators are registered once for all modules of a process."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


def loop_source(naming: Naming, forward: Written, backward: Written | None, title: str, second: bool = True) -> str:
    """All of the loop: kernels, runs, operators, and the function to call. ``second``: with second derivatives."""
    functions: dict[str, str] = {}
    parts = []
    for written in (forward, backward):
        if written is not None:
            for kernel in written.kernels:
                functions.update(kernel.functions)
                parts.append(kernel.source)
    run = f"{title}_launch"
    texts = [*functions.values(), *parts, run_source(forward, run)]
    if backward is not None and backward.rerun is not None:
        texts.append(rerun_source(backward.rerun))
    if backward is not None:
        texts.append(run_source(backward, f"{title}_back_launch"))
    if backward is not None and second:
        texts.append(again_source(naming, forward, f"{title}_forward"))
    digest = digest_of(*texts)
    texts.append(operator_source(forward, run, f"{title}_forward", digest))
    if backward is not None:
        back = f"{title}_backward"
        texts.append(operator_source(backward, f"{title}_back_launch", back, digest))
        texts.append(derivative_source(naming, forward, backward, f"{title}_forward", back, second))
    texts += [text.rstrip() for state, *_, text in naming.call.initials if state in naming.initials]
    texts.append(entry_source(naming, forward, f"{title}_forward"))
    return "\n\n\n".join(texts)
