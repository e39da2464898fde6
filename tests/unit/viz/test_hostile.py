"""Names chosen to break out of a picture: all of them arrive as text, in every format."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import product
from xml.etree import ElementTree

import pytest

from nldsl.ir.program import Initializer, InputDecl, Level, MemoryInfo, ParamDecl, Program, StateDecl
from nldsl.ir.types import Type
from nldsl.semantics.level_graph import build_level_graph
from nldsl.viz.dot import dot, svg
from nldsl.viz.escape import plain
from nldsl.viz.html import page
from nldsl.viz.mermaid import mermaid
from nldsl.viz.scene import SceneOptions
from nldsl.viz.text import text
from tests.unit.viz.programs import Sketch

pygraphviz = pytest.importorskip("pygraphviz")

_CORES = (
    "a\"]; evil [URL=\"javascript:alert(1)\"", "<script>alert(1)</script>", "</script><script>alert(1)//",
    "<img src=x onerror=alert(1)>", "<IMG SRC='file:///etc/passwd'/>", "\"><svg onload=alert(1)>",
    "javascript:alert(1)", "<TD", "]]><!--", "--><b>", "&lt;b&gt;", "&#60;script&#62;", "\\N\\G\\E\\T\\H\\l",
    "<B>bold</B>", "<<TABLE HREF='x'>>", "}\ndigraph { x", "{{data}}", "{{script}}", "${alert(1)}", "`;alert(1)//",
    "';alert(1)//", "%3Cscript%3E", "\u202etxt.exe", "end\nclick b0 href \"javascript:alert(1)\"", "b0 --> b1",
    "url(javascript:1)", "<!DOCTYPE x [<!ENTITY a 'b'>]>&a;",
)  # fmt: skip
_AROUND = (("", ""), ("<", ">"), ('"', '"'), ("'", "'"), (" ", "\x00"), ("\\", "\\"), ("x" * 80, ""), ("{", "}"),
           ("[", "]"), ("(", ")"), ("<!--", "-->"), ("<![CDATA[", "]]>"), ("&", ";"), ("#", ";"), ("|", "|"),
           ("\u2028", "\u2029"), ("/*", "*/"), ("\n", "\r\n"), ("%", "%"))  # fmt: skip
PAYLOADS = [before + core + after for core, (before, after) in product(_CORES, _AROUND)]
BATCHES = [PAYLOADS[n : n + 60] for n in range(0, len(PAYLOADS), 60)]
KNOWN = set(
    "arrowhead arrowsize arrowtail class color dir fillcolor fixedsize fontname fontsize height id label lp margin "
    "penwidth pos shape style width".split()
)
ONE_LANE = SceneOptions(fold=False, limit=1000)


def hostile(names: list[str]) -> Program:
    """Every place where a name goes, filled with hostile ones."""
    s = Sketch(names[0])
    s.levels = [Level(names[1], "step", 3, optimizer_name=names[2])]
    memories = []
    for n, name in enumerate(names):
        owner = name.replace(".", "_") or "x"
        shape = Type((3,))
        x = s.body.leaf("input", shape, name=name, input=name)
        s.inputs.append(InputDecl(name, shape))
        w = s.body.leaf("param", shape, name=name, param=f"{owner}.p{n}")
        s.params.append(ParamDecl(f"{owner}.p{n}", shape, Initializer("values", (name,)), names[1], owner))
        old = s.body.leaf("state", shape, name=name, state=f"{owner}.s{n}")
        init = s.init.emit("broadcast", s.init.const(0.0), shape=(3,))
        s.states.append(StateDecl(f"{owner}.s{n}", shape, init, owner=owner))
        s.updates[f"{owner}.s{n}"] = s.op("add", s.op("mul", old, w, name=name), x, name=name)
        s.outputs.append((name, s.op("mul", old, x)))
        memories.append(MemoryInfo(owner, name, "memory"))
    s.losses = [(names[3], s.op("sum", s.outputs[0][1], dims=(0,)))]
    s.memories = memories
    return s.done()


class Seen(HTMLParser):
    """Tags, attributes and the texts of script elements."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.values: list[str] = []
        self.scripts: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.values += [value or "" for _, value in attrs]
        self._inside = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts.append(data)


def test_there_are_enough() -> None:
    assert len(set(PAYLOADS)) >= 500


@pytest.mark.parametrize("batch", range(len(BATCHES)))
def test_svg(batch: int) -> None:
    names = BATCHES[batch]
    drawn = svg(build_level_graph(hostile(names)), ONE_LANE)
    root = ElementTree.fromstring(drawn)
    tags = {e.tag.removeprefix("{http://www.w3.org/2000/svg}") for e in root.iter()}
    assert tags <= {"svg", "g", "path", "polygon", "polyline", "ellipse", "text", "title"}
    attributes = {name for e in root.iter() for name in e.attrib}
    assert not {a for a in attributes if "href" in a.lower() or a.startswith("on") or a == "style"}
    assert not [v for e in root.iter() for v in e.attrib.values() if "javascript" in v or "url" in v or "file:" in v]
    texts = {"".join((e.text or "").split()) for e in root.iter() if e.tag.endswith("}text")}
    shown = {"".join(plain(name, 24).replace("\\", "∖").split()) for name in names}
    assert not shown - texts  # an input shows the first characters of its name, as they are


@pytest.mark.parametrize("batch", range(0, len(BATCHES), 3))
def test_page(batch: int) -> None:
    program = hostile(BATCHES[batch])
    text = page(build_level_graph(program), None, ONE_LANE)
    seen = Seen()
    seen.feed(text)
    assert seen.tags.count("script") == 2
    assert not set(seen.tags) & {
        "iframe",
        "object",
        "embed",
        "link",
        "base",
        "form",
        "img",
        "image",
        "a",
        "use",
        "foreignobject",
    }
    assert not {
        a for a in seen.attributes if a.startswith("on") or a in ("href", "src", "xlink:href", "action", "style")
    }
    assert not [v for v in seen.values if re.match(r"\s*(javascript|data|https?|file):", v) and not v.endswith("/svg")]
    data, script = seen.scripts
    assert not set("<>&") & set(data)
    assert json.loads(data)["graph"]["name"] == BATCHES[batch][0]
    assert not any(name in script for name in BATCHES[batch] if len(name) > 24)


@pytest.mark.parametrize("batch", range(0, len(BATCHES), 3))
def test_dot_mermaid_and_text(batch: int) -> None:
    graph = build_level_graph(hostile(BATCHES[batch]))
    parsed = pygraphviz.AGraph(string=dot(graph, ONE_LANE))
    for thing in (*parsed.nodes(), *parsed.edges()):
        assert set(thing.attr) <= KNOWN
        assert not [v for k, v in thing.attr.items() if k != "label" and ("alert" in v or "script" in v)]
    assert all(re.fullmatch(r"[bh]\d+|g\d+[abt]", name) for name in parsed.nodes())
    for line in mermaid(graph, ONE_LANE).splitlines():
        outside = re.sub(r'"[^"]*"', "", line)
        assert "alert" not in outside
        assert not line.strip().startswith("click")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e\u2028]", text(graph, ONE_LANE))
