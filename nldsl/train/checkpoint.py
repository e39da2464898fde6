"""Checkpoints: directories of safetensors and JSON that are complete or ignored.

`DIR/step-000123/` holds the parameters, the optimizers with their level clocks and the gradients summed since their
last ticks, the states carried from one batch to the next, the random number generators, the data cursor, and the text
of the program. It is written under another name, flushed to the disk, renamed, and only then marked by the file
`COMPLETE`, which has the size and the hash of each file. What has no marker is never read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as render_tensors

import nldsl
from nldsl.train import tree
from nldsl.train.disk import Disk, replace_file
from nldsl.train.errors import problem

__all__ = ["Checkpoint", "Spec", "complete_checkpoints", "latest_complete", "load", "save"]

FORMAT = "nldsl-checkpoint"
VERSION = 1
MARKER = "COMPLETE"
META = "meta.json"
PROGRAM = "program.nl"
SECTIONS = ("params", "optimizers", "carried", "rng")
FILES = (META, PROGRAM, *(f"{section}.safetensors" for section in SECTIONS))
_NAME = re.compile(r"step-(\d{6,12})")
_MARKER_LIMIT = 1 << 16


@dataclass(frozen=True)
class Spec:
    """What was compiled: the program text, which unit of it, with which sizes."""

    text: str
    entry: str = ""
    dims: tuple[tuple[str, Any], ...] = ()
    fingerprint: str = ""  # of everything that the text imports
    path: str = ""  # where it was read from; no part of its identity

    @property
    def sha256(self) -> str:
        """The identity of the compiled program."""
        said = json.dumps([self.text, self.entry, [list(d) for d in self.dims], self.fingerprint])
        return hashlib.sha256(said.encode()).hexdigest()


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to go on to the same bits. The trees may hold tensors anywhere (see `tree`)."""

    step: int
    spec: Spec
    params: dict[str, torch.Tensor]
    optimizers: Any = None
    carried: Any = None
    rng: Any = None
    data: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    compiler: str = nldsl.__version__


def save(directory: Path, checkpoint: Checkpoint, *, keep: int = 3, disk: Disk | None = None) -> Path:
    """Write a checkpoint, then remove all but the last `keep`. Returns the directory of the new one."""
    disk = disk or Disk()
    final = directory / f"step-{checkpoint.step:06d}"
    temporary = directory / f".tmp-{final.name}-{os.getpid()}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if (final / MARKER).is_file():  # the state is a function of the step: it is there already
            prune(directory, keep, disk)  # a kill may have come between that checkpoint and the removal of old ones
            return final
        files = _render(checkpoint)
        disk.remove_tree(temporary)
        disk.make_directory(temporary)
        for name, data in files.items():
            disk.write(temporary / name, data)
        disk.sync_directory(temporary)
        disk.remove_tree(final)  # what an interrupted run left without a marker
        disk.rename(temporary, final)
        disk.sync_directory(directory)
        replace_file(disk, final / MARKER, _marker(files))
    except OSError as error:
        for leftover in (temporary, final):
            _discard(leftover)
        last = latest_complete(directory)
        raise problem(
            "NL0813",
            f"cannot write the checkpoint `{final}`: {error.strerror or error}",
            notes=(f"the last complete checkpoint is `{last}`" if last else "there is no earlier checkpoint",),
            hints=("make room or choose another `--out`, then go on with `--resume`",),
        ) from None
    prune(directory, keep, disk)
    return final


def prune(directory: Path, keep: int, disk: Disk | None = None) -> None:
    """Remove all but the last `keep` checkpoints, and what interrupted runs left before the newest one."""
    disk = disk or Disk()
    complete = complete_checkpoints(directory)
    if not complete:
        return
    kept = set(complete[-max(1, keep) :])
    for path in sorted(directory.iterdir()):
        stale = path.name.startswith(".tmp-step-") or (_step_of(path) is not None and path not in kept)
        if not stale or path.is_symlink() or (_step_of(path) or 0) > (_step_of(complete[-1]) or 0):
            continue
        try:
            if (path / MARKER).is_file():
                disk.remove(path / MARKER)  # first, so that what is half removed is not taken for complete
            disk.remove_tree(path)
        except OSError:  # the next save tries again; a checkpoint too many is not worth stopping for
            continue


def complete_checkpoints(directory: Path) -> list[Path]:
    """Return the directories of the complete checkpoints, oldest first."""
    try:
        found = [path for path in directory.iterdir() if _step_of(path) is not None and (path / MARKER).is_file()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found, key=lambda path: _step_of(path) or 0)


def latest_complete(directory: Path) -> Path | None:
    """Return the newest complete checkpoint of a run."""
    found = complete_checkpoints(directory)
    return found[-1] if found else None


def load(path: Path) -> Checkpoint:
    """Read a checkpoint, or the newest complete one of a run's directory. Nothing in it is ever executed."""
    path = _resolve(path)
    files = _read_files(path)
    try:
        meta = json.loads(files[META].decode("utf-8"))
        return _assemble(meta, {s: parse_tensors(files[f"{s}.safetensors"]) for s in SECTIONS}, files[PROGRAM].decode())
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError, SafetensorError) as error:
        raise _damaged(path, f"it cannot be read: {_first_line(error)}") from None


