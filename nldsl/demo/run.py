"""The demo in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nldsl.demo import report
from nldsl.demo.corpus import stdlib_corpus
from nldsl.demo.pictures import inspect_program
from nldsl.demo.settings import DemoSettings
from nldsl.demo.training import baselines, cadence_of, decode, kept, slow_levels, train

__all__ = ["run_demo"]


def run_demo(settings: DemoSettings, say: Callable[[str], None]) -> tuple[dict[str, Any], str]:
    """Do everything and return the report, as data and as a page.

    The main run stops once on its way, when it has had the budget of the comparison, to be evaluated.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    inspections = inspect_program(settings)
    for found in inspections:
        say(f"{found.name}: {found.said}")
    corpus = stdlib_corpus(settings.corpus)
    known = baselines(settings, corpus)
    say(f"order-2 model: {known.order2:.3f} bits per byte; zlib -9: {known.zlib:.3f}")

    say(f"training for {settings.long_minutes:.2f} minutes")
    short = kept(train(settings, corpus, "main", settings.short_minutes, say))
    main = train(settings, corpus, "main", settings.long_minutes, say)
    slow = slow_levels(main)
    say(f"training for {settings.short_minutes:.2f} minutes with {' and '.join(slow)} frozen")
    frozen = train(settings, corpus, "frozen", settings.short_minutes, say, freeze=slow)

    cadence = cadence_of(settings, corpus, main)
    decoding = decode(settings, corpus, main)
    runs = {"main": main, "all levels": short, "slow levels frozen": frozen}
    built = report.build(settings, corpus, inspections, known, runs, cadence, decoding)
    return built, report.markdown(built)
