"""Runs a module that nldsl compiled for IREE. This file needs NumPy and iree-base-runtime, and nothing else.

    m = load("model.vmfb")                      # with model.json beside it, and model.safetensors for the parameters
    y, state = m.forward(tokens)                # NumPy in, NumPy out; begins a sequence
    y, state = m.forward(more, state=state)     # goes on
    y, state = m.step(token, state=state)       # one tick: inputs without the axis of time
    loss = m.loss(tokens)                       # where the program minimizes something
    grads = m.gradients(tokens)                 # of that loss, by the names of parameters
    loss = m.train(tokens)                      # one training step; the parameters here change

Arguments are NumPy arrays, or anything with ``__dlpack__`` on the CPU (a torch tensor, say). On a CPU large inputs
that begin at a multiple of 64 bytes are not copied. Results are views of the memory of IREE. ``state`` is opaque: what
a call gave, for the next one.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["LoadError", "Loaded", "load"]

KINDS = {"float32": np.float32, "int64": np.int64}
LEND = 1 << 16  # bytes: less is copied faster than lent
ALIGNED = 64
CPU_INFO = Path("/proc/cpuinfo")
NAMES = {"F32": np.float32, "F64": np.float64, "I64": np.int64, "F16": np.float16}


class LoadError(Exception):
    """A file that is damaged, or that this machine cannot run; or arguments that do not fit."""


def load(path: str | Path, device: str = "", parameters: str | Path | None = None) -> Loaded:
    """The module in ``path``. ``device``: local-sync (the default on a CPU: one thread, in order), local-task (all
    cores; IREE 3.13 has given wrong gradients of large functions there, so compare), cuda."""
    vmfb = Path(path)
    about = vmfb.with_suffix(".json")
    try:
        described = json.loads(about.read_text(encoding="utf-8"))
        data = vmfb.read_bytes()
    except (OSError, ValueError) as error:
        raise LoadError(f"cannot read {vmfb} and {about.name} beside it: {error}") from error
    try:
        expected, entries, kind = described["module_sha256"], described["entries"], described["target"]
        stored = described["parameters_file"]
    except (KeyError, TypeError) as error:
        raise LoadError(f"{about} does not describe a module of nldsl: {error} is missing") from error
    if hashlib.sha256(data).hexdigest() != expected:
        raise LoadError(f"{vmfb} is damaged, or {about.name} belongs to another module: compile the program again")
    values: dict[str, Any] = {}
    if entries and any(s["group"] == "params" for e in entries.values() for s in e["takes"]):
        values = read_parameters(Path(parameters) if parameters else vmfb.with_name(stored))
    return Loaded(data, entries, values, device or ("cuda" if kind == "cuda" else "local-sync"), described)


def read_parameters(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file (or of a JSON file of nested lists)."""
    try:
        data = path.read_bytes()
        if path.suffix == ".json":
            return {name: np.array(x, np.float32) for name, x in json.loads(data).items()}
        (size,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + size])
        found = {}
        for name, about in header.items():
            if name == "__metadata__":
                continue
            begin, end = about["data_offsets"]
            array = np.frombuffer(data, NAMES[about["dtype"]], offset=8 + size + begin,
                                  count=int(np.prod(about["shape"], dtype=np.int64)))  # fmt: skip
            if array.nbytes != end - begin:
                raise ValueError(f"the tensor {name} has the wrong length")
            found[name] = array.reshape(about["shape"])
    except (OSError, ValueError, KeyError, struct.error, TypeError) as error:
        raise LoadError(f"cannot read the parameters in {path}: {error}") from error
    return found


