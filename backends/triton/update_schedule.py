"""In which launches an update that contains products or sums is computed.

    map      entry by entry, from what lies in memory
    product  a product of matrices, and what follows from it entry by entry
    finish   a sum that is too long for whoever needs it to add up its parts

Each launch also leaves its parts of the sums of what it computes. What later launches need of it goes to memory: into a
state where nothing reads the old one any more, else into a workspace. What one array and numbers give is not stored but
computed where it is needed, also on the way into a product.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from nldsl.backends.triton.tiles import UnsupportedError
from nldsl.backends.triton.update_values import WEIGHT, Index, Values
from nldsl.ir.types import Clock

MAP_TILE = 4096  # entries of a tile of a launch without a product
INLINE_PARTS = 1024  # of a sum to one number: as many parts are added up by whoever needs it
MOST_LAUNCHES = 2000
Space = tuple[int, int]


@dataclass
class Launch:
    """``stores``: values that go to workspaces; ``finals``: states (or the weight) that are written in place."""

    kind: str
    space: Space
    tile: Space
    guard: Clock | None
    product: int | None = None
    finishes: list[int] = field(default_factory=list)
    stores: list[int] = field(default_factory=list)
    finals: list[str] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    mirrored: bool = False  # the result is symmetric: tiles above the diagonal are copies

    @property
    def tiles(self) -> Space:
        return -(-self.space[0] // self.tile[0]), -(-self.space[1] // self.tile[1])


@dataclass
class Schedule:
    """The launches, and where values are: ``spaces`` in workspaces, ``states`` in the place of a state (from the launch
    on that stores them), ``parts`` of sums: the launch that leaves them."""

    launches: list[Launch] = field(default_factory=list)
    spaces: set[int] = field(default_factory=set)
    states: dict[int, str] = field(default_factory=dict)
    parts: dict[int, Launch] = field(default_factory=dict)


class Scheduler:
    """``product_tile``: rows and columns of a tile of a product."""

    def __init__(self, values: Values, product_tile: int) -> None:
        self.v = values
        self.product_tile = product_tile
        self.found = Schedule()
        self.done: set[str] = set()
        self.heavy = set(values.products) | set(values.sums)

    def run(self) -> Schedule:
        """Raises UnsupportedError where an operand is no entry of what there is."""
        while self._waiting():
            if len(self.found.launches) > MOST_LAUNCHES:
                raise UnsupportedError(f"more than {MOST_LAUNCHES} launches")
            if not self._maps() and not self._product():
                raise UnsupportedError("values that wait for one another")
        self._finals()
        return self.found

    # ------------------------------------------------------------ what is known

    def _in_memory(self, value: int) -> bool:
        return value in self.found.spaces or value in self.found.states or self._summed(value)

    def _summed(self, value: int) -> bool:
        """Whether the parts of a sum are there, and few."""
        launch = self.found.parts.get(value)
        return launch is not None and self._inline(value, launch)

    def _inline(self, value: int, launch: Launch) -> bool:
        return not self.v.shape(value) and launch.tiles[0] * launch.tiles[1] <= INLINE_PARTS

    def _known(self, also: Iterable[int] = ()) -> set[int]:
        """Values that can be computed entry by entry from what is in memory (and from ``also``)."""
        known: set[int] = set(also)
        for value in sorted(self.v.live):
            if self._in_memory(value) or (value not in self.heavy and known.issuperset(self.v.body[value].args)):
                known.add(value)
        return known

    def _waiting(self) -> set[int]:
        """Products and sums that something still needs."""
        return {v for v in self._needed(self._targets(), ()) if v in self.heavy}

    def _targets(self) -> list[int]:
        return [value for name, value in self.v.finals.items() if name not in self.done]

    def _cheap(self, value: int, chosen: Iterable[int] = ()) -> bool:
        """Whether an entry is computed from numbers and one matrix at most, in memory or ``chosen`` to be there."""
        found: set[object] = set()
        stack = [value]
        while stack:
            now = stack.pop()
            instr = self.v.body[now]
            if self._in_memory(now) or now in chosen or instr.op in ("input", "state"):
                if len(self.v.shape(now)) == 2:
                    found.add(instr if instr.op in ("input", "state") else now)
            elif now in self.heavy:
                return False
            else:
                stack.extend(instr.args)
        return len(found) <= 1

    # ------------------------------------------------------------ launches

    def _maps(self) -> bool:
        """Launches for the sums that can begin, and for operands of products that are not cheap."""
        known, waiting = self._known(), self._waiting()
        ready = [v for v in sorted(waiting) if known.issuperset(self.v.body[v].args) and v not in self.found.parts]
        groups: dict[tuple[Space, Clock | None], tuple[list[int], list[int]]] = {}
        for value in ready:
            guard = self.v.body[value].guard
            if value in self.v.sums:
                groups.setdefault((self.v.sums[value].space, guard), ([], []))[1].append(value)
            else:
                for arg in self.v.body[value].args:
                    if not self._cheap(arg):
                        group = groups.setdefault((self.v.space(arg), self.v.body[arg].guard), ([], []))
                        group[0].append(arg)
        for (space, guard), (operands, sums) in groups.items():
            launch = Launch("map", space, map_tile(space), guard)
            launch.parts = sums
            inside = self._needed([*operands, *(a for v in sums for a in self.v.body[v].args)], ()) & known
            inside = {v for v in inside if self._fits(v, launch, set())}
            self._keep(launch, inside, set(operands))
            self._add(launch)
        return bool(groups)

    def _product(self) -> bool:
        """A launch for the first product whose operands are there."""
        known, waiting = self._known(), self._waiting()
        ready = [v for v in sorted(waiting) if v in self.v.products and known.issuperset(self.v.body[v].args)]
        if not ready:
            return False
        value = ready[0]
        space = self.v.space(value)
        tile = (self._edge(space[0]), self._edge(space[1]))
        launch = Launch("product", space, tile, self.v.body[value].guard, product=value)
        self._follow(launch, {value}, known)
        stored = [*launch.stores, *(self.v.finals[name] for name in launch.finals)]
        symmetric = all(self.v.symmetric(v) for v in stored) and WEIGHT not in launch.finals
        launch.mirrored = symmetric and not launch.parts and tile[0] == tile[1] and launch.tiles[0] > 1
        self._add(launch)
        return True

    def _edge(self, size: int) -> int:
        return max(16, min(self.product_tile, 1 << (size - 1).bit_length()))

    def _add(self, launch: Launch) -> None:
        self.found.launches.append(launch)
        self.found.parts.update((value, launch) for value in launch.parts)
        self._finish([v for v in launch.parts if not self._inline(v, launch)])

    def _finish(self, sums: list[int]) -> None:
        """Launches that add up parts, one for sums of equal shape."""
        groups: dict[tuple[Space, Clock | None], list[int]] = {}
        for value in sums:
            groups.setdefault((self.v.space(value), self.v.body[value].guard), []).append(value)
        for (space, guard), values in groups.items():
            launch = Launch("finish", space, map_tile(space), guard, finishes=values)
            self._follow(launch, set(values), self._known())
            self._add(launch)

    def _follow(self, launch: Launch, base: set[int], before: set[int]) -> None:
        """What follows from the values that a launch computes, entry by entry, is computed there too."""
        after = self._known(base)
        new = {v for v in after - before if self._fits(v, launch, base)}
        launch.parts = [
            v
            for v in sorted(self._waiting())
            if v in self.v.sums
            and v not in self.found.parts
            and self.v.sums[v].space == launch.space
            and self.v.body[v].guard == launch.guard
            and set(self.v.body[v].args) & (new | base)
            and all(a in after for a in self.v.body[v].args)
            and all(self._reaches(a, index, base) for a, index in self.v.sums[v].factors)
        ]
        self._keep(launch, new | base, set())

    def _fits(self, value: int, launch: Launch, base: set[int]) -> bool:
        """Whether each entry of a value is that of one place in the tiles of a launch."""
        if self.v.space(value) != launch.space or self.v.body[value].guard != launch.guard:
            return False
        return self._reaches(value, self.v.natural(value), base)

    def _reaches(self, value: int, index: Index, base: set[int]) -> bool:
        """Whether values of ``base`` are needed only at the place that a tile has."""
        if value in base:
            return index == self.v.natural(value)
        if self._in_memory(value) or self.v.body[value].op in ("input", "state", "const", "iota", "clock"):
            return True
        if value in self.heavy:
            return False
        return all(self._reaches(a, at, base) for a, at in self.v.operands(value, index))

    # ------------------------------------------------------------ what goes to memory

    def _keep(self, launch: Launch, inside: set[int], wanted: set[int]) -> None:
        """Choose what a launch stores, of the values ``inside`` it: what is ``wanted``, and what later ones need and do
        not compute again cheaply."""
        within = inside | set(launch.parts)
        chosen: dict[int, str] = {}  # with the state whose place it takes, if it does
        for value in sorted((inside | wanted) - self.v.numbers):
            own = [n for n, v in self.v.finals.items() if v == value and n not in self.done and value in inside]
            placed = [n for n in own if self._may_store(n, launch, inside, set(chosen))]
            states = [n for n in placed if n != WEIGHT][:1]
            launch.finals += [n for n in placed if n == WEIGHT] + states
            self.done.update([n for n in placed if n == WEIGHT] + states)
            later = any(user not in within for user in self.v.users[value]) or any(n not in self.done for n in own)
            if states:
                chosen[value] = states[0]
            elif value in wanted or (later and not self._cheap(value, chosen)):
                chosen[value] = ""
                launch.stores.append(value)
        self.found.spaces.update(launch.stores)
        self.found.states.update({value: place for value, place in chosen.items() if place})

    def _may_store(self, name: str, launch: Launch, inside: set[int], chosen: set[int]) -> bool:
        """Whether nothing reads the old value of a state after this launch, or in it at another place."""
        if launch.guard is not None:
            return False
        stored = {self.v.finals[name], *chosen} if name != WEIGHT else chosen
        others = [v for n, v in self.v.finals.items() if n not in self.done and n != name]
        rest = self._waiting() - set(launch.parts) - {launch.product}
        known = {*stored, *launch.parts, *launch.finishes}
        known |= {launch.product} if launch.product is not None else set()
        if any(self._reads(v, name) for v in self._needed([*others, *rest], known)):
            return False
        if launch.product is not None:
            operands = self._needed(self.v.body[launch.product].args, ())
            if any(self._reads(v, name) for v in operands):
                return False
        places = [(v, self.v.natural(v)) for v in inside]
        places += [place for v in launch.parts for place in self.v.sums[v].factors]
        return all(self._reads_in_place(v, index, name) for v, index in places)

    def _reads(self, value: int, name: str) -> bool:
        instr = self.v.body[value]
        if name == WEIGHT:
            return instr.op == "input" and bool(instr.attr("input") == "weight")
        return instr.op == "state" and bool(instr.attr("state") == name)

    def _needed(self, roots: Iterable[int], known: Iterable[int]) -> set[int]:
        """What is computed for ``roots``, from memory and from ``known``, which will be there."""
        found: set[int] = set()
        stack = list(roots)
        while stack:
            value = stack.pop()
            if value not in found and value not in known and not self._in_memory(value):
                found.add(value)
                stack.extend(self.v.body[value].args)
        return found

    def _reads_in_place(self, value: int, index: Index, name: str) -> bool:
        """Whether the entries of a state that are read for these of a value are those of the same place."""
        if self._reads(value, name):
            return index == self.v.natural(value)
        if self._in_memory(value) or value in self.heavy or not self.v.body[value].args:
            return True
        return all(self._reads_in_place(a, at, name) for a, at in self.v.operands(value, index))

    def _finals(self) -> None:
        """What is left to be written: states in place, or by way of a workspace where others read the old ones."""
        while len(self.done) < len(self.v.finals):
            spaces = dict.fromkeys(self.v.space(v) for n, v in self.v.finals.items() if n not in self.done)
            if not any(self._written(space) for space in spaces):
                raise UnsupportedError("states that wait for one another")

    def _written(self, space: Space) -> bool:
        """A launch for states of these sizes; whether there was anything to do."""
        launch = Launch("map", space, map_tile(space), None)
        same = [n for n, v in self.v.finals.items() if n not in self.done and self.v.space(v) == space]
        inside = {self.v.finals[n] for n in same}
        for name in same:
            if self._last(name, inside):
                launch.finals.append(name)
                self.done.add(name)
            elif self.v.finals[name] not in self.found.spaces:
                launch.stores.append(self.v.finals[name])
        self.found.spaces.update(launch.stores)
        if not launch.stores and not launch.finals:
            return False
        self._add(launch)
        return True

    def _last(self, name: str, inside: set[int]) -> bool:
        """Whether a state can be written now: those written beside it read it in place, and later ones not at all."""
        later = [v for n, v in self.v.finals.items() if n not in self.done and v not in inside]
        if any(self._reads(v, name) for v in self._needed(later, ())):
            return False
        return all(self._reads_in_place(v, self.v.natural(v), name) for v in inside)


def map_tile(space: Space) -> Space:
    """Long rows of entries that lie side by side."""
    columns = min(MAP_TILE, max(1, 1 << (space[1] - 1).bit_length()))
    if space[0] == 1:
        return 1, columns
    columns = min(columns, 128)
    return min(MAP_TILE // columns, 1 << (space[0] - 1).bit_length()), columns
