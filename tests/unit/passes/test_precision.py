"""Which values are gates: those that scale a state, with the pointwise work that makes them."""

from __future__ import annotations

from nldsl.api import load_program
from nldsl.passes.precision import wide_values


def wide(text: str, **dims: int) -> set[str]:
    """The named values that are."""
    program = load_program("m.nl", "M", text=text, **dims)
    return {program.body[v].name for v in wide_values(program)} - {""}


def test_a_decay_and_the_rate_that_makes_it_but_no_keys() -> None:
    text = """
    memory M(d: dim) {
      state S: [d, d] = 0
      param bias = -4.6
      step(q: [d], k: [d], v: [d], dt: []) -> [d] {
        key = silu(k)
        rate = softplus(dt + bias)
        keep = exp(-rate)
        S <- keep * S + rate * outer(v, key)
        return S @ q
      }
    }
    """
    assert wide(text, d=4) == {"rate", "keep"}


def test_the_product_that_a_gate_is_made_of_is_the_last() -> None:
    text = """
    memory M(d: dim) {
      state S: [d, d] = 0
      param w: [d, d] = normal(0.3)
      step(x: [d]) -> [d] {
        seen = silu(x)
        logits = w @ seen
        keep = sigmoid(logits)
        gate = sigmoid(x)
        S <- S * keep + outer(x, x)
        read = S @ x
        return gate * read
      }
    }
    """
    assert wide(text, d=4) == {"logits", "keep"}  # neither what the product takes nor the gate of the output


def test_a_step_of_the_delta_rule_is_a_gate_and_its_key_none() -> None:
    text = """
    memory M(d: dim) {
      state S: [d, d] = 0
      step(k: [d], v: [d], b: []) -> [d] {
        key = silu(k)
        rate = 1 / (1 + dot(key, key) * exp(b))
        S <- S - rate * outer(S @ key - v, key)
        return S @ key
      }
    }
    """
    assert wide(text, d=4) == {"key", "rate"}  # the key for the norm that the rate is made of


def test_states_that_feed_no_state_have_no_gates() -> None:
    text = """
    memory M(d: dim) {
      state last: [d] = 0
      step(x: [d]) -> [d] {
        mixed = sigmoid(x)
        y = mixed * last + (1 - mixed) * x
        last <- x
        return y
      }
    }
    """
    assert wide(text, d=4) == set()


def test_a_gate_for_each_channel_by_any_way_of_writing_it() -> None:
    for update in ("S * keep + new", "S @ diag(keep) + new", "diag(keep) @ S + new", "S / (1 / keep) + new"):
        text = f"""
        memory M(d: dim) {{
          state S: [d, d] = 0
          step(x: [d], g: [d]) -> [d] {{
            keep = sigmoid(g)
            new = outer(x, x)
            S <- {update}
            return S @ x
          }}
        }}
        """
        assert "keep" in wide(text, d=4), update
        assert "new" not in wide(text, d=4), update
