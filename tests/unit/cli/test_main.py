"""Exit codes, and what is said with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from nldsl import __version__
from nldsl.cli import main as main_module
from nldsl.cli.main import COMMANDS, app, main
from nldsl.diagnostics import Diagnostic, DiagnosticError
from nldsl.diagnostics.internal import InternalError
from nldsl.source import NO_SPAN

Install = Callable[[Callable[[], object]], None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Install:
    """Make a function the sub-command `probe`, and the temporary folder the current one."""
    monkeypatch.chdir(tmp_path)

    def put(body: Callable[[], object]) -> None:
        module = type(sys)("probe_command")
        module.command = click.command("probe")(body)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "probe_command", module)
        monkeypatch.setitem(COMMANDS, "probe", ("probe_command:command", "Probe."))

    return put


def raiser(error: BaseException) -> Callable[[], object]:
    def body() -> object:
        raise error

    return body


def test_result_is_the_exit_code(install: Install) -> None:
    install(lambda: 1)
    assert main(["probe"]) == 1
    install(lambda: None)
    assert main(["probe"]) == 0


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DiagnosticError(Diagnostic("NL0301", "shapes differ", NO_SPAN)), 1, "error[NL0301]: shapes differ\n"),
        (click.ClickException("no such thing"), 1, "Error: no such thing\n"),
        (click.UsageError("give a file"), 2, "Error: give a file\n"),
        (
            FileNotFoundError(2, "No such file or directory", "a\x1b.nl"),
            1,
            "error: a\\x1b.nl: No such file or directory\n",
        ),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_outcomes(
    error: BaseException, code: int, said: str, install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install(raiser(error))
    assert main(["probe"]) == code
    captured = capsys.readouterr()
    assert captured.err.endswith(said)
    assert captured.out == ""


def test_internal_error_is_called_a_bug(install: Install, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def body() -> object:
        try:
            raise InternalError("no rule for `x`", artifacts={"ir": "x = read S"})
        except InternalError as error:
            raise ValueError("it broke") from error

    install(body)
    assert main(["probe"]) == 70
    said = capsys.readouterr().err
    (report,) = tmp_path.glob("nldsl-crash-*.json")
    assert "error[NL0900]: internal error: ValueError: it broke" in said
    assert "bug in the compiler, not in your program" in said
    assert report.name in said
    assert "NLDSL_TRACEBACK=1 nldsl probe" in said
    assert "Traceback" not in said
    data = json.loads(report.read_text(encoding="utf-8"))
    assert data["nldsl"] == __version__
    assert data["command"] == "nldsl probe"
    assert "it broke" in data["traceback"]
    assert data["artifacts"] == {"ir": "x = read S"}


def test_recursion_is_internal_too(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> object:
        return body()

    install(body)
    assert main(["probe"]) == 70
    assert "RecursionError" in capsys.readouterr().err


def test_report_goes_elsewhere_if_it_must(
    install: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(raiser(ValueError("it broke")))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(elsewhere))
    monkeypatch.setattr("nldsl.cli.crash.Path.cwd", lambda: tmp_path / "gone")
    assert main(["probe"]) == 70
    assert list(elsewhere.glob("nldsl-crash-*.json"))


def test_traceback_on_request(
    install: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(raiser(ValueError("it broke")))
    monkeypatch.setenv("NLDSL_TRACEBACK", "1")
    assert main(["probe"]) == 70
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["chekc"], "did you mean `check`?"),
        (["hope.nl"], "did you mean `nldsl check hope.nl`?"),
        (["zzz"], "there is no command `zzz`"),
        (["--nonsense"], "--nonsense"),
        (["new"], "NAME"),
    ],
)
def test_usage(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"nldsl {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    context = click.Context(app)
    command = app.get_command(context, name)
    assert command is not None
    assert command.name == name
    assert main([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith("Usage: nldsl " + name)


def test_reader_that_went_away(tmp_path: Path) -> None:
    code = "import sys; from nldsl.cli.main import main; sys.exit(main(['explain', 'NL0900']))"
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False
    )
    os.close(write)
    assert result.returncode == main_module.EXIT_PIPE
    assert result.stderr == ""


def test_module_is_the_command(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "nldsl", "nonsense"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert result.returncode == 2
    assert result.stderr.startswith("Usage: nldsl ")
