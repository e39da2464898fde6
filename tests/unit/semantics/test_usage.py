"""Every built-in function says how it is written."""

from __future__ import annotations

from nldsl.api import check_text
from nldsl.semantics.builtins import make_builtins
from nldsl.semantics.usage import usage


def test_every_function_has_forms() -> None:
    assert {name for name in make_builtins() if not usage(name)} == set()


def test_the_forms_are_calls_that_the_language_has() -> None:
    params = "x: [3], a: [3], b: [3], v: [3], k: [3], A: [3, 3], c: [], lo: [], hi: []"
    for name in "clamp where dot outer softmax einsum sum max exp cumsum stack".split():
        for form in usage(name):
            text = f"fn f({params}) = {form.replace('axis = i', 'axis = 0')}\n"
            assert not check_text(text, "f.nl"), form