def _render(checkpoint: Checkpoint) -> dict[str, bytes]:
    """Return the content of each file."""
    trees: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    for section in SECTIONS:
        trees[section], tensors = tree.split(getattr(checkpoint, section))
        files[f"{section}.safetensors"] = render_tensors({name: _storable(t) for name, t in tensors.items()})
    spec = checkpoint.spec
    meta = {
        "format": FORMAT,
        "version": VERSION,
        "step": checkpoint.step,
        "compiler": checkpoint.compiler,
        "torch": torch.__version__,
        "spec": {
            "entry": spec.entry,
            "dims": dict(spec.dims),
            "fingerprint": spec.fingerprint,
            "path": spec.path,
            "sha256": spec.sha256,
        },
        "data": checkpoint.data,
        "trainer": checkpoint.trainer,
        "trees": trees,
    }
    files[META] = json.dumps(meta, indent=1).encode()
    files[PROGRAM] = spec.text.encode()
    return files


def _assemble(meta: Any, tensors: dict[str, dict[str, torch.Tensor]], text: str) -> Checkpoint:
    if not isinstance(meta, dict) or meta.get("format") != FORMAT or meta.get("version") != VERSION:
        raise ValueError(f"it is not a checkpoint of format {FORMAT} {VERSION}")
    spec, step = meta["spec"], meta["step"]
    if type(step) is not int or step < 0 or not isinstance(meta["data"], dict) or not isinstance(meta["trainer"], dict):
        raise ValueError(f"{META} does not have the fields of a checkpoint")
    trees = {section: tree.join(meta["trees"][section], tensors[section]) for section in SECTIONS}
    params = trees.pop("params")
    if not isinstance(params, dict) or not all(isinstance(p, torch.Tensor) for p in params.values()):
        raise ValueError("the parameters are not a table of tensors")
    found = Spec(text, spec["entry"], tuple(spec["dims"].items()), spec["fingerprint"], str(spec["path"]))
    if found.sha256 != spec["sha256"]:
        raise ValueError(f"{PROGRAM} is not the program that {META} names")
    return Checkpoint(
        step, found, params, data=meta["data"], trainer=meta["trainer"], compiler=str(meta["compiler"]), **trees
    )


def _storable(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor that owns its memory: safetensors stores no views and no sharing."""
    return tensor.detach().to("cpu").contiguous().clone()


def _marker(files: dict[str, bytes]) -> bytes:
    said = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    return json.dumps({"format": FORMAT, "version": VERSION, "files": said}, indent=1).encode()


def _resolve(path: Path) -> Path:
    if path.is_file():
        raise _not_a_directory(path)
    if not path.is_dir():
        raise problem("NL0810", f"there is no checkpoint `{path}`")
    if (path / MARKER).is_file():
        return path
    newest = latest_complete(path)
    if newest is not None:
        return newest
    if _step_of(path) is not None:
        raise problem(
            "NL0810",
            f"the checkpoint `{path}` is not complete: it has no file `{MARKER}`",
            notes=("the run was interrupted while it was being written",),
            hints=(f"resume from an earlier one: `--resume {path.parent}`",),
        )
    raise problem("NL0810", f"there is no complete checkpoint in `{path}`")


def _not_a_directory(path: Path) -> Exception:
    with path.open("rb") as file:
        head = file.read(4)
    if head.startswith((b"PK\x03\x04", b"\x80")) or path.suffix in (".pt", ".pth", ".pkl", ".ckpt"):
        return problem(
            "NL0814",
            f"`{path}` is a pickle, and loading a pickle can run any code in it: it is refused",
            hints=("a checkpoint of nldsl is a directory of safetensors and JSON files",),
        )
    return problem("NL0810", f"`{path}` is a file; a checkpoint is a directory", hints=(f"say `{path.parent}`",))


def _read_files(path: Path) -> dict[str, bytes]:
    """Read and verify every file that the marker lists."""
    try:
        with (path / MARKER).open("rb") as file:
            marker = json.loads(file.read(_MARKER_LIMIT).decode("utf-8"))
        if not isinstance(marker, dict) or set(marker["files"]) != set(FILES):
            raise _damaged(path, f"`{MARKER}` does not list the files of a checkpoint")
        files: dict[str, bytes] = {}
        for name in FILES:
            said = marker["files"][name]
            if (path / name).stat().st_size != said["size"]:
                raise _damaged(path, f"`{name}` has another size than `{MARKER}` says")
            files[name] = (path / name).read_bytes()
            if hashlib.sha256(files[name]).hexdigest() != said["sha256"]:
                raise _damaged(path, f"`{name}` has another content than `{MARKER}` says")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path, f"`{MARKER}` cannot be read: {_first_line(error)}") from None
    except OSError as error:
        raise _damaged(path, f"`{Path(str(error.filename or path)).name}`: {error.strerror or error}") from None
    return files


def _damaged(path: Path, what: str) -> Exception:
    others = [p for p in complete_checkpoints(path.parent) if p != path]
    hints = (f"an older checkpoint is `{others[-1]}`",) if others else ()
    return problem("NL0811", f"the checkpoint `{path}` is damaged", notes=(what,), hints=hints)


def _discard(path: Path) -> None:
    """Remove what a failed save left; a marked directory is another save's work and stays."""
    if path.is_dir() and not path.is_symlink() and not (path / MARKER).exists():
        try:
            Disk().remove_tree(path)
        except OSError:
            return


def _step_of(path: Path) -> int | None:
    found = _NAME.fullmatch(path.name)
    return int(found[1]) if found else None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
