"""A kernel that goes through a dim in tiles (``walk.py``).

Its carried values with columns lie in memory, one tile for each segment: a round reads those of this segment and the
last thing done with a tile is to write those of the next one. Nothing is read in the segment in which it is written.
"""

from __future__ import annotations

from dataclasses import replace

from nldsl.backends.triton import memory
from nldsl.backends.triton.builder import shape
from nldsl.backends.triton.job import Key, final
from nldsl.backends.triton.kernel import KernelWriter, plain_op
from nldsl.backends.triton.rounds import Round
from nldsl.backends.triton.tiles import COLUMN, Tile, UnsupportedError, Value, power_of_two
from nldsl.ir.stages import STEP


class WalkWriter(KernelWriter):
    """Writes a kernel whose task is a walk."""

    def _write(self) -> None:
        assert self.task.walk is not None
        self.walk = self.task.walk
        self.task = replace(self.task, left=(*self.task.left, *self.walk.left))
        self.b.walking = True
        self.with_columns = {v for v, _ in self.walk.places}
        self.readable: set[int] = set()
        self.in_memory = [key for key in self.job.variables if self.stage == STEP and self._has_columns(key)]
        if any(state in self.job.resets for state, _ in self.in_memory):
            raise UnsupportedError("states in memory that are reset")
        if self.stage == STEP:
            self._write_step()
            return
        self._segment()
        self._rounds()
        self._leave([v for v in self.task.left if v not in self.with_columns])
        self._results([v for v in self.task.results if v not in self.with_columns])

    # -- rounds

    def given(self, value: int) -> Value | None:
        """Also what an earlier round has left."""
        slot = self.spaces.values.get(value)
        if slot is None or value not in self.readable:
            return super().given(value)
        return memory.fetch(self.b, self.lanes, slot.name, self.active.dims(value), slot.zero, slot.narrow)

    def _rounds(self) -> None:
        self.readable = set()
        for round_ in self.walk.rounds:
            if round_.read - self.readable:  # other threads of the program may have written it
                self.b.effect("barrier", "tl.debug_barrier()")
            self.readable |= round_.read
            self._round(round_)
        self.readable = set()

    def _round(self, round_: Round) -> None:
        outer = self.lowering
        for value in round_.before:
            outer(value)
        totals: dict[int, tuple[str, Tile]] = {}
        for value in round_.sums:
            dims = outer.dims(value)
            if all(e.size == 1 for e in dims):
                dims = ()
            name = self.b.new_name(outer.hint(value))
            self.b.effect("pointwise", f"tl.full({shape(dims)}, 0.0, REAL)", name)
            totals[value] = name, Tile(name, dims)
        at = self.b.new_name("at") if self.walk.full else COLUMN
        self.b.open()
        if self.walk.full:
            self.b.block.ops.append(plain_op(COLUMN, f"unseen({at}, T, BV)"))
        entire = self.entire
        if outer is entire:
            self.entire = self.lowering = self.active = replace(outer, known=dict(outer.known))
        else:
            self.entire = replace(entire, known=dict(entire.known))
            self.lowering = self.active = replace(outer, known=dict(outer.known))
        parts = {value: self.whole(value) for value in round_.sums}
        self._leave([v for v in round_.written if v in self.task.left])
        self._results([v for v in round_.written if v in self.task.results])
        if self.stage == STEP:
            self._pass_on(round_)
        for value, (name, _) in totals.items():
            self.b.add_up(name, parts[value].name)
        self.b.close(f"for {at} in range(0, {power_of_two(self.walk.size)}, BV):")
        self.entire, self.lowering = entire, outer
        self.active = outer
        for value, (_, tile) in totals.items():
            outer.known[value] = tile
            if self.task.parts and value not in self.divided:
                entire.known[value] = tile

    # -- carried values in memory

    def _has_columns(self, key: Key) -> bool:
        return any(e.split for e in self._variable_dims(key))

    def _carried(self, value: int, key: Key) -> Tile:
        if key not in self.in_memory:
            return super()._carried(value, key)
        return self._tile_of_memory(key)

    def _tile_of_memory(self, key: Key) -> Tile:
        dims = self._variable_dims(key)
        return memory.fetch(self.b, self.lanes, self._slot(key), dims, frozenset(range(len(dims))))

    def _slot(self, key: Key) -> str:
        if key not in self.spaces.kept:
            sizes = tuple(e.size for e in self._variable_dims(key))
            hint = self.job.variables[key].name + "_begin"
            self.spaces.kept[key] = self.spaces.new(hint, sizes, frozenset(range(len(sizes))))
        return self.spaces.kept[key].name

    def _write_step(self) -> None:
        job, b = self.job, self.b
        held = [key for key in job.variables if key not in self.in_memory]
        self._hold(held)
        resets = {s: self._initial(s, source) for s, (_, source) in job.resets.items()}
        self.low = b.define("load", "tl.load(cuts_ptr + sequence)", "low")
        self.high = b.define("load", "tl.load(cuts_ptr + sequence + 1)", "high")
        self._begin()
        b.open()
        if job.reverse:
            b.block.ops.append(plain_op("n", f"{self.low} + {self.high} - 1 - i"))
        self._begin_segment(resets)
        for key in self.plan.kept:
            if key not in self.in_memory:
                self._keep(key)
        self._rounds()
        self._leave([v for v in self.task.left if v not in self.with_columns])
        new = {key: b.clean(self.whole(value)) for key, value in job.carry if key not in self.in_memory}
        self._assign(new)
        if job.reverse:
            self._give_anchors()
        else:
            for state, (clock, _) in job.resets.items():
                self._reset(state, clock, resets[state])
        b.effect("barrier", "tl.debug_barrier()")
        b.close(f"for {'i' if job.reverse else 'n'} in range({self.low}, {self.high}):")
        for key in held:
            memory.store(b, self.lanes, final(job.variables[key]), Tile(self.variables[key], self._variable_dims(key)))
        if job.reverse:
            for state, (_, source) in job.resets.items():
                memory.store(b, self.lanes, source, Tile(resets[state], self._variable_dims((state, 0))))

    def _take_anchors(self) -> None:
        own = tuple(a for a in self.job.anchors if a not in self.in_memory)
        self._with_anchors(own, super()._take_anchors)

    def _give_anchors(self) -> None:
        own = tuple(a for a in self.job.anchors if a not in self.in_memory)
        self._with_anchors(own, super()._give_anchors)

    def _with_anchors(self, anchors: tuple[Key, ...], run: object) -> None:
        whole = self.job
        self.job = replace(whole, anchors=anchors)
        try:
            run()  # type: ignore[operator]
        finally:
            self.job = whole

    def _begin(self) -> None:
        """The carried values as the first segment reads them; also as the last one leaves them, if there is none."""
        if not self.in_memory:
            return
        b, job = self.b, self.job
        first = f"({self.high} - 1)" if job.reverse else self.low
        self.b.open()
        tiles = {
            key: memory.load(b, self.lanes, job.variables[key], self._variable_dims(key)) for key in self.in_memory
        }
        for key in self.in_memory:
            memory.store(b, self.lanes, final(job.variables[key]), tiles[key])
        if not job.reverse:
            due = {p: f"tick % {p} == 0" for _, p in job.anchors}
            tiles = self._taken(tiles, due)
        b.open()
        for key in self.in_memory:
            memory.keep(b, self.lanes, self._slot(key), tiles[key], first)
        b.close(f"if {self.low} < {self.high}:")
        b.close(f"for {COLUMN} in range(0, {power_of_two(self.walk.size)}, BV):")
        b.effect("barrier", "tl.debug_barrier()")

    def _taken(self, tiles: dict[Key, Tile], due: dict[int, str]) -> dict[Key, Tile]:
        """With each anchor whose turn it is as its state."""
        found = dict(tiles)
        for state, period in self.job.anchors:
            key = (state, period)
            if key in tiles:
                when = self.b.define("index", due[period], f"begins_{period}")
                text = f"tl.where({when}, {tiles[state, 0].name}, {tiles[key].name})"
                found[key] = replace(tiles[key], name=self.b.define("pointwise", text, tiles[key].name))
        return found

    def _pass_on(self, round_: Round) -> None:
        """Write the tiles of carried values that this round knows, for the next segment or as the result: state by
        state, each before the next one is computed, for registers have not room for all of them."""
        values = dict(self.job.carry)
        last = round_ is self.walk.rounds[-1]
        ready = []
        for key in self.in_memory:  # an anchor goes with its state, and what nothing changes with the last round
            value = values.get(key, values.get((key[0], 0)))
            if value in round_.written if value is not None else last:
                ready.append(key)
        states: dict[str, list[Key]] = {}
        for key in ready:
            states.setdefault(key[0], []).append(key)
        for keys in states.values():
            self._pass_state(keys, values)

    def _pass_state(self, keys: list[Key], values: dict[Key, int]) -> None:
        """The same for a state and its anchors."""
        job, b = self.job, self.b
        tiles = {k: self._new_tile(k, values.get(k)) for k in keys}
        if job.reverse:
            tiles = self._given(tiles)
            following, more = "n - 1", f"n > {self.low}"
        else:
            following, more = "n + 1", f"n + 1 < {self.high}"
        b.open()
        due = {p: f"(tick + {self.since} + T) % {p} == 0" for _, p in job.anchors}
        for key, tile in (tiles if job.reverse else self._taken(tiles, due)).items():
            memory.keep(b, self.lanes, self._slot(key), tile, f"({following})")
        b.close(f"if {more}:")
        b.open()
        for key, tile in tiles.items():
            memory.store(b, self.lanes, final(job.variables[key]), tile)
        b.close("else:")

    def _new_tile(self, key: Key, value: int | None) -> Tile:
        if value is None:
            return self._tile_of_memory(key)
        return self.b.clean(self.whole(value))

    def _given(self, tiles: dict[Key, Tile]) -> dict[Key, Tile]:
        """The way back: what was read through an anchor goes to the state where the anchor was taken."""
        found = dict(tiles)
        for state, period in self.job.anchors:
            key = (state, period)
            if key not in tiles:
                continue
            due = self.b.define("index", f"(tick + {self.since}) % {period} == 0", f"begins_{period}")
            held, anchor = found[state, 0], tiles[key]
            text = f"tl.where({due}, {held.name} + {anchor.name}, {held.name})"
            found[state, 0] = replace(held, name=self.b.define("pointwise", text, held.name))
            text = f"tl.where({due}, 0.0, {anchor.name})"
            found[key] = replace(anchor, name=self.b.define("pointwise", text, anchor.name))
        return found
