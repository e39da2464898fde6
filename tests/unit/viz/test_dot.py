from __future__ import annotations

import re
from typing import Any

import pytest

from nldsl.diagnostics import DiagnosticError
from nldsl.semantics.level_graph import build_level_graph
from nldsl.viz.dot import dot
from nldsl.viz.mermaid import mermaid
from nldsl.viz.model_explorer import model_explorer
from nldsl.viz.text import text
from tests.conftest import Golden
from tests.unit.viz.programs import hope

GRAPH = build_level_graph(hope(2, momentum=True))


def test_dot(golden: Golden) -> None:
    golden(dot(GRAPH), ".dot")


def test_text(golden: Golden) -> None:
    golden(text(GRAPH))


def test_mermaid(golden: Golden) -> None:
    golden(mermaid(GRAPH), ".mmd")


def test_text_in_ascii() -> None:
    shown = text(GRAPH, ascii_only=True)
    assert shown.isascii()
    assert "<- generation" in shown


def test_text_is_not_wide() -> None:
    assert max(map(len, text(GRAPH).splitlines())) <= 104


def test_dot_says_the_same_every_time() -> None:
    assert dot(build_level_graph(hope(3))) == dot(build_level_graph(hope(3)))


def test_dot_has_no_attribute_that_links_or_loads() -> None:
    found = set(re.findall(r"(\w+)=", re.sub(r"<<.*?>>|\"[^\"]*\"", "", dot(GRAPH))))
    assert not found & {
        "URL",
        "href",
        "edgeURL",
        "headURL",
        "labelURL",
        "image",
        "shapefile",
        "stylesheet",
        "imagepath",
    }


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "graphviz", None)
    with pytest.raises(DiagnosticError) as caught:
        dot(GRAPH)
    assert 'pip install "nldsl-compiler[viz]"' in caught.value.diagnostics[0].hints[0]


def test_model_explorer_is_whole() -> None:
    (graph,) = model_explorer(GRAPH)["graphs"]
    nodes: list[dict[str, Any]] = graph["nodes"]
    ids = {n["id"] for n in nodes}
    assert len(ids) == len(nodes) == len(GRAPH.nodes)
    assert all(e["sourceNodeId"] in ids for n in nodes for e in n["incomingEdges"])
    mk = next(n for n in nodes if n["label"] == "mk")
    assert mk["namespace"] == "every token/layers/0/memory"
