"""Steps as functions: equal ones are one function, and what a step takes from another one keeps them together."""

from __future__ import annotations

import re

from nldsl.backends.mlir.memory import STEP
from nldsl.backends.mlir.outlined import SHORTEST, Outlined, plain


def outlined() -> Outlined:
    tensors = {f"%buf{n}": "f32" for n in range(8)}
    return Outlined("loop", {"%c0": "arith.constant 0 : index"}, tensors, {"%fires"})


def step(source: str, target: str, first: int, lines: int = SHORTEST) -> list[str]:
    """Copies of entry 0, as many as lines are asked for."""
    found = [STEP, f'// a.nl:{first}: y = x loc("a.nl":{first}:1)']
    for n in range(first, first + lines // 2):
        found.append(f"%{n} = memref.load {source}[%c0] : memref<?xf32>")
        found.append(f'memref.store %{n}, {target}[%c0] : memref<?xf32> loc("a.nl":{first}:2)')
    return found


def called(lines: list[str]) -> list[tuple[str, str]]:
    return [(m[1], m[2]) for line in lines if (m := re.search(r"func\.call (@\w+)\(([^)]*)\)", line))]


def test_equal_steps_are_one_function() -> None:
    out = outlined()
    found = out.calls([*step("%buf0", "%buf1", 100), *step("%buf2", "%buf3", 200)])
    assert called(found) == [("@loop_0", "%buf0_p, %buf1_p"), ("@loop_0", "%buf2_p, %buf3_p")]
    assert len(out.functions) == 1


def test_one_tensor_twice_is_another_function() -> None:
    out = outlined()
    found = out.calls([*step("%buf0", "%buf1", 100), *step("%buf2", "%buf2", 200), *step("%buf4", "%buf5", 300)])
    assert [name for name, _ in called(found)] == ["@loop_0", "@loop_1", "@loop_0"]


def test_a_name_of_an_earlier_step_keeps_them_together() -> None:
    out = outlined()
    lines = [
        *step("%buf0", "%buf1", 100),
        *step("%buf2", "%buf3", 200),
        "memref.store %100, %buf4[%c0] : memref<?xf32>",
    ]
    found = out.calls(lines)
    assert len(called(found)) == 1
    (function,) = out.functions
    assert "memref.store %100, %buf4" in function


def test_what_defines_a_condition_stays_where_it_is() -> None:
    out = outlined()
    lines = [*step("%buf0", "%buf1", 100, 80), "%fires = arith.cmpi eq, %c0, %c0 : index"]
    assert out.calls(lines) == [line for line in lines if line != STEP]


def test_short_steps_share_a_function() -> None:
    out = outlined()
    found = out.calls([*step("%buf0", "%buf1", 100, 14), *step("%buf2", "%buf3", 200, 12)])
    assert len(called(found)) == 1


def test_plain_lines_have_no_comments_and_no_places() -> None:
    assert plain(["  // a.nl:1: y = x", '  } loc("a b.nl":10:2)', "  return"]) == ["  }", "  return"]
