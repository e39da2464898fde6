"""The backward pass of a loop over segments as code: the function of a run, and the one that goes through the runs."""

from __future__ import annotations

from nldsl.backends.torch.body import Writer, count_uses, fires
from nldsl.backends.torch.chunk_drivers import Driver, add_call_lines, cut, outer_dim, reserve, uncut, write_runs
from nldsl.backends.torch.runs import Argument, RunWriter, axis_dim, leaf_of
from nldsl.backends.torch.scope import Scope
from nldsl.backends.torch.target_ast import ADD, INDENT, Code, Expr
from nldsl.ir.backward import BackwardLoop, Key, Leaf
from nldsl.ir.program import Program
from nldsl.ir.stages import SEGMENT, backward_stages
from nldsl.ir.types import Type


def write_backward(driver: Scope, run: Scope, what: Driver, derived: BackwardLoop, program: Program) -> None:
    """Write both functions."""
    writer = BackwardRun(run, what, derived, program)
    writer.write()
    _Driver(driver, run, what, writer).write()


class BackwardRun(RunWriter):
    """The function of a run of the way back. Its arguments: boundaries, those of the loop, cotangents of the states,
    cotangents of the outputs. It gives the cotangents of the states, and of each argument that has one."""

    reverse = True

    def __init__(self, run: Scope, what: Driver, derived: BackwardLoop, program: Program) -> None:
        results = [v for _, v in (*derived.outputs, *derived.sums)]
        super().__init__(run, program, derived.body, backward_stages(derived), [v for _, v in derived.carry], results)
        self.what = what
        self.derived = derived
        self.loop = derived.loop
        for argument in what.operands.arguments:
            run.names.new(argument.inside.text)
        run.params = {n: e for (op, n), e in what.operands.leaves.items() if op == "param" and isinstance(n, str)}
        self.boundaries = {key: self._boundary(key) for key in derived.boundaries}
        self.carried_keys = self._carried_keys()
        self.cotangents: dict[Key, Expr] = {}  # of single states and anchors, as they come and go
        for key, expr in self._single():
            self.cotangents[key] = Expr(run.names.new(f"d_{expr.text}"), expr.type)
        self.held = {key: self._held(key) for key in self.carried_keys}
        self.arriving = {
            value: Expr(run.names.new(f"d_{expr.text}"), expr.type, low=expr.low) for value, expr in what.outputs
        }
        self.initial: dict[str, str] = {}
        self._bind()

    # ---- names

    def _type(self, key: Key) -> Type:
        """The type of a state, anchor or pack."""
        pack = next((p for p in self.loop.packs if p.name == key[0]), None)
        if pack is None:
            return self.program.state(key[0]).type
        return self.run.layout.with_axis(self.program.state(pack.states[0]).type, pack.axis)

    def _boundary(self, key: Key) -> Expr:
        hint = key[0].rpartition(".")[2].replace("+", "_pack_") + (f"_at_{key[1]}" if key[1] else "")
        return Expr(self.run.names.new(hint), self.run.layout.with_axis(self._type(key), SEGMENT))

    def _carried_keys(self) -> list[Key]:
        return [key for key, _ in self.derived.carry]

    def _single(self) -> list[tuple[Key, Expr]]:
        inner = self.what.inner
        found: list[tuple[Key, Expr]] = [((name, 0), e) for name, e in inner.states.items()]
        found += list(inner.anchors.items())
        return [(key, e) for key, e in found if e.type.kind == "real"]

    def _held(self, key: Key) -> Expr:
        if key in self.cotangents:
            return self.cotangents[key]
        hint = f"d_{key[0].partition('+')[0].rpartition('.')[2]}_pack" + (f"_at_{key[1]}" if key[1] else "")
        return Expr(self.run.names.new(hint), self._type(key))

    def _bind(self) -> None:
        env, leaves = self.run.env, self.what.operands.leaves
        for value, instr in enumerate(self.body):
            leaf = leaf_of(instr)
            if leaf is not None and leaf in leaves:
                env[value] = leaves[leaf]
            elif instr.op == "boundary":
                env[value] = self.boundaries[instr.attr("state"), instr.attr("period")]
            elif instr.op == "cotangent_of":
                env[value] = self.arriving[instr.attr("value")]

    # ---- the function

    def write(self) -> None:
        run = self.run
        self._resets_start()
        self._packs(together=True)
        self.write_stages()
        self._initials()
        results = [e.text for e in self.cotangents.values()]
        results += [run.simple(self._total(a), f"d_{a.inside.text}").text for a in self.with_cotangent()]
        run.code.add(f"return {', '.join(results)}")
        operands = self.what.operands.arguments
        tensors = [
            *self.boundaries.values(),
            *(a.inside for a in operands),
            *self.cotangents.values(),
            *self.arriving.values(),
        ]
        run.arguments = ["t", "T", "N", *(e.text for e in tensors)]
        run.tensors = [*self.cotangents.values(), *self.boundaries.values(), *tensors]

    def leaf_values(self) -> dict[Leaf, int]:
        found: dict[Leaf, int] = {("given", value): v for value, v in self.derived.outputs}
        return found | dict(self.derived.sums)

    def _parts(self, argument: Argument) -> list[Leaf]:
        """The leaves that an argument is and that have a cotangent."""
        known = {*self.leaf_values(), *(leaf for i in self.derived.initials for leaf, _ in i.sums)}
        return [leaf for leaf, e in self.what.operands.leaves.items() if e is argument.inside and leaf in known]

    def with_cotangent(self) -> list[Argument]:
        return [a for a in self.what.operands.arguments if self._parts(a)]

    def _total(self, argument: Argument) -> Expr:
        """The cotangent of an argument: the sum over the leaves that it is."""
        found: Expr | None = None
        values = self.leaf_values()
        for leaf in self._parts(argument):
            exprs = [self._fitted(self.run.env[values[leaf]], argument)] if leaf in values else []
            exprs += [e for known, e in self.initial_sums if known == leaf]
            for expr in exprs:
                text = f"{found.at(ADD)} + {expr.at(ADD + 1)}" if found else expr.text
                found = Expr(text, argument.inside.type, ADD if found else expr.strength)
        assert found is not None
        return found

    def _fitted(self, expr: Expr, argument: Argument) -> Expr:
        """Summed over the axes that the argument does not have, stretched to those that it has."""
        run, wanted = self.run, argument.inside.type
        if expr.is_literal:
            return run.stretched(expr, wanted)
        expr = run.tensor(expr)
        own = expr.type.axes
        surplus = [a for a in own if a not in wanted.axes]
        if surplus:
            dims = ", ".join(str(own.index(a)) for a in surplus)
            text = f"{expr.at(7)}.sum({dims if len(surplus) == 1 else f'({dims})'})"
            expr = Expr(text, Type(expr.type.shape, tuple(a for a in own if a in wanted.axes)), low=expr.low)
        if not argument.stream and SEGMENT not in own:
            expr = Expr(f"N * {expr.at(5)}", expr.type, 4, low=expr.low)
        return run.stretched(expr, wanted)

    def begin(self) -> dict[int, Expr]:
        self._resets()
        return {
            value: self.held[self.body[value].attr("state"), self.body[value].attr("period")]
            for value in self.leaves("cotangent")
        }

    def advance(self) -> None:
        """Nothing yet: the clocks of the body are those of the last tick."""

    def end(self) -> None:
        code = self.run.code
        names, texts = self.carry_on([(self.held[key], value) for key, value in self.derived.carry])
        if names:
            code.add(f"{', '.join(names)} = {', '.join(texts)}")
        code.add("t -= T")
        self._anchors()

    def _anchors(self) -> None:
        code = self.run.code
        for period in dict.fromkeys(p for _, p in self.held if p):
            due = [(state, e) for (state, p), e in self.held.items() if p == period]
            indent = ""
            if period > 1:
                code.add(f"if t % {period} == 0:")
                indent = INDENT
            for state, anchor in due:
                variable = self.held[state, 0].text
                code.add(f"{indent}{variable} = {variable} + {anchor.text}")
                code.add(f"{indent}{anchor.text} = torch.zeros_like({anchor.text})")

    # ---- packs and resets

    def _packs(self, together: bool) -> None:
        for pack in self.loop.packs:
            for (name, period), whole in self.held.items():
                if name != pack.name:
                    continue
                parts = ", ".join(self.cotangents[s, period].text for s in pack.states)
                dim = axis_dim(whole.type, pack.axis)
                if together:
                    self.run.code.add(f"{whole.text} = torch.stack([{parts}], {dim})")
                else:
                    self.run.code.add(f"{parts} = {whole.text}.unbind({dim})")

    def _loop(self, before: dict[int, Expr]) -> dict[int, Expr]:
        code = self.run.code
        code.add("t += N * T")
        moved = super()._loop(before)
        self._packs(together=False)
        return moved

    def _reset_states(self) -> list[str]:
        return [n for n in self.loop.states if self.program.state(n).reset.clock and (n, 0) in self.held]

    def _resets_start(self) -> None:
        needed = {i.state for i in self.derived.initials}
        for name in self._reset_states():
            if name in needed:
                variable = self.held[name, 0].text
                self.initial[name] = self.run.names.new(f"{variable}_initial")
                self.run.code.add(f"{self.initial[name]} = torch.zeros_like({variable})")

    def _resets(self) -> None:
        """A state that was reset after the last tick has passed nothing on; its initial value has."""
        for name in self._reset_states():
            clock = self.program.state(name).reset.clock
            assert clock is not None
            exprs = [e for (state, _), e in self.held.items() if state == name]
            code = self.run.code
            code.add(f"if {fires(clock)}:")
            if name in self.initial:
                total = self.initial[name]
                code.add(f"{INDENT}{total} = {' + '.join([total, *(e.text for e in exprs)])}")
            for expr in exprs:
                code.add(f"{INDENT}{expr.text} = torch.zeros_like({expr.text})")

    def _initials(self) -> None:
        """What the initial values pass on to parameters."""
        run = self.run
        self.initial_sums: list[tuple[Leaf, Expr]] = []
        for item in self.derived.initials:
            saved, run.env = run.env, {}
            for value, instr in enumerate(item.body):
                if instr.op == "param":
                    run.env[value] = run.params[instr.attr("param")]
                elif instr.op == "cotangent":
                    run.env[value] = Expr(self.initial[item.state], self.program.state(item.state).type)
            writer = Writer(run, item.body, count_uses(item.body, range(len(item.body)), []), at_once=False)
            for value in range(len(item.body)):
                writer.value(value)
            for leaf, value in item.sums:
                wanted = self.program.param(str(leaf[1])).type
                self.initial_sums.append((leaf, run.stretched(run.env[value], wanted)))
            run.env = saved


