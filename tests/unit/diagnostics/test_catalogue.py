"""Pages of the catalogue, read."""

from __future__ import annotations

import pytest

from nldsl.diagnostics.catalogue import all_codes, lookup, parse_entry

PAGE = """\
# A title

What it means.

```text bad
wrong
```

```text fixed
right
```
"""


def test_page() -> None:
    entry = parse_entry("NL0301", PAGE)
    assert (entry.code, entry.title, entry.explanation) == ("NL0301", "A title", "What it means.")
    assert (entry.bad, entry.fixed, entry.runnable) == ("wrong\n", "right\n", False)
    assert entry.group == "shapes and types"
    assert parse_entry("NL0301", PAGE.replace("```text", "```nl")).runnable


@pytest.mark.parametrize(
    "page",
    [
        PAGE.replace("# A title", "A title"),
        PAGE.replace("What it means.", ""),
        PAGE.replace("text fixed", "text bad"),
        PAGE.replace("text fixed", "nl fixed"),
        "# A title\n\nWhat it means.\n",
    ],
)
def test_a_page_that_lacks_a_part_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="NL0301"):
        parse_entry("NL0301", page)


def test_lookup() -> None:
    entry = lookup("nl0900")
    assert entry is not None
    assert entry.code == "NL0900"
    assert "NL0900" in all_codes()


@pytest.mark.parametrize("code", ["NL9999", "../codes/NL0900", "NL0900.md", ""])
def test_lookup_of_no_code(code: str) -> None:
    assert lookup(code) is None
