"""`nldsl sample`: continue a text with a trained model."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .backend_option import require_backend

__all__ = ["command"]

PATH = click.Path(path_type=Path)


@click.command("sample")
@click.argument("checkpoint", type=PATH)
@click.option("--prompt", default="\n", help="Text to go on from.  [default: a line feed]")
@click.option("--prompt-file", type=PATH, help="File with the text to go on from.")
@click.option("--tokens", "count", default=256, show_default=True, help="Tokens to draw.")
@click.option("--temperature", default=0.8, show_default=True, help="0: always the likeliest token.")
@click.option("--top-k", default=0, help="Draw from the K likeliest tokens only.  [default: all]")
@click.option("--seed", default=0, show_default=True, help="The same seed draws the same text.")
@click.option("--ids", is_flag=True, help="Print token ids, one on a line; needed when they are not bytes.")
@click.option("--spec", type=PATH, help="The program, if it is not to be taken from the checkpoint.")
@click.option("--backend", default="auto", show_default=True, help="Which backend runs it.")
@require_backend
@click.option("--threads", default=0, help="CPU threads.  [default: all]")
@click.option("--allow-changed-spec", is_flag=True, help="Sample although the program has changed.")
def command(
    checkpoint: Path,
    prompt: str,
    prompt_file: Path | None,
    count: int,
    temperature: float,
    top_k: int,
    seed: int,
    ids: bool,
    spec: Path | None,
    backend: str,
    require_backend: bool,
    threads: int,
    allow_changed_spec: bool,
) -> int:
    """Continue a text with the model in CHECKPOINT: a checkpoint, or the directory of a run.

    The text is written as it is drawn: the exact bytes into a pipe or a file; on a terminal what is not UTF-8, and what
    would control the terminal, is shown as an escape.
    """
    from nldsl.extras import require

    require("torch", "train", "to sample from a model")
    require("safetensors", "train", "to read checkpoints")
    import torch

    from nldsl.train.errors import problem
    from nldsl.train.sample import ByteWriter, SampleOptions, generate
    from nldsl.train.session import compile_checkpoint
    from nldsl.train.trainable import vocabulary

    options = SampleOptions(count, temperature, top_k, seed)
    options.check()
    if threads:
        torch.set_num_threads(threads)
    module = compile_checkpoint(
        checkpoint, spec, backend, allow_changed_spec=allow_changed_spec, required=require_backend
    )
    start = prompt_file.read_bytes() if prompt_file else prompt.encode("utf-8", errors="surrogateescape")
    known = vocabulary(module.program)
    beyond = next((byte for byte in start if known is not None and byte >= known), None)
    if beyond is not None:
        raise problem("NL0804", f"the prompt has the byte {beyond}, the vocabulary of the program ends at {known}")
    if known is not None and known > 256 and not ids:
        raise problem(
            "NL0820", "the tokens of this model are not bytes: they cannot be shown as text", hints=("say `--ids`",)
        )
    if ids:
        for token in generate(module, start, options):
            click.echo(token)
        return 0
    terminal = sys.stdout.isatty()
    writer = ByteWriter(sys.stdout, None if terminal else sys.stdout.buffer)
    writer.write(start)
    for token in generate(module, start, options):
        writer.write(bytes([token]))
    writer.finish()
    if terminal:
        click.echo()
    return 0
