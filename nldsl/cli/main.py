"""The top of the command line: finds the sub-command, and turns every outcome into an exit code.

0: done. 1: the user's program, data or machine is at fault. 2: the command line is. 70: the compiler is.
130: interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from nldsl import __version__
from nldsl.diagnostics import DiagnosticError
from nldsl.diagnostics.suggest import did_you_mean

from .backend_option import remarks
from .output import fail, print_diagnostics

__all__ = ["COMMANDS", "EXIT_INTERNAL", "EXIT_INTERRUPTED", "EXIT_OK", "EXIT_USAGE", "EXIT_USER", "app", "main"]

EXIT_OK = 0
EXIT_USER = 1
EXIT_USAGE = 2
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130
# As a shell reports a process that writes to a reader that went away (`nldsl explain ... | head`).
EXIT_PIPE = 141

# Name -> (where it is, what it does). The second is here so that `nldsl --help` imports none of them.
COMMANDS: dict[str, tuple[str, str]] = {
    "check": ("nldsl.cli.check:command", "Report the mistakes in programs."),
    "fmt": ("nldsl.cli.fmt:command", "Format programs."),
    "explain": (
        "nldsl.cli.explain:command",
        "Explain a program (its derived updates, levels, costs) or an error code.",
    ),
    "emit": ("nldsl.cli.emit:command", "Print a program at any stage of the compiler."),
    "graph": ("nldsl.cli.graph:command", "Draw the levels of a program."),
    "compile": ("nldsl.cli.compile:command", "Compile a program to a file that runs without nldsl."),
    "verify": ("nldsl.cli.verify:command", "Compare the compiled program with its definition."),
    "train": ("nldsl.cli.train:command", "Train a model."),
    "sample": ("nldsl.cli.sample:command", "Continue a text with a trained model."),
    "bench": ("nldsl.cli.bench:command", "Measure the speed of a compiled program."),
    "new": ("nldsl.cli.new:command", "Write a small program to start from."),
    "list": ("nldsl.cli.list:command", "List the standard library."),
    "doctor": ("nldsl.cli.doctor:command", "Show what is installed and whether it works."),
}


class LazyGroup(click.Group):
    """A group whose sub-commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the sub-commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one sub-command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the sub-command; a name that is none gets a hint."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = "".join(f"\n{text}" for text in did_you_mean(args[0], COMMANDS))
            if not hint and args[0].endswith(".nl"):
                hint = f"\ndid you mean `nldsl check {args[0]}`?"
            ctx.fail(f"there is no command `{args[0]}`{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the sub-commands from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="nldsl", message="%(prog)s %(version)s")
def app() -> None:
    """Compile nested-learning memories written in .nl."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with remarks():
            result = _invoke(arguments)
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return EXIT_USAGE if isinstance(error, click.UsageError) else EXIT_USER
    except (click.Abort, KeyboardInterrupt):
        fail("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes stdout once more on its way out, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except DiagnosticError as error:
        _traceback_if_asked()
        print_diagnostics(error.diagnostics)
        return EXIT_USER
    except OSError as error:
        _traceback_if_asked()
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return EXIT_USER
    except Exception as error:  # noqa: BLE001  the one place where every mistake of the compiler ends
        _traceback_if_asked()
        from .crash import report_crash

        report_crash(error, arguments)
        return EXIT_INTERNAL
    return result if isinstance(result, int) else EXIT_OK


def _invoke(arguments: list[str]) -> object:
    if "_NLDSL_COMPLETE" in os.environ:
        # A shell that asks for completions; click answers it and exits.
        app.main(prog_name="nldsl")
    # Not `app.main`: it has exit codes of its own for interrupts and closed pipes.
    with app.make_context("nldsl", arguments) as context:
        return app.invoke(context)


def _traceback_if_asked() -> None:
    if os.environ.get("NLDSL_TRACEBACK", "0") not in ("", "0"):
        import traceback

        traceback.print_exc()