class Loaded:
    """A module on a device. ``params`` are NumPy arrays, by name: assign to change one."""

    def __init__(
        self, data: bytes, entries: dict[str, Any], params: dict[str, Any], device: str, about: dict[str, Any]
    ) -> None:
        try:
            import iree.runtime as rt
        except ImportError as error:
            raise LoadError('iree-base-runtime is missing: pip install "iree-base-runtime"') from error
        self.entries = entries
        self.about = about
        self._rt = rt
        self._host = device.startswith("local")
        lacking = _lacking(about.get("features", [])) if self._host else []
        if lacking:
            raise LoadError(
                f"the module was compiled for a CPU with {', '.join(lacking)}, which this one has not:"
                " compile it with --cpu generic, or --cpu x86-64-v3"
            )
        try:
            config = rt.Config(device=_processor(rt, device)) if self._host else rt.Config(device)
            self.device = config.device
            self._context = rt.SystemContext(config=config)
            module = rt.VmModule.copy_buffer(self._context.instance, data)
            self._context.add_vm_module(module)
        except Exception as error:  # what IREE raises is not one class
            raise LoadError(f"this machine cannot run the module on {device}: {_first(error)}") from error
        self._functions = self._context.modules[module.name]
        self._params: dict[str, Any] = {}
        self.params = params
        self._optimizer: dict[str, Any] | None = None

    # ------------------------------------------------------------ parameters

    @property
    def params(self) -> dict[str, Any]:
        return {name: _host(x) for name, x in self._params.items()}

    @params.setter
    def params(self, values: dict[str, Any]) -> None:
        wanted = {s["name"]: s for e in self.entries.values() for s in e["takes"] if s["group"] == "params"}
        missing = sorted(set(wanted) - set(values))
        if missing:
            raise LoadError(f"no value for the parameter {missing[0]}")
        self._params = {name: self._device(self._array(values[name], slot, {})) for name, slot in wanted.items()}

    # ------------------------------------------------------------ functions

    def init_state(self, batch: int = 1) -> dict[str, Any]:
        """The state at the beginning of a sequence."""
        return self.call("init", {"batch": {"batch": batch}})["state"]

    def forward(self, *args: Any, state: dict[str, Any] | None = None, ticks: int = 0, **named: Any) -> tuple[Any, Any]:
        """Outputs [batch, time, ..] and the state after them."""
        return self._sequence("forward", args, named, state, ticks)

    def step(self, *args: Any, state: dict[str, Any], **named: Any) -> tuple[Any, Any]:
        """Outputs [batch, ..] of one tick and the state after it."""
        given = self._named("step", args, named)
        found = self.call("step", {"inputs": given, "state": state})
        return _single(found.get("outputs", {})), found["state"]

    def peek(self, *args: Any, state: dict[str, Any], **named: Any) -> Any:
        """The outputs of a tick whose next input is not known yet; the state stays as it is."""
        return _single(self.call("peek", {"inputs": self._named("peek", args, named), "state": state})["outputs"])

    def loss(self, *args: Any, state: dict[str, Any] | None = None, **named: Any) -> float:
        """The mean of what the program minimizes. Inputs that are looked ahead at have one value more than there are
        ticks."""
        given = self._ahead("loss", args, named)
        begun = state if state is not None else self.init_state(self._size(given, "loss", "batch"))
        found = self.call("loss", {"inputs": given, "state": begun})["losses"]
        return float(sum(np.mean(_host(x)) for x in found.values()))

    def gradients(self, *args: Any, **named: Any) -> dict[str, Any]:
        """Of the loss of whole sequences with respect to the parameters."""
        given = self._ahead("backward", args, named)
        batch, time = self._size(given, "backward", "batch"), self._size(given, "backward", "time")
        groups = {"inputs": given, "state": self.init_state(batch)}
        sizes = {"batch": batch, "time": time}
        for slot in self.entries["backward"]["takes"]:
            if slot["group"].startswith("d_"):
                share = 1.0 / (batch * time) if slot["group"] == "d_losses" else 0.0
                shape = [sizes[s] if isinstance(s, str) else s for s in slot["shape"]]
                groups.setdefault(slot["group"], {})[slot["name"]] = np.full(shape, share, np.float32)
        back = self.call("backward", groups)
        found = {name: _host(x) for name, x in back["d_params"].items()}
        if "init_backward" in self.entries:
            begun = self.call("init_backward", {"d_state": _with_anchors(back.get("d_state", {}))})["d_params"]
            found = {name: x + _host(begun[name]) for name, x in found.items()}
        return found

    def train(self, *args: Any, **named: Any) -> float:
        """One training step: the loss before it. Parameters and optimizers live on the device."""
        if self._optimizer is None:
            self._optimizer = self.call("begin", {})["optimizer"]
        given = self._ahead("train", args, named)
        begun = self.init_state(self._size(given, "train", "batch"))
        found = self.call("train", {"inputs": given, "state": begun, "optimizer": self._optimizer})
        self._params.update(found["params"])
        self._optimizer = found["optimizer"]
        return float(_host(found["losses"]["loss"]))

    # ------------------------------------------------------------ calls

    def call(self, entry: str, groups: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """A function by its name, with its arguments by group and name: its results, in the same way, on the device."""
        if entry not in self.entries:
            raise LoadError(f"the module has no function `{entry}`; it has {', '.join(self.entries)}")
        about = self.entries[entry]
        sizes: dict[str, int] = {}
        arguments, shared = [], []
        for slot in about["takes"]:
            name, group = slot["name"], slot["group"]
            if group == "params":
                arguments.append(self._params[name])
                continue
            value = groups.get(group, {}).get(name)
            if value is None:
                raise LoadError(f"`{entry}` needs {group.rstrip('s')} `{name}`")
            if isinstance(value, self._rt.DeviceArray):
                self._fits(tuple(value.shape), slot, sizes)
                arguments.append(value)
            else:
                array = self._array(value, slot, sizes)
                lent = self._lent(array) if group == "inputs" else None
                if lent is not None:
                    shared.append(array)
                arguments.append(lent if lent is not None else self._device(array))
        try:
            results = self._functions[entry](*arguments)
        except Exception as error:  # what IREE raises is not one class
            raise LoadError(f"`{entry}` failed: {_first(error)}") from error
        results = results if isinstance(results, (tuple, list)) else [results]
        found: dict[str, dict[str, Any]] = {}
        for slot, value in zip(about["gives"], results, strict=True):
            if shared and any(np.may_share_memory(value.to_host(), x) for x in shared):
                value = self._device(value.to_host().copy())  # what was given may be changed after the call
            found.setdefault(slot["group"], {})[slot["name"]] = value
        return found

    def _lent(self, array: Any) -> Any:
        """The memory of an array itself, without a copy: on a CPU, where it is large and begins where IREE wants it."""
        if not self._host or array.nbytes < LEND or array.ctypes.data % ALIGNED or not array.flags.writeable:
            return None
        rt = self._rt
        kind = rt.MemoryType.HOST_LOCAL | rt.MemoryType.DEVICE_VISIBLE
        try:
            memory = self.device.allocator.import_host_allocation(array, int(kind), int(rt.BufferUsage.DEFAULT))
            element = rt.array_interop.map_dtype_to_element_type(array.dtype)
            view = rt.HalBufferView(memory, list(array.shape), int(element))
        except (AttributeError, RuntimeError, TypeError, ValueError):  # IREE does not take it: a copy does the same
            return None
        return rt.DeviceArray(self.device, view)

    def _sequence(self, entry: str, args: Any, named: Any, state: Any, ticks: int) -> tuple[Any, Any]:
        given = self._named(entry, args, named)
        begun = state if state is not None else self.init_state(self._size(given, entry, "batch"))
        found = self.call(entry, {"inputs": given, "state": begun, "ticks": {"ticks": ticks}})
        return _single(found.get("outputs", {})), found["state"]

    def _inputs(self, entry: str) -> list[dict[str, Any]]:
        if entry not in self.entries:
            raise LoadError(f"the module has no function `{entry}`; it has {', '.join(self.entries)}")
        return [s for s in self.entries[entry]["takes"] if s["group"] == "inputs"]

    def _named(self, entry: str, args: Any, named: dict[str, Any]) -> dict[str, Any]:
        names = [s["name"] for s in self._inputs(entry)]
        if len(args) > len(names):
            raise LoadError(f"`{entry}` has the inputs {', '.join(names)}, and got {len(args)}")
        given = {**dict(zip(names, args, strict=False)), **named}
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise LoadError(f"`{entry}` has no input `{unknown[0]}`; it has {', '.join(names)}")
        return given

    def _ahead(self, entry: str, args: Any, named: dict[str, Any]) -> dict[str, Any]:
        """The inputs with those that are the next values of another one."""
        ahead = {n: s for n, s in self.about.get("ahead", {}).items() if n not in named}
        now = [s["name"] for s in self._inputs(entry) if s["name"] not in ahead]
        given = {**dict(zip(now, args, strict=False)), **named}
        for name, source in ahead.items():
            stream = np.asarray(given[source])
            given[name] = np.ascontiguousarray(stream[:, 1:])
            short = stream.shape[1] - 1
            for other in now:
                value = np.asarray(given[other])
                if value.ndim > 1 and value.shape[1] == short + 1:
                    given[other] = np.ascontiguousarray(value[:, :short])
        return given

    def _size(self, given: dict[str, Any], entry: str, axis: str) -> int:
        for slot in self._inputs(entry):
            if axis in slot["shape"] and slot["name"] in given:
                return int(given[slot["name"]].shape[slot["shape"].index(axis)])
        fixed = self.about.get("fixed", {})
        return int(fixed.get(axis, 1))

    def _array(self, value: Any, slot: dict[str, Any], sizes: dict[str, int]) -> Any:
        """As a NumPy array of the right kind and shape, without a copy where it is one already."""
        if hasattr(value, "detach"):
            value = value.detach()
        array = np.from_dlpack(value) if hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray) else value
        array = np.asarray(array)
        wanted = KINDS[slot["dtype"]]
        if wanted is np.int64 and array.dtype.kind not in "iub":
            raise LoadError(f"`{slot['name']}` has whole numbers, not {array.dtype}")
        array = np.require(array, wanted, "C") if array.ndim else np.array(array, wanted)
        self._fits(array.shape, slot, sizes)
        limit = self.about.get("limits", {}).get(slot["name"])
        if (
            limit is not None
            and slot["group"] == "inputs"
            and array.size
            and not (0 <= array.min() <= array.max() < limit)
        ):
            raise LoadError(f"`{slot['name']}` has values from 0 to {limit - 1}")
        return array

    def _fits(self, shape: tuple[int, ...], slot: dict[str, Any], sizes: dict[str, int]) -> None:
        wanted = [sizes.get(s, s) if isinstance(s, str) else s for s in slot["shape"]]
        good = len(shape) == len(wanted) and all(
            isinstance(w, str) or w == n for n, w in zip(shape, wanted, strict=False)
        )
        if not good or 0 in shape:
            shown = ", ".join(map(str, wanted))
            raise LoadError(f"`{slot['name']}` must be [{shown}], not {list(shape)}")
        sizes.update({s: n for n, s in zip(shape, slot["shape"], strict=True) if isinstance(s, str)})

    def _device(self, array: Any) -> Any:
        return self._rt.asdevicearray(self.device, array)


def _with_anchors(states: dict[str, Any]) -> dict[str, Any]:
    """The cotangents of states, with those of their anchors (``state@period``)."""
    found = {name: _host(x) for name, x in states.items() if "@" not in name}
    for name, x in states.items():
        if "@" in name:
            found[name.rpartition("@")[0]] = found[name.rpartition("@")[0]] + _host(x)
    return found


def _host(value: Any) -> Any:
    return value.to_host() if hasattr(value, "to_host") else np.asarray(value)


def _single(outputs: dict[str, Any]) -> Any:
    found = {name: _host(x) for name, x in outputs.items()}
    return next(iter(found.values())) if len(found) == 1 else found


def _processor(rt: Any, device: str) -> Any:
    """A device on this CPU that keeps memory which a call has freed for the next call: a third of the time of a call is
    else the system's, for pages that it clears."""
    return rt.get_driver(device).create_default_device(allocators=["caching"])


def _lacking(wanted: list[str]) -> list[str]:
    """The extensions that the CPU at hand does not have, as far as Linux says which it has."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    own = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), None)
    return [] if own is None else [name for name in wanted if name not in own]


def _first(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
