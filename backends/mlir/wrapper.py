"""The Python function of a loop in the emitted module: it lines up the tensors and calls the native loop."""

from __future__ import annotations

from typing import Any

from nldsl.backends.again import TorchForm
from nldsl.backends.interface import LoopCall, LoopSource, LoopTensor
from nldsl.backends.mlir.function import Argument
from nldsl.backends.mlir.native_loop import NativeLoop
from nldsl.backends.mlir.views import UnsupportedError
from nldsl.ir.program import Program
from nldsl.ir.schedule import init_values
from nldsl.ir.types import BATCH, TIME, Type, axis_order

IMPORTS = ("from nldsl.backends.mlir import custom_ops as native",)
LEAF = {"given": "given", "param": "param", "fixed": "state"}


def source_of(call: LoopCall, native: NativeLoop, name: str) -> LoopSource:
    """The source of the function; raises UnsupportedError."""
    by_leaf = {leaf: t for t in call.arguments if t.kind in ("stream", "other") for leaf in t.keys}
    held = {t.keys[0]: t for t in call.arguments if t.kind in ("state", "anchor")}
    numbers = dict(call.numbers)
    names = [t.name for t in call.arguments]
    counted = "T"
    if not call.counts:
        stream = next(t for t in call.arguments if t.kind == "stream")
        counted = f"{stream.name}.shape[{_axes(call.program, stream.type).index(TIME)}]"
    ends = bool(native.endings) and bool(native.states)
    listed = ["t", *(["T"] if call.counts else []), *names, *(["ends=True"] if ends else [])]
    lines = [f"def {call.name}({', '.join(listed)}):"]
    lines.append(f'    """{_doc(call)}"""')
    like = next(iter(held.values()), call.arguments[0]).name
    for argument in native.inputs:
        if argument.kind == "initial":
            lines += [f"    {text}" for text in initial_lines(call.program, argument, by_leaf, like)]
    given = []
    for argument in native.inputs:
        if argument.kind == "state":
            found = held.get(argument.key)
            text = found.name if found is not None else f"{like}.new_zeros(())"
            if found is None:
                raise UnsupportedError(f"the state {argument.key[0]} is no argument of its loop")
        elif argument.kind == "initial":
            text = _initial_name(argument)
        else:
            leaf = (LEAF[argument.kind], argument.key)
            if leaf in numbers:
                rank = len(native.axes_of(argument.type)) + len(argument.type.shape)
                text = f"native.number({numbers[leaf]}, {rank}, {like})"
            else:
                text = _lined_up(call.program, by_leaf[leaf], argument.type)
        given.append(text)
    lines.append(f'    {_results(call, native)} = native.run("{name}", [')
    lines += [f"        {text}," for text in given]
    lines.append(f"    ], t, {counted}, [{', '.join(names)}]{', ends' if ends else ''})")
    lines.append(f"    return {', '.join(_order(call))}")
    return LoopSource("\n".join(lines) + "\n", IMPORTS, ends=ends)


def layout_of(call: LoopCall, native: NativeLoop) -> str:
    """Which argument of the function is which tensor of the native loop: loops that share a name share it, too."""
    head, *lines = source_of(call, native, "").source.split("\n")
    return "\n".join([head.removeprefix(f"def {call.name}"), *lines[1:]])


def torch_form(call: LoopCall, native: NativeLoop) -> TorchForm:
    """The same function in the form of the torch backend."""
    assert call.plain is not None
    places = {name: n for n, name in enumerate(_order(call))}
    order = tuple(places[name] for name in _result_names(call, native))
    return TorchForm(call.plain(), call.name, call.counts, order, ", ".join(call.phase.states) or "pointwise work")


