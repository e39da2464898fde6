"""Who gives values to whom: the flow between the parts of a program, read off the instructions of one tick.

Every value carries the parts it comes from. An operation that takes a state or parameter of a part and a value from
elsewhere passes that value *through* the part: the parts it came from feed it, and from there on the value comes from
this part alone. What only ends up in the part's own new state is something it learns from, the rest it reads.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from nldsl.ir.program import Instr, Program
from nldsl.semantics.level_clock import update_roots
from nldsl.semantics.level_parts import Part

__all__ = ["Flow", "FlowEdge", "trace"]

_STATIC = ("weights:", "initial:")
_ROUNDS = 4  # of following what the compiler's own states carry from tick to tick


@dataclass(frozen=True)
class FlowEdge:
    """`role`: read, learn or init. `gradient`: what flows was differentiated out of the source."""

    source: str
    target: str
    role: str
    gradient: bool = False
    detached: bool = False
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Tag:
    part: str
    gradient: bool = False
    detached: bool = False
    name: str = ""


_Tags = frozenset[_Tag]
_NONE: _Tags = frozenset()


@dataclass
class Flow:
    """`own`: parts that learn from an objective of their own; `task`: from the loss of the task. Anchors by state."""

    edges: tuple[FlowEdge, ...] = ()
    own: set[str] = field(default_factory=set)
    task: set[str] = field(default_factory=set)
    anchors: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))


def _marked(tags: _Tags) -> _Tags:
    return frozenset(replace(t, detached=True) for t in tags)


def trace(program: Program, parts: list[Part], part_of: dict[str, str], carriers: frozenset[str]) -> Flow:
    """Follow one tick; `part_of` names the part of `state:S` and `param:w`."""
    return _Tracer(program, parts, part_of, carriers).run()


def _families(bit: dict[str, int], paths: dict[str, str]) -> dict[str, int]:
    """Each part with those inside its memory and around it: what they learn together is one lesson."""
    at: dict[str, int] = defaultdict(int)
    under: dict[str, int] = defaultdict(int)
    around = {part: _prefixes(path) for part, path in paths.items()}
    for part, path in paths.items():
        at[path] |= bit[part]
        for prefix in around[part]:
            under[prefix] |= bit[part]
    families = dict(bit)
    for part, path in paths.items():
        for prefix in around[part]:
            families[part] |= at.get(prefix, 0)
        families[part] |= under.get(path, 0) if path else 0
    return families


def _prefixes(path: str) -> list[str]:
    names = path.split(".") if path else []
    return [".".join(names[:n]) for n in range(1, len(names) + 1)]


class _Tracer:
    """One pass backwards (where does a value end up?), then forwards (where does it come from?)."""

    def __init__(self, program: Program, parts: list[Part], part_of: dict[str, str], carriers: frozenset[str]) -> None:
        self.program, self.body, self.part_of = program, program.body, part_of
        self.rate_of = {part.id: part.rate for part in parts}
        paths = {part.id: part.path for part in parts}
        self.roots = update_roots(program)
        self.carriers = {s: self.roots[s] for s in sorted(carriers) if s in self.roots}
        self.carried: dict[str, _Tags] = dict.fromkeys(self.carriers, _NONE)
        self.flow = Flow()
        self.found: dict[tuple[str, str, str, bool, bool], list[str]] = {}
        self.before: dict[str, set[str]] = defaultdict(set)  # parts that a part's value comes from in this tick
        self.unions: dict[tuple[_Tags, _Tags], _Tags] = {}
        self.bit = {part: 1 << n for n, part in enumerate(sorted(paths))}
        self.family = _families(self.bit, paths)
        self.stored = self._stored()
        self._ends()

    def run(self) -> Flow:
        for _ in range(_ROUNDS):
            before = dict(self.carried)
            self._forwards()
            if self.carried == before:
                break
        self._initial_values()
        edges = [
            FlowEdge(s, t, role, gradient, detached, tuple(n for n in dict.fromkeys(names) if n))
            for (s, t, role, gradient, detached), names in self.found.items()
        ]
        self.flow.edges = tuple(edges)
        return self.flow

    # ------------------------------------------------------------ where values end up

    def _stored(self) -> dict[int, str]:
        """The values that are a part's new state and made from its old one: reading them is reading the part."""
        by_value: dict[int, list[str]] = defaultdict(list)
        for state, value in self.roots.items():
            if state not in self.carriers:
                by_value[value].append(self.part_of[f"state:{state}"])
        bit = self.bit
        made_from = [0] * len(self.body)
        stored: dict[int, str] = {}
        for n, instr in enumerate(self.body):
            made_from[n] = bit.get(self._leaf(instr), 0)
            for arg in instr.args:
                made_from[n] |= made_from[arg]
            for part in by_value.get(n, ()):
                if made_from[n] & bit[part]:
                    stored.setdefault(n, part)
        return stored

    def _ends(self) -> None:
        """For each value: the parts whose new states it serves, whether an output or a loss needs it, whether a loss
        does, and whether a derivative can come back to it from anywhere."""
        count = len(self.body)
        self.sink = sink = [0] * count
        self.forward = forward = [False] * count
        self.judged = judged = [False] * count
        self.alive = alive = [False] * count
        for _, value in (*self.program.outputs, *self.program.losses):
            forward[value] = alive[value] = True
        for _, value in self.program.losses:
            judged[value] = True
        for value in self.roots.values():
            alive[value] = True
        for state, value in self.roots.items():
            if state not in self.carriers:
                sink[value] |= self.bit[self.part_of[f"state:{state}"]]
        for _ in range(_ROUNDS):
            before = list(sink)
            for n in range(count - 1, -1, -1):
                instr = self.body[n]
                kept = n in self.stored
                goes = self.bit[self.stored[n]] if kept else sink[n]
                for arg in instr.args:
                    sink[arg] |= goes
                    forward[arg] |= forward[n] and not kept
                    judged[arg] |= judged[n] and not kept
                    alive[arg] |= alive[n] and instr.op != "stop_grad"
                if instr.op == "state" and instr.attr("state") in self.carriers:
                    sink[self.carriers[instr.attr("state")]] |= sink[n]
            if sink == before:
                break

    def _only_for(self, n: int, part: str) -> bool:
        """Whether a value ends in the new states of a memory and nowhere else."""
        if part.startswith(_STATIC):
            return False
        return bool(self.sink[n]) and not self.sink[n] & ~self.family[part] and not self.forward[n]

    # ------------------------------------------------------------ where values come from

    def _forwards(self) -> None:
        self.tags: list[_Tags] = []
        self.raw: list[str] = []  # the part of a value made from its states or parameters alone
        for n, instr in enumerate(self.body):
            tags, raw = self._value(n, instr)
            if n in self.stored:
                part = self.stored[n]
                self._feed(tags, part, "learn")
                tags, raw = _NONE, part
            self.tags.append(tags)
            self.raw.append(raw)
        for state, value in self.roots.items():
            if state in self.carriers:
                self.carried[state] = self._from(value)
            elif self.stored.get(value) != self.part_of[f"state:{state}"]:
                self._feed(self._from(value), self.part_of[f"state:{state}"], "learn")
        for name, value in self.program.outputs:
            self._feed(self._from(value), f"output:{name}", "read")
        for n, (_, value) in enumerate(self.program.losses):
            self._feed(self._from(value), f"loss:{n}", "read")

    def _from(self, value: int) -> _Tags:
        return frozenset({_Tag(self.raw[value])}) if self.raw[value] else self.tags[value]

    def _leaf(self, instr: Instr) -> str:
        if instr.op == "param":
            return self.part_of.get(f"param:{instr.attr('param')}", "")
        if instr.op in ("state", "anchor"):
            return self.part_of.get(f"state:{instr.attr('state')}", "")
        return ""

    def _value(self, n: int, instr: Instr) -> tuple[_Tags, str]:
        """The origins of a value, and its part if it was made from that part's own states or parameters alone."""
        part = self._leaf(instr)
        if part:
            if instr.op == "anchor":
                self.flow.anchors[instr.attr("state")].add(instr.attr("period"))
            return _NONE, part
        if instr.op == "state":
            return self.carried.get(instr.attr("state"), _NONE), ""
        if instr.op == "input":
            return frozenset({_Tag(f"input:{instr.attr('input')}")}), ""
        if instr.op == "grad":
            return self._derivative(n, instr), ""
        others = self._merge(self.tags[a] for a in instr.args)
        raws = list(dict.fromkeys(self.raw[a] for a in instr.args if self.raw[a]))
        if raws and not others and len(raws) == 1:
            return _NONE, raws[0]
        if raws:
            concerned = [*raws, *sorted(t.part for t in others)]
            writes = [p for p in concerned if self.sink[n] == self.bit.get(p) and not self.forward[n]]
            host = writes[0] if writes else max(raws, key=self._weight)
            incoming = self._merge([others, frozenset(_Tag(r) for r in raws if r != host)])
            if not self.alive[n]:
                incoming = _marked(incoming)
            role = "learn" if self._only_for(n, host) else "read"
            self._feed(incoming, host, role)
            # only the way of the value itself: what a memory learns from does not come out in the same tick
            if role == "read":
                for tag in incoming:
                    self.before[host] |= {tag.part} | self.before[tag.part]
            return frozenset({_Tag(host, name=instr.name)}), ""
        if instr.op == "stop_grad":
            others = _marked(others)
        if instr.name and not all(t.name for t in others):
            others = frozenset(t if t.name else replace(t, name=instr.name) for t in others)
        return others, ""

    def _weight(self, part: str) -> tuple[bool, tuple[int, int, int]]:
        """Through whom an operation on two parts passes: a memory before parameters, the faster before the slower."""
        kind, period, order = self.rate_of[part].key()
        return not part.startswith(_STATIC), (-kind, -period, -order)

    def _derivative(self, n: int, instr: Instr) -> _Tags:
        loss, x = instr.args[0], instr.args[1 + instr.attr("index")]
        parts = sorted(t.part for t in self.tags[x] if t.part in self.bit)
        host = self.raw[x] or next((p for p in parts if self._only_for(n, p)), "")
        if not host:  # with respect to a value on its way
            both = self._merge([self._from(loss), self._from(x)])
            return frozenset(_Tag(t.part, True, t.detached, instr.name) for t in both)
        if self.judged[loss]:
            self.flow.task.add(host)
        else:
            self.flow.own.add(host)
            self._feed(self._from(loss), host, "learn")
        return frozenset({_Tag(host, True, False, instr.name)})

    def _merge(self, sets: Iterable[_Tags]) -> _Tags:
        """The union, without what already went through another member: a residual stream carries its last stop only."""
        total = _NONE
        for one in sets:
            if one is total or not one:
                continue
            if not total:
                total = one
                continue
            key = (total, one)
            if key not in self.unions:
                self.unions[key] = self._undominated(total | one)
            total = self.unions[key]
        return total

    def _undominated(self, tags: _Tags) -> _Tags:
        def passed(tag: _Tag) -> bool:
            return any(
                tag.part in self.before[o.part] and o.part not in self.before[tag.part]
                for o in tags
                if (o.gradient, o.detached) == (tag.gradient, tag.detached)
            )

        return frozenset(t for t in tags if not passed(t))

    def _feed(self, tags: _Tags, target: str, role: str) -> None:
        for tag in sorted(tags, key=lambda t: (t.part, t.name)):
            if tag.part != target:
                names = self.found.setdefault((tag.part, target, role, tag.gradient, tag.detached), [])
                if tag.name not in names:
                    names.append(tag.name)

    # ------------------------------------------------------------ initial values

    def _initial_values(self) -> None:
        init = self.program.init
        sources: list[frozenset[str]] = []
        for instr in init:
            part = self._leaf(instr)
            sources.append(frozenset({part}) if part else frozenset().union(*(sources[a] for a in instr.args)))
        for state in self.program.states:
            target = self.part_of.get(f"state:{state.name}", "")
            if not target or not init:
                continue
            for source in sorted(sources[state.init]):
                if source != target:
                    self.found.setdefault((source, target, "init", False, False), []).append(
                        state.name.rpartition(".")[2]
                    )
