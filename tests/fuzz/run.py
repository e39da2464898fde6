"""Feed hostile inputs to the compiler: `python -m tests.fuzz.run --count 100000`.

Every input has a number; `--seed N --count 1` repeats one. An input fails if something else than a diagnostic comes of
it, if it takes longer than `--limit` seconds, or if reading it does something that reading never does (see `guard`).
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
import traceback
from multiprocessing import Pool
from pathlib import Path

from tests.fuzz.guard import Forbidden, watched
from tests.fuzz.inputs import make, seeds
from tests.fuzz.judge import TooSlow, check, limited, read

_MEMORY = 4 * 2**30


def attempt(seed: int, limit: float, *, checked: bool = True) -> tuple[str, str]:
    """Try one input; return what became of it, and the traceback if it failed."""
    data = make(seed)
    try:
        with watched(), limited(limit):
            text = read(data)
            if text is None or not checked:
                return "read", ""
            return ("right" if check(text) else "wrong"), ""
    except (Exception, TooSlow, Forbidden) as error:  # noqa: BLE001  whatever it is, it is a finding
        return "failed", f"{type(error).__name__}\n{traceback.format_exc(limit=-6)}"


def warm() -> None:
    """Import what is imported late."""
    for text in seeds()[:20]:
        read(text.encode())
        check(text)


def work(job: tuple[int, int, float, bool]) -> list[tuple[int, str, str]]:
    first, count, limit, checked = job
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    warm()
    return [(seed, *attempt(seed, limit, checked=checked)) for seed in range(first, first + count)]


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="number of the first input")
    parser.add_argument("--limit", type=float, default=10.0, help="seconds for one input")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--save", type=Path, help="folder for the inputs that fail")
    parser.add_argument("--parse-only", action="store_true", help="leave the checker out")
    options = parser.parse_args()

    began = time.monotonic()
    step = max(1, min(500, options.count // options.jobs))
    ends = options.seed + options.count
    jobs = [
        (first, min(step, ends - first), options.limit, not options.parse_only)
        for first in range(options.seed, ends, step)
    ]
    totals: dict[str, int] = {}
    kinds: dict[str, int] = {}
    with Pool(options.jobs, maxtasksperchild=8) as pool:
        for results in pool.imap(work, jobs):
            for seed, outcome, trace in results:
                totals[outcome] = totals.get(outcome, 0) + 1
                if outcome != "failed":
                    continue
                last = trace.strip().split("\n")
                kind = "\n".join(line for line in last[-5:])
                kinds[kind] = kinds.get(kind, 0) + 1
                if kinds[kind] == 1:
                    print(f"--- input {seed}: {trace}", flush=True)
                if options.save:
                    options.save.mkdir(parents=True, exist_ok=True)
                    (options.save / f"{seed}.nl").write_bytes(make(seed))
    done = sum(totals.values())
    print(f"{done} inputs in {time.monotonic() - began:.0f} s: {totals}")
    return int("failed" in totals or done != options.count)


if __name__ == "__main__":
    sys.exit(main())