def _doc(call: LoopCall) -> str:
    names = call.phase.states
    if not names:
        return f"Pointwise work, at most {call.phase.size} ticks at once."
    listed = ", ".join(names) if len(names) < 4 else f"{names[0]}, {names[1]} and {len(names) - 2} more states"
    clean = "".join(c for c in listed if c.isalnum() or c in "._, ")
    return f"A native loop, at most {call.phase.size} ticks at once: {clean}."


def _axes(program: Program, type: Type) -> tuple[str, ...]:
    return axis_order(type.axes, program.axis_names())


def _lined_up(program: Program, tensor: LoopTensor, type: Type) -> str:
    """The tensor with a dimension for every axis that the loop expects."""
    own, wanted = _axes(program, tensor.type), _axes(program, type)
    if any(a not in wanted for a in own):
        raise UnsupportedError(f"{tensor.name} has axes that its leaf has not")
    text = tensor.name
    for position, axis in enumerate(wanted):
        if axis not in own:
            text += f".unsqueeze({position})"
    return text


def _result_names(call: LoopCall, native: NativeLoop) -> list[str]:
    found = []
    for argument in (*native.states, *native.streams):
        for result in call.results:
            key = result.keys[0] if result.kind != "output" else ("output", result.keys[0][1])
            wanted: Any = argument.key if argument.kind == "state" else ("output", argument.key)
            if key == wanted:
                found.append(result.name)
                break
        else:
            raise UnsupportedError("a result that the loop does not give")
    return found


def _results(call: LoopCall, native: NativeLoop) -> str:
    names = _result_names(call, native)
    return f"[{names[0]}]" if len(names) == 1 else ", ".join(names)


def _order(call: LoopCall) -> list[str]:
    return [r.name for r in call.results]


def _initial_name(argument: Argument) -> str:
    return "initial_" + "".join(c if c.isalnum() and c.isascii() else "_" for c in str(argument.key))


SIMPLE = {"add": "+", "sub": "-", "mul": "*", "div": "/"}


def initial_lines(
    program: Program, argument: Argument, leaves: dict[tuple[str, Any], LoopTensor], like: str
) -> list[str]:
    """The initial value of a state that is reset, from parameters; raises UnsupportedError for what is not simple."""
    name = _initial_name(argument)
    lines = []
    rank = len(_axes(program, argument.type)) + len(argument.type.shape)
    for value in init_values(program, argument.key):
        instr = program.init[value]
        own = f"{name}_{value}"
        args = [f"{name}_{a}" for a in instr.args]
        if instr.type.axes and BATCH in instr.type.axes:
            raise UnsupportedError(f"the initial value of {argument.key} depends on the sequence")
        if instr.type.axes and tuple(instr.type.axes) != tuple(a for a in argument.type.axes if a != BATCH):
            raise UnsupportedError(f"the initial value of {argument.key} has axes of its own")
        if instr.op == "param":
            text = leaves["param", instr.attr("param")].name
        elif instr.op == "const":
            text = f"{like}.new_tensor({float(instr.attr('value'))!r})"
        elif instr.op in SIMPLE and (
            not instr.type.axes or all(program.init[a].type == instr.type for a in instr.args)
        ):
            text = f" {SIMPLE[instr.op]} ".join(args)
        elif instr.op == "neg":
            text = f"-{args[0]}"
        elif instr.op == "broadcast" and not instr.type.axes:
            text = f"{args[0]}.expand({', '.join(map(str, instr.attr('shape')))})"
        else:
            raise UnsupportedError(f"the initial value of {argument.key} uses `{instr.op}`")
        lines.append(f"{own} = {text}")
    last = f"{name}_{program.state(argument.key).init}"
    init = program.init[program.state(argument.key).init].type
    lead = rank - len(init.axes) - len(init.shape)
    if lead < 0 or (init.axes and BATCH not in argument.type.axes and lead):
        raise UnsupportedError(f"the initial value of {argument.key} has another shape")
    lines.append(f"{name} = {last}" + f"[{', '.join(['None'] * lead)}]" if lead else f"{name} = {last}")
    return lines
