"""The report of the demo: what was measured, as JSON values and as a page of Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch

import nldsl
from nldsl.demo.corpus import Corpus
from nldsl.demo.pictures import Inspection
from nldsl.demo.settings import MODEL, DemoSettings
from nldsl.demo.training import Baselines, Decoding, Run
from nldsl.train.cadence import MemoryCadence

__all__ = ["build", "markdown"]


def build(
    settings: DemoSettings,
    corpus: Corpus,
    inspections: list[Inspection],
    known: Baselines,
    runs: dict[str, Run],
    cadence: list[MemoryCadence],
    decoding: Decoding,
) -> dict[str, Any]:
    """Return everything as JSON values."""
    main = runs["main"]
    after = main.progress.last_bits
    return {
        "nldsl": nldsl.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "model": MODEL,
        "dims": dict(settings.dims),
        "backend": settings.backend,
        "batch": settings.batch,
        "length": settings.length,
        "seed": settings.seed,
        "minutes": {"main": settings.long_minutes, "comparison": settings.short_minutes, "all": settings.minutes},
        "data": {
            "root": str(corpus.root),
            "train_files": len(corpus.train),
            "train_bytes": known.train_bytes,
            "heldout_files": len(corpus.heldout),
            "heldout_bytes": known.heldout_bytes,
        },
        "inspections": [{**asdict(i), "files": list(i.files)} for i in inspections],
        "bits_per_byte": {
            "before": main.progress.first_bits,
            "after": after,
            "order2": known.order2,
            "order2_smoothing": asdict(known.smoothing),
            "zlib9": known.zlib,
        },
        "beats_order2": after is not None and after < known.order2,
        "runs": {name: _run(run) for name, run in runs.items()},
        "levels": [_level(main, level) for level in main.parameters],
        "memories": [_memory(c) for c in cadence],
        "decoding": {**asdict(decoding), "prompt": settings.prompt, "text": decoding.text.decode(errors="replace")},
    }


def _run(run: Run) -> dict[str, Any]:
    progress = run.progress
    return {
        "directory": str(run.directory),
        "steps": progress.step,
        "tokens": progress.tokens,
        "training_minutes": progress.training_seconds / 60,
        "tokens_per_second": progress.tokens_per_second,
        "before": progress.first_bits,
        "after": progress.last_bits,
        "skipped": progress.skipped,
        "frozen": list(run.frozen),
    }


def _level(run: Run, level: str) -> dict[str, Any]:
    period = run.periods[level]
    return {
        "level": level,
        "every_steps": period,
        "parameters": run.parameters[level],
        "declared": run.progress.step // period,
        "observed": run.progress.observed[level],
    }


def _memory(seen: MemoryCadence) -> dict[str, Any]:
    return {
        "memory": seen.memory,
        "every_tokens": seen.period,
        "tokens_read": seen.ticks,
        "declared": seen.declared,
        "observed": len(seen.changed),
        "agrees": seen.agrees,
    }


def markdown(found: dict[str, Any]) -> str:
    """Lay the report out as a page."""
    parts = (_result, _comparison, _cadence, _sample, _program)
    return "\n\n".join("\n".join(part(found)) for part in parts) + "\n"


def _result(found: dict[str, Any]) -> list[str]:
    bits, data, run = found["bits_per_byte"], found["data"], found["runs"]["main"]
    chosen = bits["order2_smoothing"]
    text = (
        f"Trained on {data['train_bytes']:,} bytes in {data['train_files']} files, evaluated on"
        f" {data['heldout_bytes']:,} bytes of {data['heldout_files']} other files (chosen by a hash of their names)."
        f" {run['steps']:,} steps of {found['batch']} x {found['length']} bytes: {run['tokens']:,} bytes seen,"
        f" {run['tokens_per_second']:,.0f} per second on {found['threads']} threads."
    )
    rows = [
        ("before training", bits["before"]),
        (f"**after {run['training_minutes']:.2f} minutes of training**", bits["after"]),
        (f"order-2 byte model, fitted to all training bytes ({chosen['kind']} {chosen['strength']:g})", bits["order2"]),
        ("`zlib -9`, of the held-out bytes alone", bits["zlib9"]),
    ]
    gain = bits["order2"] - bits["after"]
    verdict = (
        f"{gain:.3f} bits per byte ({gain / bits['order2']:.0%}) less than the order-2 model."
        if gain > 0
        else f"It does NOT beat the order-2 model: {-gain:.3f} bits per byte more."
    )
    return [
        f"# {found['model']} on the sources of Python's standard library",
        "",
        text,
        "",
        *_table(("bits per byte, on the same held-out bytes", ""), ((name, f"{value:.3f}") for name, value in rows)),
        "",
        verdict,
    ]


def _comparison(found: dict[str, Any]) -> list[str]:
    minutes = found["minutes"]
    text = (
        f"Of {minutes['all']:g} minutes of training in all, the run above had {minutes['main']:.2f}."
        f" What it had reached after {minutes['comparison']:.2f} is compared with a second run of that length,"
        " on the same batches, in which the parameters of the slow levels keep their first values."
    )
    rows = []
    for name in ("all levels", "slow levels frozen"):
        run = found["runs"][name]
        frozen = ", ".join(run["frozen"]) or "none"
        rows.append((name, frozen, f"{run['steps']:,}", f"{run['tokens']:,}", f"{run['after']:.3f}"))
    header = ("run", "frozen", "steps", "bytes seen", "bits per byte")
    return ["## The same budget with the slow levels frozen", "", text, "", *_table(header, rows)]


def _cadence(found: dict[str, Any]) -> list[str]:
    levels = [
        (r["level"], f"{r['every_steps']} steps", f"{r['parameters']:,}", f"{r['declared']:,}", f"{r['observed']:,}")
        for r in found["levels"]
    ]
    memories = [
        (r["memory"], f"{r['every_tokens']} tokens", r["tokens_read"], r["declared"], r["observed"])
        for r in found["memories"]
    ]
    return [
        "## Cadence",
        "",
        "How often parameters and states were seen to change, against what the program declares.",
        "",
        *_table(("level", "ticks every", "parameters", "declared", "observed"), levels),
        "",
        *_table(("memory", "ticks every", "tokens read", "declared", "observed"), memories),
    ]


def _sample(found: dict[str, Any]) -> list[str]:
    decoding = found["decoding"]
    text = (
        f"Decoded byte by byte with a state of fixed size: {decoding['first_ms']:.1f} ms per byte at the beginning,"
        f" {decoding['last_ms']:.1f} ms at the end. On the first held-out bytes, single steps give"
        f" {decoding['stepped']:.5f} bits per byte and the evaluation gives {decoding['evaluated']:.5f}."
    )
    shown = _visible(decoding["prompt"] + decoding["text"])
    return ["## A sample", "", text, "", *(f"    {line}" for line in shown.split("\n"))]


def _program(found: dict[str, Any]) -> list[str]:
    lines = ["## The program", ""]
    for part in found["inspections"]:
        lines.append(f"- {part['name']}: {part['said']}")
        lines += [f"  - {path}" for path in part["files"]]
    return [*lines, f"- checkpoint: {found['runs']['main']['directory']}"]


def _table(header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> list[str]:
    align = ["---" if n == 0 else "---:" for n in range(len(header))]
    lines = [header, align, *rows]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines]


def _visible(text: str) -> str:
    return "".join(c if c in "\n\t" or c.isprintable() else f"\\x{ord(c):02x}" for c in text)
