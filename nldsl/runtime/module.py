"""A compiled program as an ordinary ``torch.nn.Module``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from numpy.typing import ArrayLike
from torch import nn

from nldsl.ir.program import Program
from nldsl.ir.schedule import anchor_key, anchors
from nldsl.ir.types import BATCH
from nldsl.runtime.inputs import InputError, Streams, Tensors, streams_of
from nldsl.runtime.packed import CUTS, at_places, followed, one_ahead, runs_packed, states_after
from nldsl.runtime.places import register
from nldsl.runtime.quick import Places, quick_step
from nldsl.runtime.ragged import Ragged, Rows, own_sequences, ragged, separable
from nldsl.runtime.state import State

TICK = "@tick"
LIKE = "@like"
ENDS = "@ends"  # false: nobody reads the state after the call
Results = tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, Any]]


class Emitted(Protocol):
    """The functions of an emitted module."""

    @property
    def source(self) -> str: ...

    @property
    def loss_inputs(self) -> tuple[str, ...]: ...

    @property
    def needs_next(self) -> bool: ...

    def init_state(self, params: Tensors, batch: int, dtype: torch.dtype, device: torch.device) -> dict[str, Any]: ...

    def forward(self, params: Tensors, inputs: Tensors, state: dict[str, Any], *ticks: int) -> Results: ...

    def step(self, params: Tensors, inputs: Tensors, state: dict[str, Any]) -> Results: ...

    def peek(self, params: Tensors, inputs: Tensors, state: dict[str, Any]) -> dict[str, torch.Tensor]: ...


class Module(nn.Module):
    """Runs a program on sequences ``[batch, time, ...]``, or one tick at a time.

    ``module(x)`` begins a sequence; ``module(x, state=s)`` goes on where ``s`` was left and also returns the new state.
    However a sequence is cut into calls, the results are the same. Parameters have their names of the program.
    ``backend`` is the name of the one it was compiled with.
    """

    backend = "torch"

    def __init__(
        self, program: Program, emitted: Emitted, values: Mapping[str, ArrayLike], check_finite: bool = False
    ) -> None:
        super().__init__()
        self.program = program
        self.emitted = emitted
        self.check_finite = check_finite
        self.streams: Streams = streams_of(program)
        self._quick = quick_step(program, self.streams, emitted)
        self._carried: Tensors = {}
        self._never = tuple(s.name for s in program.states if s.reset.kind == "never")
        self._never_keys = self._never + tuple(anchor_key(s, p) for s, p in anchors(program) if s in self._never)
        # an empty tensor that follows `.to()`: a program may have no parameter that says dtype and device
        self._buffers[LIKE] = torch.empty(0)
        self._non_persistent_buffers_set.add(LIKE)
        self._places: Places = {}
        for declared in program.params:
            value = torch.as_tensor(values[declared.name]).to(torch.get_default_dtype())
            self._places[declared.name] = register(self, declared.name, nn.Parameter(value.clone()))

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Module:
        """What ``to``, ``cuda`` and others call; a module compiled for one kind of device stays there."""
        devices = getattr(self.emitted, "devices", None)
        if devices is not None and (kind := fn(self._like).device.type) not in devices:
            raise RuntimeError(
                f"`{self.program.name}` was compiled for the {devices[0].upper()}: it cannot be moved to {kind}; "
                'compile it with backend="torch" for that, or for GPUs with backend="triton"'
            )
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    # ------------------------------------------------------------ sequences

    def forward(
        self,
        *args: torch.Tensor,
        state: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        ticks: int = 0,
        **named: Any,
    ) -> Any:
        """The outputs for all ticks of the inputs; with ``state`` also the state after them.

        ``ticks`` is for programs without inputs. Sequences of different lengths: ``lengths=[batch]`` (padded on the
        right), ``mask=[batch, time]`` (true where a place counts), or ``cu_seqlens=[sequences + 1]`` (packed in one
        row): what does not count never writes and no clock counts it, the outputs there are zero, and ``state`` (of a
        batch of as many sequences, or a state for each) gives a tuple with the state after each sequence.
        """
        form = self._form(args, named)
        inputs = self._check(args, named, time=True)
        if form is not None:
            return self._ragged(inputs, state, form)
        if state is not None and not isinstance(state, Mapping):
            raise InputError("a state for each sequence is for `lengths`, `mask` and `cu_seqlens`; see `stack_states`")
        read = state is not None or bool(self._never_keys)
        outputs, after = self._sequence(inputs, self._begin(inputs, state), ticks, read)
        if state is None:
            self._carry(after)
            return self._result(outputs)
        return self._result(outputs), after

    def loss(
        self,
        *args: torch.Tensor,
        targets: torch.Tensor | Mapping[str, torch.Tensor] | None = None,
        state: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """The loss of ``minimize``, averaged over batch and ticks, and what to log.

        Where the program looks at the next value of an input, that input has one value more than there are ticks; or
        ``targets`` are the next values themselves (a tensor, or by the names of the inputs). With ``lengths``, ``mask``
        or ``cu_seqlens`` as in ``forward``, the average is over the ticks that count, and the next value of the last
        one of a sequence is not looked at.
        """
        if not self.program.losses:
            raise InputError(f"`{self.program.name}` has nothing to minimize")
        form = self._form(args, named)
        given = self.streams.bind(args, named)
        if form is not None:
            return self._ragged_loss(given, targets, state, form)
        self._shift(given, targets)
        inputs = self.streams.check(given, (), True, self._like.dtype)
        start = self._begin(inputs, state)
        if start.pending:
            raise InputError("a state with a pending tick cannot go on in `loss`: give the whole sequence")
        _, losses, probes, after = self._run(inputs, start)
        self._carry(after)
        means = {name: value.mean() for name, value in losses.items()}
        total = torch.stack(list(means.values())).sum()
        return total, {"losses": means, "probes": probes, "state": after}

    # ------------------------------------------------------------ sequences of different lengths

    def _form(self, args: Sequence[Any], named: dict[str, Any]) -> Ragged | None:
        """What ``lengths``, ``mask`` and ``cu_seqlens`` say, taken out of ``named``; inputs of these names stay."""
        known = {d.name for d in self.program.inputs}
        found = {n: named.pop(n) for n in ("lengths", "mask", "cu_seqlens") if n not in known and n in named}
        if all(value is None for value in found.values()):
            return None
        example = next((x for x in (*args, *named.values()) if isinstance(x, torch.Tensor)), None)
        if example is None or example.dim() < 2 or not self.streams.batched:
            raise InputError("sequences of different lengths need inputs [batch, time, ..]")
        rows, time = example.shape[:2]
        return ragged(rows, time, found.get("lengths"), found.get("mask"), found.get("cu_seqlens"))

    def _ragged(self, inputs: Tensors, state: Any, form: Ragged) -> Any:
        own_sequences(self.program, inputs)
        if runs_packed(self.program, self.emitted, form):
            return self._packed(inputs, state, form)
        alone = separable(self.program) and not (self.emitted.needs_next and self.streams.ahead)
        if state is None and alone and form.longest:
            whole: Tensors = {}
            for part in form.parts():
                gathered = {name: part.gather(x) for name, x in inputs.items()}
                outputs, _ = self._sequence(gathered, self._begin(gathered, None), 0)
                _add(whole, {n: part.scatter(y) for n, y in outputs.items()})
            return self._result(whole)
        gathered = {name: form.gather(x) for name, x in inputs.items()}
        start = self._begin(gathered, self.stack_states(state) if isinstance(state, (list, tuple)) else state)
        rows = Rows(self.program)
        outputs, after = rows.run(lambda x, s: self._sequence(x, s, 0), gathered, form.lengths, start)
        found = self._result({n: form.scatter(y) for n, y in outputs.items()})
        if state is not None:
            return found, after
        if self._never:
            ends = [s.states for s in after]
            joined = {n: torch.cat([s[n] for s in ends]) if n in rows.batched else ends[-1][n] for n in ends[0]}
            self._carry(State(0, joined))
        return found

    def _packed(self, inputs: Tensors, state: Any, form: Ragged) -> Any:
        start = self._begin_packed(state, form)
        outputs, _, _, after = self._run_packed(inputs, start, form)
        found = self._result(outputs)
        return found if state is None else (found, states_after(self.program, start, after.states, form))

    def _begin_packed(self, state: Any, form: Ragged) -> State:
        if state is None:
            return self.init_state(len(form.lengths))
        start = self.stack_states(state) if isinstance(state, (list, tuple)) else State.of(state)
        self._check_state(start, len(form.lengths))
        return start

    def _run_packed(self, inputs: Tensors, start: State, form: Ragged) -> tuple[Tensors, Tensors, Tensors, State]:
        given = {CUTS: form.cuts, **_to_emitted(start)}
        return self._checked(self.emitted.forward(self._params(), inputs, given))

    def _packed_loss(
        self, given: Tensors, targets: Any, form: Ragged, ahead: bool
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        if ahead and targets is None:
            missing = [d for d in self.streams.ahead if d.name not in given and d.source in given]
            given = {**given, **{d.name: one_ahead(given[d.source]) for d in missing}}
        self._shift(given, targets)
        inputs = self.streams.check(given, (), True, self._like.dtype)
        _, losses, probes, _ = self._run_packed(inputs, self._begin_packed(None, form), form)
        if ahead:
            counted = followed(form.cuts, self._like.device)
            losses, probes = at_places(losses, counted), at_places(probes, counted)
        count = sum(max(0, n - ahead) for n in form.lengths)
        means = {name: value.sum() / count for name, value in losses.items()}
        return torch.stack(list(means.values())).sum(), {"losses": means, "probes": probes, "state": None}

    def _ragged_loss(
        self, given: Tensors, targets: Any, state: Mapping[str, Any] | None, form: Ragged
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        if state is not None:
            raise InputError("`loss` of sequences of different lengths begins them: it takes no state")
        own_sequences(self.program, given)
        alone, whole, count = separable(self.program), dict[str, torch.Tensor](), 0
        ahead = any(d.name not in given for d in self.streams.ahead) and targets is None
        if runs_packed(self.program, self.emitted, form) and any(n > ahead for n in form.lengths):
            return self._packed_loss(given, targets, form, ahead)
        for part in form.parts() if alone else [form]:
            lengths = [max(0, n - ahead) for n in part.lengths]  # the last tick has no next one
            if not any(lengths):
                continue
            gathered = {name: part.gather(x) for name, x in given.items()}
            if isinstance(targets, Mapping):
                self._shift(gathered, {name: part.gather(x) for name, x in targets.items()})
            else:
                self._shift(gathered, None if targets is None else part.gather(targets))
            inputs = self.streams.check(gathered, (), True, self._like.dtype)
            start = self._begin(inputs, None)
            if alone:
                streams, _ = self._named(inputs, start)
            else:
                streams, _ = Rows(self.program).run(self._named, inputs, lengths, start)
            _add(whole, {n: part.scatter(x, int(ahead)) for n, x in streams.items()})
            count += sum(lengths)
        if not count:
            raise InputError("no sequence has a tick whose loss is known")
        means = {n.partition(":")[2]: v.sum() / count for n, v in whole.items() if n.startswith("losses:")}
        probes = {n.partition(":")[2]: v for n, v in whole.items() if n.startswith("probes:")}
        return torch.stack(list(means.values())).sum(), {"losses": means, "probes": probes, "state": None}

    def _named(self, inputs: Tensors, start: State) -> tuple[Tensors, State]:
        """Losses and probes as streams of one dictionary."""
        _, losses, probes, after = self._run(inputs, start)
        return {f"losses:{n}": v for n, v in losses.items()} | {f"probes:{n}": v for n, v in probes.items()}, after

    def stack_states(self, states: Sequence[Mapping[str, Any]]) -> State:
        """The states of several sequences as the state of a batch; raises InputError where they are at different ticks
        and the program has clocks."""
        return Rows(self.program).stack([State.of(s) for s in states])

    def _shift(self, given: Tensors, targets: torch.Tensor | Mapping[str, torch.Tensor] | None) -> None:
        """Add the streams that are one tick ahead."""
        if isinstance(targets, Mapping):
            given.update({d.name: targets[d.source] for d in self.streams.ahead if d.source in targets})
        elif targets is not None:
            if len(self.streams.ahead) != 1:
                raise InputError(
                    f"`{self.program.name}` looks ahead at {len(self.streams.ahead)} inputs: name the targets"
                )
            given[self.streams.ahead[0].name] = targets
        missing = [d for d in self.streams.ahead if d.name not in given]
        dim = 1 if self.streams.batched else 0
        for declared in missing:
            stream = given.get(declared.source)
            if not isinstance(stream, torch.Tensor) or stream.dim() <= dim:
                raise InputError(f"the input `{declared.source}` is missing")
            if stream.shape[dim] < 2:
                raise InputError(f"`{declared.source}` needs at least two values: the last one is only looked ahead at")
            given[declared.name] = stream.narrow(dim, 1, stream.shape[dim] - 1)
        if missing:
            for declared in self.streams.now:
                stream = given.get(declared.name)
                if isinstance(stream, torch.Tensor) and stream.shape[dim] == given[missing[0].name].shape[dim] + 1:
                    given[declared.name] = stream.narrow(dim, 0, stream.shape[dim] - 1)

    def _run(
        self, inputs: Tensors, start: State, ticks: int = 0, read: bool = True
    ) -> tuple[Tensors, Tensors, Tensors, State]:
        """All ticks of a call. Unless the state is ``read`` afterwards, it may hold anything: backends may then leave
        out what leads to it alone."""
        length = () if self.program.inputs else (ticks,)
        if length == (0,):
            raise InputError("a program without inputs needs `ticks`")
        given = _to_emitted(start) if read else {**_to_emitted(start), ENDS: False}
        results = self.emitted.forward(self._params(), inputs, given, *length)
        return self._checked(results)

    def _sequence(self, inputs: Tensors, start: State, ticks: int, read: bool = True) -> tuple[Tensors, State]:
        """Outputs and state. Without the input after the last one, a tick that needs it stays pending. ``read``: see
        ``_run``."""
        ahead = [d for d in self.streams.ahead if d.name not in inputs]
        if not (self.emitted.needs_next and ahead):
            outputs, _, _, after = self._run(inputs, start, ticks, read)
            return outputs, after
        dim = 1 if self.streams.batched else 0
        stream = {
            n: torch.cat([start.pending[n].unsqueeze(dim), x], dim) if start.pending else x for n, x in inputs.items()
        }
        length = next(iter(stream.values())).shape[dim]
        state, parts = State(start.tick, start.states), []
        if length > 1:
            done = {name: x.narrow(dim, 0, length - 1) for name, x in stream.items()}
            done |= {d.name: stream[d.source].narrow(dim, 1, length - 1) for d in ahead}
            outputs, _, _, state = self._run(done, state)
            skip = 1 if start.pending else 0  # the outputs of the pending tick are known already
            parts.append({name: y.narrow(dim, skip, length - 1 - skip) for name, y in outputs.items()})
        last = {name: x.select(dim, length - 1) for name, x in stream.items()}
        outputs = self.emitted.peek(self._params(), last, _to_emitted(state))
        parts.append({name: y.unsqueeze(dim) for name, y in outputs.items()})
        joined = {name: torch.cat([part[name] for part in parts], dim) for name in outputs}
        return joined, State(state.tick, state.states, last)

    # ------------------------------------------------------------ single ticks

    def init_state(
        self, batch_size: int = 1, dtype: torch.dtype | None = None, device: torch.device | None = None
    ) -> State:
        """The state at the beginning of a sequence."""
        params = self._params()
        example = self._like
        return _from_emitted(
            self.emitted.init_state(params, batch_size, dtype or example.dtype, device or example.device)
        )

    def step(self, *args: Any, **named: Any) -> tuple[Any, State]:
        """One tick: ``step(x, state)`` gives the outputs and the next state. Inputs have no axis of time."""
        if self._quick is not None and not torch.is_grad_enabled() and not self.check_finite:
            quick = self._quick(self._places, args, named)
            if quick is not None:
                return self._result(quick[0]), quick[1]
        *tensors, state = args if "state" not in named else (*args, named.pop("state"))
        inputs = self._check(tensors, named, time=False)
        start = self._begin(inputs, state)
        ahead = [d for d in self.streams.ahead if d.name not in inputs]
        if not (self.emitted.needs_next and ahead):
            results = self.emitted.step(self._params(), inputs, _to_emitted(start))
            outputs, _, _, after = self._checked(results)
            return self._result(outputs), after
        now = State(start.tick, start.states)
        if start.pending:
            complete = start.pending | {d.name: inputs[d.source] for d in ahead}
            now = self._checked(self.emitted.step(self._params(), complete, _to_emitted(now)))[3]
        outputs = self.emitted.peek(self._params(), inputs, _to_emitted(now))
        return self._result(outputs), State(now.tick, now.states, inputs)

    # ------------------------------------------------------------ states that are never reset

    def carried_state(self) -> Tensors:
        """The states that go on from one sequence to the next, as they were left by the last call."""
        return dict(self._carried)

    def set_carried_state(self, states: Mapping[str, torch.Tensor]) -> None:
        unknown = set(states) - set(self._never_keys)
        if unknown:
            raise InputError(f"no state `{min(unknown)}` is carried between calls")
        self._carried = dict(states)

    def _carry(self, after: State) -> None:
        self._carried = {name: after.states[name].detach() for name in self._never_keys}

    def _begin(self, inputs: Tensors, state: Mapping[str, Any] | None) -> State:
        declared = next((d for d in self.program.inputs if d.name in inputs and BATCH in d.type.axes), None)
        batch = inputs[declared.name].shape[0] if declared else 1
        if state is not None:
            found = State.of(state)
            self._check_state(found, batch if declared else None)
            return found
        start = self.init_state(batch)
        for name, tensor in self._carried.items():
            if tensor.shape != start.states[name].shape:
                raise InputError(
                    f"the state `{name}` is never reset and was left with shape {list(tensor.shape)}; "
                    f"this call needs {list(start.states[name].shape)}: keep the batch size, or pass a state"
                )
            start.states[name] = tensor.to(start.states[name])
        return start

    # ------------------------------------------------------------ arguments and results

    def _check_state(self, state: State, batch: int | None) -> None:
        """A state of another program, or of another batch, is told here and not by a tensor somewhere inside."""
        for declared in self.program.states:
            if declared.name not in state.states:
                raise InputError(
                    f"the state that was given has no `{declared.name}`: it is not of `{self.program.name}`"
                )
            rows = state.states[declared.name].shape[:1]
            if BATCH in declared.type.axes and batch is not None and rows != (batch,):
                raise InputError(
                    f"the state that was given is of a batch of {rows[0]}, the inputs are a batch of {batch}"
                )

    def __copy__(self) -> Module:
        found = self.__class__.__new__(self.__class__)
        found.__dict__ = self.__dict__.copy()
        return found

    def __getstate__(self) -> dict[str, Any]:
        name = self.program.name
        raise TypeError(
            f"a compiled module is code, which is not pickled: keep the `state_dict()` of `{name}` and compile the "
            "program again where it is needed"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Module:
        memo[id(self.program)] = self.program  # neither ever changes
        memo[id(self.streams)] = self.streams
        found = self.__class__.__new__(self.__class__)
        memo[id(self)] = found
        found.__dict__ = copy.deepcopy(self.__dict__, memo)
        return found

    def _params(self) -> Tensors:
        return {name: owner._parameters[key] for name, (owner, key) in self._places.items()}  # type: ignore[misc]

    @property
    def _like(self) -> torch.Tensor:
        """A tensor of the module's dtype on its device."""
        like = self._buffers[LIKE]
        assert like is not None
        return like

    def _check(self, args: Any, named: Mapping[str, Any], time: bool) -> Tensors:
        given = self.streams.bind(args, named)
        return self.streams.check(given, self.emitted.loss_inputs, time, self._like.dtype)

    def _checked(self, results: Results) -> tuple[Tensors, Tensors, Tensors, State]:
        outputs, losses, probes, state = results
        if self.check_finite:
            for title, tensors in (("output", outputs), ("loss", losses)):
                for name, tensor in tensors.items():
                    if not torch.isfinite(tensor).all():
                        raise FloatingPointError(f"the {title} `{name}` of `{self.program.name}` is not finite")
        return outputs, losses, probes, _from_emitted(state)

    @staticmethod
    def _result(outputs: Tensors) -> Any:
        """The only output, or all of them by name."""
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def extra_repr(self) -> str:
        return f"{self.program.name}: {len(self.program.params)} parameters, {len(self.program.states)} states"


def _add(total: Tensors, more: Tensors) -> None:
    for name, tensor in more.items():
        total[name] = total[name] + tensor if name in total else tensor


def _to_emitted(state: State) -> dict[str, Any]:
    return {TICK: state.tick, **state.states}


def _from_emitted(state: dict[str, Any]) -> State:
    return State(state[TICK], {name: tensor for name, tensor in state.items() if name != TICK})
