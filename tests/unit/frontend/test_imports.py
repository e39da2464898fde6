"""A program imports what it may, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nldsl.diagnostics import Diagnostic, DiagnosticBag, DiagnosticError
from nldsl.frontend.imports import LoadedProgram, load, load_text
from nldsl.limits import Limits

F = "fn f(x) = x\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the program, in which the tests run."""
    inside = tmp_path / "program"
    inside.mkdir()
    monkeypatch.chdir(inside)
    return inside


def write(path: str, text: str = F) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")


def loaded(path: str = "a.nl", **options: object) -> LoadedProgram:
    bag = DiagnosticBag()
    program = load(path, bag, **options)  # type: ignore[arg-type]
    assert program is not None, [d.message for d in bag]
    return program


def refused(path: str = "a.nl", limits: Limits | None = None) -> list[Diagnostic]:
    bag = DiagnosticBag()
    assert load(path, bag, limits) is None
    assert bag.has_errors
    return list(bag)


def test_one_file() -> None:
    write("a.nl")
    program = loaded()
    assert program.order == ("a.nl",)
    assert program.root == "a.nl"
    assert list(program.files) == ["a.nl"]


def test_each_file_once_and_dependencies_first() -> None:
    write("a.nl", 'from "./sub/b.nl" import f\nimport "./c.nl" as c\nimport "objectives" as o\n')
    write("sub/b.nl", 'from "../c.nl" import f\nfrom "./d.nl" import f\nimport "objectives" as o\n')
    write("sub/d.nl", 'from "../sub/../c.nl" import f\n')
    write("c.nl")
    program = loaded()
    assert program.order[-1] == "a.nl"
    assert set(program.order) >= {"c.nl", str(Path("sub/d.nl")), str(Path("sub/b.nl")), "<stdlib>/objectives.nl"}
    assert len(program.order) == len(set(program.order))
    place = {key: n for n, key in enumerate(program.order)}
    for key, file in program.files.items():
        for item in file.imports:
            target = program.resolve(key, item)
            assert target is not None
            assert place[target] < place[key]


def test_keys_begin_like_the_path_of_the_root(folder: Path) -> None:
    write("sub/a.nl", 'import "./b.nl" as b\n')
    write("sub/b.nl")
    assert loaded("sub/a.nl").order == (str(Path("sub/b.nl")), "sub/a.nl")
    assert loaded(str(folder / "sub/a.nl")).order == (str(folder / "sub/b.nl"), str(folder / "sub/a.nl"))


def test_standard_library() -> None:
    write("a.nl", 'from "memories/delta" import GatedDelta\nimport "objectives" as o\n')
    program = loaded()
    assert "<stdlib>/memories/delta.nl" in program.order
    assert program.files["<stdlib>/memories/delta.nl"].span.file.path == "<stdlib>/memories/delta.nl"


def test_other_roots(tmp_path: Path) -> None:
    write("../shared/lib.nl", 'import "./more.nl" as m\n')
    write("../shared/more.nl")
    write("a.nl", 'import "../shared/lib.nl" as s\n')
    assert [d.code for d in refused()] == ["NL0009"]
    program = loaded("a.nl", roots=("../shared",))
    assert program.order[-1] == "a.nl"
    assert loaded("a.nl", roots=(tmp_path / "shared",)).order[-1] == "a.nl"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("../outside.nl", "NL0009"),
        ("./../outside.nl", "NL0009"),
        ("./sub/../../outside.nl", "NL0009"),
        ("../program/../outside.nl", "NL0009"),
        ("/etc/passwd", "NL0009"),
        ("/etc/passwd.nl", "NL0009"),
        ("~/x.nl", "NL0009"),
        ("C:/x.nl", "NL0009"),
        (".\\\\b.nl", "NL0009"),
        ("./a\\nb.nl", "NL0009"),
        ("./b.nl:stream", "NL0009"),
        ("./.env", "NL0009"),
        ("./b", "NL0009"),
        ("", "NL0009"),
        ("./" + "a/" * 600 + "b.nl", "NL0009"),
        ("./none.nl", "NL0008"),
        ("./none/none.nl", "NL0008"),
        ("./a.nl/b.nl", "NL0008"),
        ("./" + "a" * 300 + ".nl", "NL0001"),
        ("none", "NL0008"),
        ("memories/../../api", "NL0008"),
        ("..", "NL0008"),
        ("memories", "NL0008"),
        ("memories//delta", "NL0008"),
        ("objectives.nl", "NL0008"),
        ("__init__", "NL0008"),
    ],
)
def test_refused_paths(path: str, code: str) -> None:
    write("../outside.nl")
    write("b.nl")
    write(".env", "SECRET=1")
    write("a.nl", f'import "{path}" as x\n')
    (found,) = refused()
    assert found.code == code
    assert found.span.text == f'"{path}"'


def test_links() -> None:
    write("../outside.nl", "SECRET")
    write("inside.nl")
    Path("out.nl").symlink_to("../outside.nl")
    Path("in.nl").symlink_to("inside.nl")
    Path("up").symlink_to("..", target_is_directory=True)
    write("a.nl", 'import "./in.nl" as x\n')
    assert loaded().order == ("inside.nl", "a.nl")
    for path in ("./out.nl", "./up/outside.nl"):
        write("a.nl", f'import "{path}" as x\n')
        (found,) = refused()
        assert found.code == "NL0015"
        assert "SECRET" not in found.message
    Path("loop.nl").symlink_to("loop.nl")
    write("a.nl", 'import "./loop.nl" as x\n')
    assert refused()[0].code in ("NL0001", "NL0015")


