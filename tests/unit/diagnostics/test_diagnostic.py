"""The finding itself, and the bag that collects findings."""

from __future__ import annotations

import json

import pytest

from nldsl.diagnostics import Diagnostic, DiagnosticBag, DiagnosticError, Severity
from nldsl.source import NO_SPAN, SourceFile

FILE = SourceFile("a.nl", "one\ntwo\n")


def test_to_json_is_json() -> None:
    finding = Diagnostic("NL0301", "m", FILE.span(4, 7), "l", ((FILE.span(0, 3), "r"),), ("n",), ("h",))
    assert json.loads(json.dumps(finding.to_json())) == {
        "code": "NL0301",
        "severity": "error",
        "message": "m",
        "span": {"file": "a.nl", "start": 4, "end": 7, "line": 2, "column": 1, "end_line": 2, "end_column": 4},
        "label": "l",
        "related": [
            {
                "span": {"file": "a.nl", "start": 0, "end": 3, "line": 1, "column": 1, "end_line": 1, "end_column": 4},
                "message": "r",
            }
        ],
        "notes": ["n"],
        "hints": ["h"],
    }
    assert Diagnostic("NL0301", "m", NO_SPAN).to_json()["span"] is None


def test_bag_tells_each_finding_once_and_in_order() -> None:
    bag = DiagnosticBag()
    bag.error("NL0302", FILE.span(4, 5), "late")
    bag.warning("NL0303", FILE.span(0, 1), "early")
    bag.error("NL0302", FILE.span(4, 5), "late", label="seen by another rule")
    assert [d.message for d in bag] == ["early", "late"]
    assert len(bag) == 2
    assert bag.has_errors


def test_warnings_do_not_stop() -> None:
    bag = DiagnosticBag()
    bag.warning("NL0303", FILE.span(0, 1), "early")
    bag.raise_if_errors()
    assert not bag.has_errors


def test_raise_if_errors_carries_everything() -> None:
    bag = DiagnosticBag()
    bag.warning("NL0303", FILE.span(0, 1), "early")
    bag.error("NL0302", FILE.span(4, 5), "late")
    with pytest.raises(DiagnosticError) as caught:
        bag.raise_if_errors()
    assert [d.code for d in caught.value.diagnostics] == ["NL0303", "NL0302"]
    assert str(caught.value) == "a.nl:1:1: warning[NL0303]: early\na.nl:2:1: error[NL0302]: late"


def test_full_bag_drops_but_never_the_first_error() -> None:
    bag = DiagnosticBag(limit=2)
    for i in range(4):
        bag.warning("NL0303", FILE.span(i, i + 1), "w")
    assert bag.is_full
    bag.error("NL0302", FILE.span(4, 5), "first")
    bag.error("NL0302", FILE.span(5, 6), "second")
    assert [d.severity for d in bag] == [Severity.WARNING, Severity.WARNING, Severity.ERROR]
    assert bag.dropped == 3


def test_extend() -> None:
    bag = DiagnosticBag()
    finding = Diagnostic("NL0301", "m", NO_SPAN)
    bag.extend([finding, finding])
    assert bag.diagnostics == (finding,)


def test_error_takes_one_or_several() -> None:
    finding = Diagnostic("NL0301", "m", NO_SPAN)
    assert DiagnosticError(finding).diagnostics == DiagnosticError([finding]).diagnostics
