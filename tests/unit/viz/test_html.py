"""The page: complete in itself, its policy names what is in it, its data describes what is drawn."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nldsl.semantics.level_graph import build_level_graph
from nldsl.viz.html import page
from nldsl.viz.palette import DARK, LIGHT, LINKS, level_colors
from nldsl.viz.scene import SceneOptions
from nldsl.viz.timeline import timeline, token_counts
from tests.unit.viz.programs import hope

pytest.importorskip("pygraphviz")
PROGRAM = hope(3, momentum=True)
PAGE = page(build_level_graph(PROGRAM))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def data() -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', PAGE, re.DOTALL)
    assert found
    value: dict[str, Any] = json.loads(found[1])
    return value


def test_nothing_comes_from_elsewhere() -> None:
    assert not re.search(r"(src|href|action)\s*=", re.sub(r"<script.*?</script>", "", PAGE, flags=re.DOTALL))
    addresses = set(re.findall(r"https?://[^\s\"'<>)]+", PAGE))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert "import" not in re.findall(r"^\s*(\w+)", PAGE, re.MULTILINE)
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|fetch\(|XMLHttp", PAGE)


def test_the_policy_allows_what_is_there_and_nothing_else() -> None:
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', PAGE)
    assert policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    for kind, tag in (("style-src", "style"), ("script-src", "script")):
        (body,) = re.findall(rf"<{tag}>(.*?)</{tag}>", PAGE, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert rules[kind] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'"
    assert not re.search(r"<[^>]*\sstyle=", PAGE)


def test_data_describes_the_picture() -> None:
    found = data()
    for name, count in (("b", len(found["boxes"])), ("e", len(found["edges"])), ("lane", len(found["lanes"]))):
        assert {f'id="{name}{n}"' for n in range(count)} <= set(re.findall(rf'id="{name}\d+"', PAGE))
    ids = {n["id"] for n in found["graph"]["nodes"]}
    assert {b["node"] for b in found["boxes"] if b["node"]} == ids
    assert set(found["used"]) <= set(LINKS)
    assert {"direct", "nonparametric", "backprop", "initialization", "generation"} <= set(found["used"])


def test_colours_are_named_not_written() -> None:
    picture = PAGE[PAGE.index("<svg") : PAGE.index("</svg>")]
    assert set(re.findall(r'(?:fill|stroke)="([^"]+)"', picture)) <= {"none", "transparent"}


def test_timeline() -> None:
    rows = timeline(build_level_graph(PROGRAM))
    assert [(r["kind"], r["period"]) for r in rows] == [
        ("nonparametric", 0), ("token", 1), ("token", 1), ("token", 16), ("step", 1), ("step", 4), ("step", 16),
    ]  # fmt: skip
    assert [a["period"] for r in rows for a in r["anchors"]] == [16, 64]
    assert rows[2]["resets"] == [{"period": 64, "of": ["m"]}]
    assert token_counts(build_level_graph(PROGRAM)) == [128, 512, 2048]


def test_updates_are_explained() -> None:
    pytest.importorskip("nldsl.explain")
    text = page(build_level_graph(PROGRAM), PROGRAM)
    assert re.search(r'"updates":\{"[^}]*layers\.0\.memory\.mk\.W1":"[^"]+', text)


def test_collapsed_levels_are_in_the_page() -> None:
    text = page(build_level_graph(PROGRAM), None, SceneOptions(collapsed=frozenset({"slow"})))
    assert '"kind":"level"' in text


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_text_can_be_read(theme: Any) -> None:
    """Contrast of WCAG AA on cards and lanes; the lanes' order shows in their lightness or hue, not by one channel."""
    for position in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        accent, tint = level_colors(position, theme)
        assert contrast(theme.ink, tint) > 7
        assert contrast(theme.muted, tint) > 4
        assert contrast(accent, theme.card) > 3
    assert contrast(theme.muted, theme.card) > 4.5


def contrast(a: str, b: str) -> float:
    def light(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    high, low = sorted((light(a), light(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium")
def test_in_a_browser(tmp_path: Path) -> None:
    """The script runs under the page's own policy, without a message in the console."""
    file = tmp_path / "page.html"
    file.write_text(PAGE, encoding="utf-8")
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=3000 --dump-dom"
    ).split()
    assert CHROMIUM
    command = [CHROMIUM, *flags, f"--user-data-dir={tmp_path}/profile", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "CONSOLE" not in done.stderr
    assert 'class="pill' in done.stdout
    assert done.stdout.count("<canvas") == 2
    assert 'aria-label="Level every token · 1 of 2"' in done.stdout