def test_hard_links() -> None:
    write("../outside.nl")
    os.link("../outside.nl", "hard.nl")
    write("a.nl", 'import "./hard.nl" as x\n')
    assert [d.code for d in refused()] == ["NL0015"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.timeout(20)
def test_pipes_and_devices() -> None:
    os.mkfifo("pipe.nl")
    write("a.nl", 'import "./pipe.nl" as x\n')
    assert [d.code for d in refused()] == ["NL0015"]
    assert [d.code for d in refused("pipe.nl")] == ["NL0015"]
    assert [d.code for d in refused("/dev/zero")] == ["NL0015"]


def test_a_link_put_there_in_between_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path is resolved, then opened: somebody may change it between the two."""
    write("../outside/b.nl", "SECRET")
    write("sub/b.nl")
    write("a.nl", 'import "./sub/b.nl" as x\n')
    real = os.open

    def swapping(path: object, *args: object, **kwargs: object) -> int:
        if path == "sub" and not Path("sub").is_symlink():
            Path("sub").rename("old")
            Path("sub").symlink_to("../outside", target_is_directory=True)
        return real(path, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", swapping)
    monkeypatch.setattr(os, "supports_dir_fd", os.supports_dir_fd | {swapping})
    (found,) = refused()
    assert found.code == "NL0008"


def test_cycles() -> None:
    write("a.nl", 'import "./b.nl" as b\n')
    write("b.nl", 'import "./c.nl" as c\n')
    write("c.nl", 'import "./b.nl" as b\n')
    (found,) = refused()
    assert found.code == "NL0013"
    assert found.notes == ("the cycle: `b.nl` -> `c.nl` -> `b.nl`",)
    assert [span.file.path for span, _ in found.related] == ["b.nl"]
    write("a.nl", 'import "./a.nl" as a\n')
    (found,) = refused()
    assert (found.code, found.message) == ("NL0013", "a file imports itself")


def test_the_root_by_another_name_is_the_root() -> None:
    write("sub/b.nl", 'import "../a.nl" as a\n')
    write("a.nl", 'import "./sub/b.nl" as b\n')
    assert [d.code for d in refused("./a.nl")] == ["NL0013"]


def test_hints() -> None:
    write("helper.nl")
    write(
        "a.nl", 'import "objective" as o\nimport "./helpr.nl" as h\nimport "helper" as h\nimport "objectives.nl" as p\n'
    )
    hints = [d.hints for d in refused()]
    assert hints == [
        ('did you mean "objectives"?',),
        ("the folder has a `helper.nl`",),
        ('for the file beside this one write "./helper.nl"',),
        ('write "objectives"',),
    ]
    assert refused("helpr.nl")[0].hints == ("the folder has a `helper.nl`",)


def test_mistakes_of_several_files() -> None:
    write("a.nl", 'import "./b.nl" as b\nimport "./c.nl" as c\n')
    write("b.nl", "x = \n")
    write("c.nl", "y = \n")
    assert [(d.code, d.span.file.path) for d in refused()] == [("NL0101", "b.nl"), ("NL0101", "c.nl")]


def test_bounds() -> None:
    for n in range(5):
        write(f"f{n}.nl", f'import "./f{n + 1}.nl" as f\n')
    write("f5.nl", F)
    assert len(loaded("f0.nl").order) == 6
    assert [d.code for d in refused("f0.nl", Limits(files=4))] == ["NL0014"]
    assert [d.code for d in refused("f0.nl", Limits(total_bytes=60))] == ["NL0014"]
    assert [d.code for d in refused("f0.nl", Limits(file_bytes=20))] == ["NL0005"]


def test_a_long_chain_of_imports_needs_no_stack() -> None:
    for n in range(900):
        write(f"f{n}.nl", f'import "./f{n + 1}.nl" as f\n')
    write("f900.nl", F)
    assert len(loaded("f0.nl").order) == 901


def test_files_that_cannot_be_read() -> None:
    Path("folder.nl").mkdir()
    assert [d.code for d in refused("folder.nl")] == ["NL0001"]
    assert [d.code for d in refused("none.nl")] == ["NL0001"]
    assert [d.code for d in refused("")] == ["NL0001"]
    assert [d.code for d in refused("a\0b")] == ["NL0001"]


def test_text() -> None:
    write("b.nl")
    bag = DiagnosticBag()
    program = load_text('import "objectives" as o\nx = 1', "<demo>", bag)
    assert program is not None
    assert program.order[-1] == "<demo>"
    assert load_text('import "./b.nl" as b', "<demo>", bag) is None
    assert [d.code for d in bag] == ["NL0009"]
    program = load_text('import "./b.nl" as b', "<demo>", DiagnosticBag(), roots=(".",))
    assert program is not None
    assert program.order == ("b.nl", "<demo>")
    with pytest.raises(DiagnosticError):
        load_text("x = ")
