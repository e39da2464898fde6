"""``w[i]`` in a window: an entry of what is made of parameters, the past of everything else."""

from __future__ import annotations

from nldsl.api import check_text

BODY = """
memory M {{
  state S: [3, 3] = 0
  param w: [{size}] = 1
  learn(k: [3], v: [3]) every token {{
    S <- S - grad(sum({weight} * sum((S @ k[i] - v[i])^2) for i in window(4)), S)
  }}
  step(k: [3]) -> [3] {{
    learn({given}, k)
    return S @ k
  }}
}}
"""


def codes(size: int, weight: str, given: str) -> list[str]:
    text = BODY.format(size=size, weight=weight, given=given)
    return [d.code for d in check_text(text, "m.nl") if d.is_error]


def test_a_parameter_is_a_weight_for_each_place() -> None:
    assert codes(4, "softmax(w)[i]", "k") == []
    assert codes(5, "w[i]", "k") == ["NL0305"]


def test_an_argument_is_a_stream_whatever_is_given() -> None:
    assert codes(3, "1.0", "w") == []
    assert codes(4, "1.0", "[1, 0, 2]") == []
