"""Sets of values of a body that belong to one loop: which states feed one another, and which work goes with them.

The graph has a node per value and one per state. A value needs its operands; reading a state needs the state; a state
needs the value it is updated with. States on a cycle form a *region*: they must be computed tick by tick, together with
the values on the cycle. Three rules draw more values in (and may join regions), so that no large tensor is stored for
every tick:

* A consumer of a *large* value of a region (much larger than the streams that the region reads) joins it: ``S @ q`` is
  computed where ``S`` is, and only the small result is stored.
* A value needed on a slower clock only by one region joins it: it is computed at those ticks, not at all.
* A value cheaply made from much smaller streams (``outer(v, k)``) is never stored for a region: it is *inlined*.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from nldsl.ir import ops
from nldsl.ir.demand import demand, reachable, roots
from nldsl.ir.graphs import components
from nldsl.ir.program import Instr, Program
from nldsl.ir.schedule import init_reads
from nldsl.ir.types import BATCH, TIME, Type

LARGE = 2  # times the largest stream of the region
EXPANDED = 4  # times the streams it is made from
CHEAP = ops.POINTWISE | {"reshape", "broadcast", "concat", "slice", "pad", "spread", "collect", "one_hot", "stop_grad"}

Node = int | str  # a value, or the name of a state


@dataclass
class Regions:
    """``of`` maps the nodes in a loop to a number of their region; ``inlined`` holds the values that are not stored.

    ``live``: the values that are needed at all. ``held``: the states that no tick changes. ``varying``: the values that
    are not the same at all ticks. ``late``: those that depend on ``loss_inputs``, which only losses and probes need.
    """

    program: Program
    live: tuple[int, ...]
    held: frozenset[str]
    varying: frozenset[int]
    loss_inputs: tuple[str, ...]
    late: frozenset[int]
    of: dict[Node, int] = field(default_factory=dict)
    inlined: frozenset[int] = frozenset()

    def operands(self, value: int) -> tuple[int, ...]:
        """What must be available to compute a value: its operands, inlined ones replaced by what they are made from."""
        found: dict[int, None] = {}
        stack = list(reversed(self.program.body[value].args))
        while stack:
            arg = stack.pop()
            if arg in self.inlined:
                stack.extend(reversed(self.program.body[arg].args))
            else:
                found[arg] = None
        return tuple(found)


def find_regions(program: Program) -> Regions:
    """The regions of a program whose ``grad`` has been expanded."""
    live = tuple(sorted(reachable(program.body, roots(program))))
    held = _held(program)
    loss_inputs = _loss_inputs(program, live)
    late = _depend_on(program, live, loss_inputs)
    regions = Regions(program, live, held, _varying(program, live, held), loss_inputs, late)
    edges = _edges(regions)
    _assign(regions, edges)
    regions.inlined = _inlined(regions)
    _join_slow(regions, edges)
    for _ in range(len(live) + 1):
        if not _join_large(regions, edges):
            break
    else:
        raise AssertionError("regions keep growing")
    regions.inlined = frozenset(v for v in regions.inlined if v not in regions.of)
    return regions


def size(program: Program, type: Type) -> int:
    """Entries of one tick of one sequence."""
    total = ops.product(type.shape)
    for axis in type.axes:
        if axis not in (BATCH, TIME):
            axis_size = program.axis_size(axis)
            assert axis_size is not None
            total = total * axis_size
    assert isinstance(total, int), "a backend sees sizes as numbers"
    return total


def _held(program: Program) -> frozenset[str]:
    """States that no tick changes."""
    updates = dict(program.updates)
    held = set()
    for state in program.states:
        update = updates.get(state.name)
        instr = program.body[update] if update is not None else None
        unchanged = instr is None or (instr.op == "state" and instr.attr("state") == state.name)
        if unchanged and state.reset.kind != "clock":
            held.add(state.name)
    return frozenset(held)


def _varying(program: Program, live: tuple[int, ...], held: frozenset[str]) -> frozenset[int]:
    """Values that are not the same at all ticks."""
    found: set[int] = set()
    for value in live:
        instr = program.body[value]
        if instr.op in ("input", "clock"):
            found.add(value)
        elif instr.op in ("state", "anchor"):
            if instr.attr("state") not in held:
                found.add(value)
        elif instr.op == "when" or any(a in found for a in instr.args):
            found.add(value)
    return frozenset(found)


def _loss_inputs(program: Program, live: tuple[int, ...]) -> tuple[str, ...]:
    main = reachable(program.body, [value for _, value in (*program.updates, *program.outputs)])

    def read(values: Iterable[int]) -> set[str]:
        return {i.attr("input") for v in values if (i := program.body[v]).op == "input"}

    late = read(live) - read(main)
    return tuple(i.name for i in program.inputs if i.name in late)


def _depend_on(program: Program, live: tuple[int, ...], inputs: tuple[str, ...]) -> frozenset[int]:
    found: set[int] = set()
    for value in live:
        instr = program.body[value]
        if (instr.op == "input" and instr.attr("input") in inputs) or any(a in found for a in instr.args):
            found.add(value)
    return frozenset(found)


def _edges(regions: Regions) -> dict[Node, list[Node]]:
    """Node -> the nodes it needs."""
    program = regions.program
    edges: dict[Node, list[Node]] = {v: list(program.body[v].args) for v in regions.live}
    for value in regions.live:
        instr = program.body[value]
        if instr.op in ("state", "anchor") and instr.attr("state") not in regions.held:
            edges[value].append(instr.attr("state"))
    updates = dict(program.updates)
    anchored = {i.attr("state") for v in regions.live if (i := program.body[v]).op == "anchor"}
    for state in program.states:
        if state.name in regions.held:
            continue
        needs: list[Node] = [updates[state.name]] if state.name in updates else []
        if state.reset.kind == "clock":
            needs += _read_at_reset(regions, state.name)
        if state.reset.kind == "clock" or state.name in anchored:
            needs.append(state.name)  # kept in a loop: more happens to it than its update
        edges[state.name] = needs
    for state in program.states:
        if state.reset.kind == "clock":
            for name in _read_at_reset(regions, state.name):
                edges[name].append(state.name)  # the loop that resets a state has the newest value of what it reads
    return edges


def _read_at_reset(regions: Regions, state: str) -> list[Node]:
    return [name for name in init_reads(regions.program, state) if name not in regions.held]


def _assign(regions: Regions, edges: dict[Node, list[Node]]) -> None:
    """Number the cycles."""
    body = regions.program.body
    reads = [v for v in regions.live if body[v].op in ("state", "anchor")]
    while True:
        regions.of.clear()
        for number, component in enumerate(components(edges)):
            node = component[0]
            if len(component) > 1 or node in edges[node]:
                regions.of.update(dict.fromkeys(component, number))
        outside = [v for v in reads if body[v].attr("state") in regions.of and v not in regions.of]
        if not outside:
            return
        for value in outside:  # reading a state is part of its loop
            edges[body[value].attr("state")].append(value)


def _inlined(regions: Regions) -> frozenset[int]:
    """Values outside the regions that cheap operations make from much smaller streams."""
    program, found = regions.program, set()
    source: dict[int, int] = {}  # entries of the streams a value can be made from
    for value in regions.live:
        instr = program.body[value]
        own = size(program, instr.type)
        source[value] = own if value in regions.varying else 0
        if value in regions.of or value not in regions.varying or not _cheap(instr):
            continue
        source[value] = min(own, sum(source[a] for a in set(instr.args)))
        if own >= EXPANDED * max(1, source[value]):
            found.add(value)
        elif source[value] < own and not any(a in found for a in instr.args):
            source[value] = own
    return frozenset(found)


def _cheap(instr: Instr) -> bool:
    """Whether an operation does next to nothing for each entry of its result: outer products do."""
    if instr.op != "einsum":
        return instr.op in CHEAP
    inputs, output = ops.split_spec(instr.attr("spec"))
    return all(letter in output for letter in "".join(inputs))


def _consumers(edges: dict[Node, list[Node]]) -> dict[Node, list[Node]]:
    found: dict[Node, list[Node]] = {node: [] for node in edges}
    for node, needs in edges.items():
        for need in needs:
            found[need].append(node)
    return found


def _join_slow(regions: Regions, edges: dict[Node, list[Node]]) -> None:
    """A value needed on a slow clock by one region alone becomes part of it."""
    program = regions.program
    needed = demand(program.body, regions.live, roots(program))
    users = _consumers(edges)
    joined = False
    for value in reversed(regions.live):
        if needed.get(value) is None or value in regions.of or value not in regions.varying:
            continue
        if program.body[value].op in ops.LEAVES:
            continue
        owners = {regions.of.get(user) for user in users[value]}
        if len(owners) == 1 and None not in owners:
            edges[value].append(users[value][0])
            regions.of[value] = next(number for number in owners if number is not None)
            joined = True
    if joined:
        _assign(regions, edges)


def _join_large(regions: Regions, edges: dict[Node, list[Node]]) -> bool:
    """Draw the consumers of large values into their region; whether there were any."""
    program = regions.program
    streams: dict[int, int] = {}
    for node, number in regions.of.items():
        if isinstance(node, int):
            for operand in regions.operands(node):
                if operand in regions.varying and regions.of.get(operand) != number:
                    streams[number] = max(streams.get(number, 1), size(program, program.body[operand].type))
    drawn = False
    for user, needs in list(edges.items()):
        for need in list(needs):
            region = regions.of.get(need)
            if region is None or not isinstance(need, int) or regions.of.get(user) == region or user in regions.late:
                continue
            if size(program, program.body[need].type) > LARGE * streams.get(region, 1):
                edges[need].append(user)
                drawn = True
    if drawn:
        _assign(regions, edges)
    return drawn