class _Driver:
    """Writes the function that goes through the runs from the last to the first."""

    def __init__(self, driver: Scope, run: Scope, what: Driver, writer: BackwardRun) -> None:
        self.driver = driver
        self.run = run
        self.what = what
        self.writer = writer

    def write(self) -> None:
        driver, what, writer, code = self.driver, self.what, self.writer, self.driver.code
        reserve(driver, [*what.tensors, "t", "T", "starts"])  # a tensor may have the name of a cotangent
        cotangents = {key: driver.names.new(f"d_{e.text}") for key, e in self._singles()}
        arriving = [(driver.names.new(f"d_{expr.text}"), expr.type) for _, expr in what.outputs]
        driver.arguments = [*what.head, *what.tensors, "starts", *cotangents.values(), *(name for name, _ in arriving)]
        sizes = write_runs(driver, what.phase, what.operands.streams)
        code.add(f"t += sum({sizes})")
        found = writer.with_cotangent()
        whole, totals = {}, {}
        for argument in found:
            name = argument.inside.text
            if argument.stream:
                whole[name] = driver.names.new(f"d_{name}")
                code.add(f"{whole[name]} = torch.empty_like({name}, memory_format=torch.contiguous_format)")
            else:
                totals[name] = driver.names.new(f"d_{name}")
                code.add(f"{totals[name]} = torch.zeros_like({name})")
        done = driver.names.new("left")
        if whole:
            code.add(f"{done} = T")
        self._loop_head(sizes, arriving)
        inside = Code()
        inside.add("t -= ticks * segments")
        if whole:
            inside.add(f"{done} -= ticks * segments")
        results = [driver.names.new(f"d_{a.inside.text}_new") for a in found]
        real = [text for key, text in cotangents.items() if key in writer.cotangents]
        add_call_lines(inside, [*real, *results], self.run.name, self.arguments(cotangents, arriving))
        for argument, result in zip(found, results, strict=True):
            name = argument.inside.text
            if argument.stream:
                type = argument.inside.type
                place = f"{whole[name]}.narrow({outer_dim(driver, type)}, {done}, ticks * segments)"
                inside.add(f"{place}.copy_({uncut(driver, result, type)})")
            else:
                inside.add(f"{totals[name]} = {totals[name]} + {result}")
        code.extend(inside)
        texts = [text if key in writer.cotangents else "None" for key, text in cotangents.items()]
        for argument in what.operands.arguments:
            name = argument.inside.text
            texts.append(whole.get(name) or totals.get(name, "None"))
        code.add(f"return {', '.join(texts)}{',' if len(texts) == 1 else ''}")

    def _singles(self) -> list[tuple[Key, Expr]]:
        inner = self.what.inner
        return [*(((name, 0), e) for name, e in inner.states.items()), *inner.anchors.items()]

    def _loop_head(self, sizes: str, arriving: list[tuple[str, Type]]) -> None:
        driver, streams = self.driver, self.what.operands.streams
        count = len(self.writer.boundaries)
        self.pieces = [driver.names.new(f"{a.inside.text}_part") for a in streams]
        self.arriving = [driver.names.new(f"{name}_part") for name, _ in arriving]
        items = [f"{a.inside.text}.split({sizes}, {outer_dim(driver, a.inside.type)})" for a in streams]
        items += [f"{name}.split({sizes}, {outer_dim(driver, type)})" for name, type in arriving]
        self.starts = [driver.names.new(e.text) for e in self.writer.boundaries.values()]
        if count:
            items.append(f"zip(*[iter(starts)] * {count})")
        names = ["(ticks, segments)", *self.pieces, *self.arriving]
        if count:
            names.append(f"({', '.join(self.starts)}{',' if count == 1 else ''})")
        code = driver.code
        if len(names) == 1:
            code.add(f"for {names[0]} in reversed(runs):")
            return
        pieces = driver.names.new("pieces")
        code.add(f"{pieces} = zip(")
        for text in ("runs", *items):
            code.add(f"{INDENT}{text},")
        code.add(")")
        code.add(f"for {', '.join(names)} in reversed(list({pieces})):")

    def arguments(self, cotangents: dict[Key, str], arriving: list[tuple[str, Type]]) -> list[str]:
        driver, what = self.driver, self.what
        found = ["t", "ticks", "segments", *self.starts]
        found += [cut(driver, p, a.inside.type) for p, a in zip(self.pieces, what.operands.streams, strict=True)]
        found += [a.inside.text for a in what.operands.others]
        found += [text for key, text in cotangents.items() if key in self.writer.cotangents]
        found += [cut(driver, p, type) for p, (_, type) in zip(self.arriving, arriving, strict=True)]
        return found
