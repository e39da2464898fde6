"""`nldsl new`: write a small program to start from."""

from __future__ import annotations

import re
from pathlib import Path

import click

__all__ = ["STARTER", "command", "starter"]

STARTER = """\
## {title}: a linear memory that forgets, then takes one gradient step on how well it recalls.
##
## Change the objective, the order of the statements or the clock, and run `nldsl explain {file}` to see the update
## that follows.

## How far a recalled value is from the true one.
objective recall(pred: [n], target: [n]) -> [] = sum((pred - target)^2) / 2

memory {title}(dk: dim, dv: dim) {{
  state S: [dv, dk] = 0

  read(q: [dk]) -> [dv] = S @ q

  learn(k: [dk], v: [dv], rate: [], keep: []) every token {{
    S <- keep * S
    S <- S - rate * grad(recall(read(k), v), S)
  }}

  ## One token: write, then read, so that a query sees its own token.
  step(q: [dk], k: [dk], v: [dv], rate: [], keep: []) -> [dv] {{
    learn(k, v, rate, keep)
    return read(q)
  }}
}}

## With `keep = 1` and `rate = 1` on a key of length one, the memory recalls exactly what it has just learned.
example "it recalls what it learned" {{
  memory m: {title}(2, 3)
  m.learn([1, 0], [5, 6, 7], rate = 1, keep = 1)
  expect m.read([1, 0]) == [5, 6, 7]
}}
"""


@click.command("new")
@click.argument("name")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def command(name: str, force: bool) -> int:
    """Write NAME.nl, a small memory with comments, to start from."""
    path = Path(name if name.endswith(".nl") else f"{name}.nl")
    text = starter(path)
    try:
        with path.open("w" if force else "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        raise click.ClickException(f"{path} exists; --force overwrites it") from None
    click.echo(f"wrote {path}")
    click.echo(f"next: nldsl check {path}; nldsl explain {path}; nldsl verify {path}")
    return 0


def starter(path: Path) -> str:
    """Return the text of the program; its memory is named after the file."""
    title = "".join(word[:1].upper() + word[1:] for word in re.split(r"[^A-Za-z0-9]+", path.stem))
    if not title or title[0].isdigit():
        title = f"Memory{title}"
    return STARTER.format(title=title[:64], file=path.name)
