"""A verdict as a table of text, and as JSON types."""

from __future__ import annotations

import math
from typing import Any

from nldsl.verify import Verdict
from nldsl.verify.checks import Row


def text(verdict: Verdict) -> str:
    """The table; what differs first stands under the row that failed."""
    lines = [verdict.title, *(f"  {note}" for note in verdict.notes)]
    width = max((len(row.check) for _, rows in verdict.backends for row in rows), default=0)
    for backend, rows in verdict.backends:
        lines += ["", f"{backend} against the reference"]
        for row in rows:
            lines += _row(row, width)
    failed = sum(row.status == "failed" for _, rows in verdict.backends for row in rows)
    checks = sum(row.status == "ok" for _, rows in verdict.backends for row in rows)
    lines += ["", f"{failed} of {failed + checks} checks failed" if failed else f"all {checks} checks hold"]
    return "\n".join(lines) + "\n"


def _row(row: Row, width: int) -> list[str]:
    head = f"  {row.status.ljust(7)}  {row.check.ljust(width)}"
    if row.status == "skipped":
        return [f"{head}  {row.detail}"]
    bound = "exactly" if row.bound == 0 else f"at most {row.bound:.0e}"
    numbers = f"{head}  error {_number(row.error).rjust(7)}, {bound}"
    if row.status == "failed":
        return [numbers, f"           {row.detail}"]
    return [numbers + (f"  ({row.detail})" if row.detail else "")]


def _number(value: float) -> str:
    if value == 0:
        return "0"
    return "none" if math.isinf(value) else f"{value:.1e}"


def to_json(verdict: Verdict) -> dict[str, Any]:
    """The verdict as JSON types; an error that is no number is null."""
    return {
        "title": verdict.title,
        "ok": verdict.ok,
        "notes": list(verdict.notes),
        "backends": {
            backend: [
                {
                    "check": row.check,
                    "status": row.status,
                    "error": row.error if math.isfinite(row.error) else None,
                    "bound": row.bound,
                    "detail": row.detail,
                }
                for row in rows
            ]
            for backend, rows in verdict.backends
        },
    }
