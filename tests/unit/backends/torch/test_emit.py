"""What the emitted source looks like, and that nothing of a program can become code."""

from __future__ import annotations

import ast
import keyword
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nldsl.api import load_program
from nldsl.backends.torch.emit import emit
from nldsl.backends.torch.loader import load
from nldsl.backends.torch.names import Names, comment, identifier, short_names
from nldsl.backends.torch.target_ast import reflow
from nldsl.ir.build import Builder
from nldsl.ir.program import Axis, Initializer, InputDecl, ParamDecl, Program, StateDecl
from nldsl.ir.schedule import needs_next
from nldsl.ir.types import BATCH, Type
from nldsl.passes.schedule import schedule
from nldsl.runtime.initialize import initialize
from nldsl.runtime.module import Module
from nldsl.source import SourceFile
from tests.conftest import Golden
from tests.numeric.torch_compare import Pair, pair
from tests.numeric.torch_programs import PROGRAMS


def source_of(name: str) -> str:
    return emit(schedule(load_program(f"{name}.nl", text=PROGRAMS[name])))


@pytest.mark.parametrize("name", ["delta", "heads", "slow block with much work", "fast weights", "resets"])
def test_source(name: str, golden: Golden) -> None:
    golden(source_of(name), suffix=".py")


@pytest.mark.parametrize("name", PROGRAMS)
def test_source_is_plain(name: str) -> None:
    text = source_of(name)
    tree = ast.parse(text)
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
    assert imported <= {"torch", "torch.nn", "collections.abc", "contextlib", "typing"}
    functions = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
    assert {"init_state", "forward", "step"} <= functions
    assert max(map(len, text.splitlines())) <= 130
    assert text == source_of(name)  # the same text each time


def test_a_loop_neither_indexes_nor_slices_its_streams() -> None:
    for name in PROGRAMS:
        for loop in re.findall(r"def scan_\w+\((.*?)\):(.*?)\n\n", source_of(name), re.DOTALL):
            streams = re.findall(r"(\w+_all)", loop[0])
            assert not [s for s in streams if re.search(rf"\b{s}\[", loop[1])]


def test_the_file_runs_without_the_compiler(tmp_path: Path) -> None:
    text = source_of("delta")
    assert "nldsl" not in text.replace("compiled by nldsl", "")
    module = load(text)
    state = module.init_state({}, 2, torch.float64, "cpu")
    inputs = {n: torch.randn(2, 3, k, dtype=torch.float64) for n, k in (("q", 8), ("k", 8), ("v", 6))}
    inputs |= {n: torch.rand(2, 3, dtype=torch.float64) for n in ("rate", "keep")}
    outputs, losses, _, state = module.forward({}, inputs, state)
    assert outputs["y"].shape == (2, 3, 6)
    assert losses == {}
    assert state["@tick"] == 3


def test_the_comment_has_the_line_of_the_program() -> None:
    text = source_of("delta")
    assert "# delta.nl:5: S <- keep * S" in text


def test_a_traceback_shows_the_line() -> None:
    import traceback

    module = load(source_of("delta"))
    try:
        module.forward({}, {}, {})
    except KeyError as error:
        assert 'q = inputs["q"]' in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("name", [*keyword.kwlist, "torch", "F", "print", "t", "B", "T", "state", "scan_x", "forward"])
def test_reserved_names_are_changed(name: str) -> None:
    found = identifier(name)
    assert found.isidentifier()
    assert found != name


@pytest.mark.parametrize("name", ["", "9", "a b", "x\n", "é", "__init__", "a" * 500, "a.b.c", "λ", "x" * 59 + ".y"])
def test_any_text_gives_an_identifier(name: str) -> None:
    found = identifier(name)
    assert found.isidentifier()
    assert found.isascii()
    assert not found.startswith("_")
    assert not keyword.iskeyword(found)
    names = Names()
    assert names.new(name) != names.new(name)


def test_short_names() -> None:
    assert short_names(["layers.0.mixer.m.W1", "layers.1.mixer.m.W1", "head"]) == {
        "layers.0.mixer.m.W1": "layers.0.W1",
        "layers.1.mixer.m.W1": "layers.1.W1",
        "head": "head",
    }
    assert short_names(["block.a.w", "block.b.w", "block.b.v"]) == {
        "block.a.w": "a.w",
        "block.b.w": "b.w",
        "block.b.v": "v",
    }


