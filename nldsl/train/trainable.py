"""Can this program be trained on a stream of tokens, and on which? Answered from the program alone."""

from __future__ import annotations

from nldsl.diagnostics.suggest import did_you_mean
from nldsl.ir.program import Program
from nldsl.runtime.inputs import streams_of
from nldsl.train.errors import problem

__all__ = ["check_levels", "check_tokens", "check_trainable", "vocabulary"]


def check_trainable(program: Program) -> None:
    """Refuse programs that minimize nothing or read something else than one stream of integers."""
    if not program.losses:
        raise problem(
            "NL0806",
            f"`{program.name}` has nothing to train: it has no `minimize`",
            hints=("train a model that ends with `minimize cross_entropy(logits, next(tokens)) at step with ...`",),
        )
    check_tokens(program)


def check_tokens(program: Program) -> None:
    """Refuse programs whose input is not one stream of integers."""
    streams = [d for d in program.inputs if not d.ahead]
    if len(streams) == 1 and streams[0].type.kind == "int" and not streams[0].type.shape:
        return
    shown = ", ".join(f"`{d.name}: {d.type}`" for d in streams) or "none"
    raise problem(
        "NL0806",
        f"`{program.name}` does not read one stream of tokens",
        notes=(f"its inputs: {shown}",),
        hints=("declare `input tokens: int[]`; train other inputs with your own loop over `nldsl.compile(...)`",),
    )


def check_levels(program: Program, names: tuple[str, ...]) -> None:
    """Refuse names that are no level with parameters."""
    known = [level.name for level in program.levels]
    trained = {parameter.level for parameter in program.params}
    for name in names:
        if name not in known:
            raise problem(
                "NL0820",
                f"the program has no level `{name}`",
                notes=(f"its levels: {', '.join(f'`{level}`' for level in known)}",) if known else (),
                hints=did_you_mean(name, known),
            )
        if name not in trained:
            raise problem("NL0820", f"no parameter belongs to the level `{name}`: there is nothing to freeze")
    if trained <= set(names):
        raise problem("NL0820", "every level that has parameters is frozen: there is nothing to train")


def vocabulary(program: Program) -> int | None:
    """Return how many token ids the program knows; None if it uses tokens only in ways that have no limit."""
    streams = streams_of(program)
    return streams.limits.get(streams.now[0].name) if streams.now else None
