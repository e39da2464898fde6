"""Recurrences with full linear maps of small states: no decay with low rank is the same, a scan of matrices is."""

from __future__ import annotations

from collections.abc import Callable

from nldsl.ir.program import Program
from nldsl.ir.types import Clock
from tests.numeric.chunk_run import Maker

K, V = 4, 3


def left(reset: Clock | None = None) -> Program:
    """S <- A S + v k', with a matrix of each tick."""
    m = Maker(heads=2)
    held = m.state("S", V, K, reset=reset)
    m.outputs["before"] = m.ein("ij,j->i", held, m.input("p", K))
    write = m.ein("i,j->ij", m.input("v", V), m.input("k", K))
    m.updates["S"] = new = m.add(m.ein("ij,jk->ik", m.input("A", V, V), held), write)
    m.outputs["y"] = m.ein("ij,j->i", new, m.input("q", K))
    return m.program()


def right_with_delta() -> Program:
    """S <- (S - (S k - v) k') B: a rank-1 step and a learned map of the keys."""
    m = Maker()
    held, k = m.state("S", V, K), m.input("k", K)
    error = m.sub(m.ein("ij,j->i", held, k), m.input("v", V))
    stepped = m.sub(held, m.mul(0.5, m.ein("i,j->ij", error, k)))
    m.updates["S"] = new = m.ein("ij,jk->ik", stepped, m.param("B", K, K))
    m.outputs["y"] = m.ein("ij,j->i", new, m.input("q", K))
    return m.program()


def two_sided() -> Program:
    """S <- A S B + v k'."""
    m = Maker()
    held = m.state("S", V, K)
    inner = m.ein("ij,jk->ik", m.input("A", V, V), held)
    write = m.ein("i,j->ij", m.input("v", V), m.input("k", K))
    m.updates["S"] = new = m.add(m.ein("ij,jk->ik", inner, m.input("B", K, K)), write)
    m.outputs["y"] = m.ein("ij,j->i", new, m.input("q", K))
    return m.program()


def transposed() -> Program:
    """S <- a S' + v k': what was a key becomes a value."""
    m = Maker()
    held = m.state("S", K, K)
    turned = m.ein("ij->ji", held)
    write = m.ein("i,j->ij", m.input("v", K), m.input("k", K))
    m.updates["S"] = new = m.add(m.mul(m.sigmoid(m.input("a")), turned), write)
    m.outputs["y"] = m.ein("ij,j->i", new, m.input("q", K))
    return m.program()


def coupled() -> Program:
    """Two vectors of different sizes that feed one another through matrices, the second after the first."""
    m = Maker(heads=2)
    h, c = m.state("h", V), m.state("c", K)
    first = m.add(m.ein("ij,j->i", m.param("A", V, V), h), m.ein("ij,j->i", m.input("B", V, K), c))
    m.updates["h"] = new = m.add(first, m.input("x", V))
    m.updates["c"] = m.add(m.mul(m.sigmoid(m.input("g", K)), c), m.ein("ij,j->i", m.param("C", K, V), new))
    m.outputs["h"] = m.tanh(new)
    m.outputs["c"] = c
    return m.program()


def both_sides() -> Program:
    """Rank-1 steps by keys and by values: reads of both sides feed writes."""
    m = Maker()
    held, k, v = m.state("S", V, K), m.input("k", K), m.input("v", V)
    by_key = m.ein("i,j->ij", m.sub(m.ein("ij,j->i", held, k), v), k)
    by_value = m.ein("i,j->ij", v, m.ein("ij,i->j", held, v))
    m.updates["S"] = new = m.sub(m.sub(m.mul(0.9, held), m.mul(0.3, by_key)), m.mul(0.2, by_value))
    m.outputs["y"] = m.ein("ij,j->i", new, m.input("q", K))
    return m.program()


def after_a_memory() -> Program:
    """A large delta memory; what it answers, squashed, and what it holds drive a small coupled state."""
    m = Maker()
    big, k = m.state("S", 24, K), m.input("k", K)
    error = m.sub(m.ein("ij,j->i", big, k), m.input("v", 24))
    m.updates["S"] = new = m.sub(big, m.mul(0.4, m.ein("i,j->ij", error, k)))
    h = m.state("h", K)
    answer = m.ein("ij,i->j", new, m.tanh(m.ein("ij,j->i", new, m.input("q", K))))
    m.updates["h"] = m.add(m.ein("ij,j->i", m.input("A", K, K), h), answer)
    m.outputs["y"] = m.updates["h"]
    return m.program()


def rotation() -> Program:
    """A state of two rows that turns by an angle of each tick, written by entries."""
    m = Maker()
    held, angle = m.state("z", 2, V), m.input("a")
    cos, sin = m.sigmoid(angle), m.tanh(angle)
    turn = m.add(
        m.mul(m.body.emit("one_hot", m.body.emit("iota", n=2), n=2), cos),
        m.mul(m.param("J", 2, 2), sin),
    )
    m.updates["z"] = m.add(m.ein("ij,jk->ik", turn, held), m.input("x", 2, V))
    m.outputs["z"] = m.updates["z"]
    return m.program()


MATRICES: dict[str, Callable[[], Program]] = {
    "left": left,
    "left with resets": lambda: left(Clock(5)),
    "right with a delta step": right_with_delta,
    "two-sided": two_sided,
    "transposed": transposed,
    "coupled vectors": coupled,
    "reads of both sides": both_sides,
    "after a memory": after_a_memory,
    "rotation": rotation,
}
