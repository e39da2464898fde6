"""Dividing the work of a stage among kernels, so that the tiles of each fit into registers.

A kernel that computes all cotangents of wide keys and values has more tiles than registers. So each result gets a
kernel first; where even that is too much a value in the middle is left in memory by a kernel of its own, the one that
makes both halves smallest; last, kernels that fit together become one again, since what they share is then read once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from nldsl.backends.triton.columns import Relations
from nldsl.backends.triton.lower import Place
from nldsl.backends.triton.pressure import DEAR, INSIDE, SAME, Pressure
from nldsl.backends.triton.tiles import power_of_two
from nldsl.backends.triton.two_level import Found, two_level
from nldsl.backends.triton.walk import Walk, products, walk_of

COLUMNS = (64, 32, 16)
# Products in a round of a walk that joins kernels, and of one that is taken where nothing else is left: it may spill.
FEW, MANY = 3, 1000
# How much more than the room what is computed before the rounds of a walk may need: no loop holds it up.
BETWEEN = 4 / 3
# A stage in more parts than this, each of which reads what it shares with others again, becomes one such walk.
PARTS = 7
AGAIN = 1 / 4  # how much reading costs that other programs do too
VIEWS = SAME | frozenset("broadcast slice pad concat lane axis_sum".split())


@dataclass(frozen=True)
class Task:
    """What one kernel computes: values of the body to leave in memory, and results. ``places``: what a program has
    ``columns`` columns of, if programs divide a dim, or what it goes through in tiles of so many, if it is a walk.
    ``parts``: what a program of a walk has ``width`` columns of, of a dim of ``size``; of ``partial`` it leaves a part.
    """

    left: tuple[int, ...]
    results: tuple[int, ...] = ()
    places: frozenset[Place] = frozenset()
    columns: int = 0
    walk: Walk | None = None
    parts: frozenset[Place] = frozenset()
    width: int = 0
    size: int = 0
    partial: frozenset[int] = frozenset()

    @property
    def part_count(self) -> int:
        """The programs that divide a dim in a walk."""
        return power_of_two(self.size) // self.width if self.width else 0

    @property
    def targets(self) -> tuple[int, ...]:
        return (*self.left, *self.results)


@dataclass
class Division:
    """``columns``: the most columns that a program takes (0: as many as fit)."""

    relations: Relations
    pressure: Pressure
    columns: int
    _walks: dict[tuple[object, ...], Walk | None] = field(default_factory=dict, repr=False)
    _crowded: bool = field(default=False, repr=False)  # a kernel has more to do than fits

    def tasks(self, left: Sequence[int], results: Sequence[int], stored: Collection[int]) -> list[Task]:
        """The kernels, in order. ``left``: values that other stages want, ``stored``: what is in memory already."""
        best = self._tasks(left, results, stored)
        spills = len(best) == 1 and not self._fits(best[0], stored)
        if left or (len(best) < 2 and not spills):
            return best
        for found in two_level(self.pressure, results, stored):
            tasks = self._around(found, stored)
            if spills or moved(self.pressure, tasks, stored) < moved(self.pressure, best, stored):
                best, spills = tasks, False
        return best

    def _around(self, found: Found, stored: Collection[int]) -> list[Task]:
        """The kernels before one that goes through a dim and divides another, that one, and those after it."""
        own = Task(
            found.left,
            found.results,
            found.walk.places,
            found.walk.columns,
            found.walk,
            found.parts,
            found.width,
            found.size,
            found.partial,
        )
        known = set(stored)
        tasks = self._again().tasks(found.before, (), known) if found.before else []
        known |= {v for task in tasks for v in task.left} | {*found.left}
        after = self._again().tasks((), found.rest, known) if found.rest else []
        return [*tasks, own, *after]

    def _again(self) -> Division:
        return Division(self.relations, self.pressure, self.columns)

    def _tasks(self, left: Sequence[int], results: Sequence[int], stored: Collection[int]) -> list[Task]:
        known = set(stored)
        whole = self._task(tuple(left), tuple(results), known)
        if self._fits(whole, known):
            return [whole]
        walk = self._walk(whole, known, FEW)
        if walk is not None:
            return [walk]
        tasks: list[Task] = []
        for value in self._shared([*left, *results], known):
            self._add((value,), (), known, tasks)
        for value in left:
            self._add((value,), (), known, tasks)
        for value in results:
            self._add((), (value,), known, tasks)
        joined = self._joined(tasks, set(stored))
        if (self._crowded or len(joined) > PARTS) and not self._any_dear(whole, set(stored)):
            walk = self._walk(whole, set(stored), MANY)
            if walk is not None:
                return [walk]
        return joined

    def _any_dear(self, task: Task, known: Collection[int]) -> bool:
        cone = self.pressure.cone(task.targets, known)
        return any(self.pressure.dear(v) for v in cone if v not in known)

    # -- one kernel

    def _task(self, left: tuple[int, ...], results: tuple[int, ...], stored: Collection[int]) -> Task:
        """A kernel for these targets: with all columns that it may have if that fits, else with fewer, if they can be
        divided."""
        targets = (*left, *results)
        best = Task(left, results)
        if self._fits(best, stored) and not self.columns:
            return best
        inner = set(stored) - set(left)
        for columns in [self.columns] * bool(self.columns) + [c for c in COLUMNS if c < (self.columns or c + 1)]:
            places = self.relations.result_columns(targets, inner, columns)
            if places:
                best = Task(left, results, places, columns)
                if self._fits(best, stored):
                    return best
        return self._walk(best, stored, FEW) or best

    def _walk(self, task: Task, stored: Collection[int], most: int) -> Task | None:
        """The kernel that goes through a dim in tiles, if that fits, with so many products in a round."""
        inner = frozenset(stored) - set(task.left)
        many = most == MANY
        key = (task.left, task.results, inner, many)
        if key not in self._walks:
            self._walks[key] = walk_of(self.relations.job, self.pressure, task.targets, inner, task.left, many=many)
        found = self._walks[key]
        if found is None or found.peak > self.pressure.room or self._beside(task, found, inner):
            return None
        if most == FEW and found.between > BETWEEN * self.pressure.room:
            return None
        if products(self.pressure, found, inner) > max(most, self._any_dear(task, inner) * DEAR):
            return None
        return Task(task.left, task.results, found.places, found.columns, found)

    def _beside(self, task: Task, walk: Walk, stored: Collection[int]) -> bool:
        """Whether a function needs all columns at once, beside the tiles."""
        body, inside = self.relations.job.body, {v for v, _ in walk.places}
        work = [v for v in self.pressure.cone(task.targets, stored) if v not in stored]
        return any(INSIDE.get(body[v].op, (0, 0))[1] and inside.isdisjoint(body[v].args) for v in work)

    def _load(self, task: Task, stored: Collection[int]) -> float:
        return self.pressure.load(task.targets, stored, task.places, task.columns)

    def _fits(self, task: Task, stored: Collection[int]) -> bool:
        return task.walk is not None or self._load(task, stored) <= 1

    # -- more kernels

    def _shared(self, targets: Sequence[int], stored: Collection[int]) -> list[int]:
        """Values that are dear and that several targets need, in order; instead of one that is a stack of several the
        parts that are needed."""
        body = self.relations.job.body
        users: dict[int, set[int]] = {}
        parts: dict[int, set[int]] = {}
        for target in targets:
            for value in self.pressure.cone([target], stored):
                if self.pressure.dear(value) and value not in stored and value not in targets:
                    users.setdefault(value, set()).add(target)
                for arg in body[value].args if value not in stored else ():
                    parts.setdefault(arg, set()).add(value)
        found: set[int] = set()
        for value, several in users.items():
            stack = body[value].op == "decay_gram_grad"
            found |= parts[value] if stack and len(parts[value]) > 1 else {value} if len(several) > 1 else set()
        return sorted(found - set(targets))

    def _add(self, left: tuple[int, ...], results: tuple[int, ...], known: set[int], tasks: list[Task]) -> None:
        """Kernels for one target: while it is too much, something that it needs is left in memory first."""
        if left and left[0] in known:
            return
        task = self._task(left, results, known)
        while not self._fits(task, known):
            cut = self._cut(task, known)
            if cut is None:
                break
            self._add((cut,), (), known, tasks)
            task = self._task(left, results, known)
        if not self._fits(task, known):
            if not self._any_dear(task, known):
                task = self._walk(Task(left, results), known, MANY) or task
            self._crowded = True
        tasks.append(task)
        known.update(left)

    def _cut(self, task: Task, known: set[int]) -> int | None:
        """The value to leave in memory: the one for which the larger half is smallest."""
        (target,) = task.targets
        before = self._load(task, known)
        best: tuple[tuple[float, int], int] | None = None
        for value in self.pressure.cone([target], known):
            if value == target or value in known or not self._may_be_cut(value, known):
                continue
            first = self._load(self._task((value,), (), known), known)
            with_it = known | {value}
            second = self._load(self._task(task.left, task.results, with_it), with_it)
            larger = max(first, second, 1.0)
            if larger < before:
                score = larger, self.pressure.entries(value, {}, 0)
                if best is None or score < best[0]:
                    best = score, value
        return None if best is None else best[1]

    def _may_be_cut(self, value: int, known: set[int]) -> bool:
        """Whether it can help to leave a value in memory: it is no view, and something has to be multiplied for it."""
        instr = self.relations.job.body[value]
        if not instr.args or instr.op in VIEWS or instr.type.kind != "real":
            return False
        return any(self.pressure.heavy(v) and v not in known for v in self.pressure.cone([value], known))

    # -- fewer kernels

    def _joined(self, tasks: list[Task], stored: set[int]) -> list[Task]:
        """The same work in fewer kernels: each joins the last one before it with which it fits, unless it needs what
        one in between leaves."""
        done: list[Task] = []
        for task in tasks:
            for at in reversed(range(len(done))):
                before = stored | {v for other in done[:at] for v in other.left}
                left, results = (*done[at].left, *task.left), (*done[at].results, *task.results)
                together = self._task(left, results, before)
                alike = together.columns == task.columns == done[at].columns
                if alike and self._fits(together, before):
                    done[at] = together
                    break
                own = set(done[at].left)
                if own & set(self.pressure.cone(task.targets, before | own)):
                    done.append(task)
                    break
            else:
                done.append(task)
        return done


def moved(pressure: Pressure, tasks: Sequence[Task], stored: Collection[int]) -> float:
    """The bytes that kernels read and write for a segment: matrices at two bytes an entry. What several programs read
    costs a quarter of that for each but the first, for it comes out of a cache."""
    body, known, total = pressure.job.body, set(stored), 0.0
    for task in tasks:
        inner = known - set(task.left)
        split = {v for v, _ in (task.parts or task.places if task.parts or task.walk is None else ())}
        places, columns = (task.parts, task.width) if task.parts else (task.places, task.columns)
        count = 0
        if split:
            value, dim = min(places)
            size = pressure.relations.sizes(value)[dim]
            count = power_of_two(int(str(size))) // columns
        for value in pressure.cone(task.targets, inner):
            read = value in inner or not body[value].args
            if read and body[value].op not in ("const", "iota"):
                repeats = 1.0 if value in split or not count else 1 + AGAIN * (count - 1)
                total += repeats * _bytes(pressure, value)
        total += sum(_bytes(pressure, v) * (task.part_count if v in task.partial else 1) for v in task.targets)
        known |= set(task.left)
    return total


def _bytes(pressure: Pressure, value: int) -> int:
    blocks = pressure.blocks(value)
    return pressure.entries(value, {}, 0) * (2 if sum(n > 1 for n in blocks) > 1 else 4)