def hostile(name: str, path: str = "x.nl", line: str = "x") -> Program:
    """A program whose every name is ``name``, from a file with such a path and line."""
    body, init = Builder([BATCH]), Builder([BATCH])
    type = Type((2,), (BATCH,))
    span = SourceFile(path, line).span(0, 1)
    x = body.leaf("input", type, name, span, input=name)
    w = body.leaf("param", Type((2,)), name, span, param=name)
    s = body.leaf("state", type, name, span, state=name)
    y = body.emit("add", body.emit("mul", s, w, name=name, span=span), x, name=name, span=span)
    zero = init.const(0.0)
    return Program(
        name,
        (Axis(BATCH, None),),
        (InputDecl(name, type),),
        (ParamDecl(name, Type((2,)), Initializer("constant", (1.0,))),),
        (StateDecl(name, type, zero),),
        tuple(body.instrs),
        ((name, y),),
        ((name, y),),
        init=tuple(init.instrs),
    )


HOSTILE = [
    '"]; import os; os.system("touch /tmp/nldsl-was-here"); x["',
    "'''\"\"\"\nraise SystemExit\n",
    "a\\",
    "\x00",
    "# coding: rot13",
    "x\r\nraise SystemExit",
    "{x!r}",
    "torch",
    "\ud800",
    "é\u2028raise SystemExit",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_never_become_code(name: str) -> None:
    program = hostile(name)
    module = load(emit(schedule(program)))
    state = module.init_state({name: torch.ones(2)}, 1, torch.float32, "cpu")
    outputs, _, _, state = module.forward({name: torch.ones(2)}, {name: torch.ones(1, 3, 2)}, state)
    assert outputs[name][0, -1].tolist() == [3.0, 3.0]
    assert state[name].tolist() == [[3.0, 3.0]]


@pytest.mark.parametrize("text", HOSTILE)
def test_places_never_become_code(text: str) -> None:
    program = hostile("x", path=text, line=text)
    tree = ast.parse(emit(schedule(program)))
    assert {type(n).__name__ for n in tree.body} <= {"Expr", "Import", "ImportFrom", "FunctionDef"}
    assert "\n" not in comment(text)
    assert "\r" not in comment(text)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_function_in_parts_computes_the_same(name: str) -> None:
    planned = schedule(load_program(name, text=PROGRAMS[name]))
    text = emit(planned, longest=5)
    longest = max(
        text[m.start() :].partition("\n\n")[0].count("\n") for m in re.finditer(r"def scan_forward_part", text)
    )
    assert longest < 60
    program = planned.program

    def module(source: str) -> Pair:
        emitted = load(source, "x", planned.loss_inputs, needs_next(planned))
        return pair(program, module=Module(program, emitted, initialize(program, 1)))

    whole, in_parts = module(emit(planned)), module(text)
    with torch.no_grad():
        for a, b in zip(results(whole), results(in_parts), strict=True):
            assert torch.equal(a, b)


def results(it: Pair) -> list[torch.Tensor]:
    inputs = it.tensors()
    outputs, losses, _, state = it.module._run(inputs, it.module._begin(inputs, None))
    _, stepped = it.module.step(**{n: x.select(it.time, 0) for n, x in inputs.items()}, state=state)
    return [*outputs.values(), *losses.values(), *state.states.values(), *stepped.states.values()]


def test_deep_bodies_do_not_nest() -> None:
    body = Builder([BATCH])
    type = Type((2,), (BATCH,))
    x = body.leaf("input", type, "x", input="x")
    y = x
    for _ in range(5000):
        y = body.emit("tanh", body.emit("add", y, x))
    program = Program(
        "deep", (Axis(BATCH, None),), (InputDecl("x", type),), body=tuple(body.instrs), outputs=(("y", y),)
    )
    module = load(emit(schedule(program)))
    outputs, *_ = module.forward({}, {"x": torch.zeros(1, 2, 2)}, {"@tick": 0})
    assert outputs["y"].shape == (1, 2, 2)


def test_equal_programs_share_a_module() -> None:
    program = load_program("delta", text=PROGRAMS["delta"])
    first, second = (load(emit(schedule(p))) for p in (program, replace(program)))
    assert first.module is second.module


@pytest.mark.parametrize(
    "line",
    [
        "x = torch.cat([" + ", ".join(f"part_{n}.unsqueeze(-2)" for n in range(12)) + "], -2)",
        "return " + ", ".join(f"state_{n}" for n in range(20)) + ", torch.stack(y_all, 1)",
        ", ".join(f"state_{n}" for n in range(12)) + " = f(" + ", ".join(f"part_{n}" for n in range(12)) + ")",
        'y = torch.einsum("' + "ab" * 60 + '->ab", x, y)',
        "x = (a + b * c - d)" + " + abcdefgh" * 15,
        'prev_value = state["' + "prev_" * 18 + 'value"]  # [batch, m, 4]',
    ],
)
def test_long_lines_mean_the_same_in_several(line: str) -> None:
    def tree(lines: list[str]) -> str:
        return ast.dump(ast.parse("def f():\n" + "\n".join(f"    {part}" for part in lines)))

    found = reflow(line)
    assert tree(found) == tree([line])
    if "(a + b" not in line and "einsum" not in line:
        assert max(map(len, found)) <= 120
