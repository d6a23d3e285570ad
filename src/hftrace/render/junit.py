"""Budgets as a JUnit file, which CI systems show as tests: a suite for each trace, a case for each budget."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from hftrace.render.budgets import Checked, amount, sentence
from hftrace.render.text import clean
from hftrace.schema.redact import redact

_NO_XML = re.compile("[\ufffe\uffff]")
"""What XML cannot carry, besides the control characters and surrogates that no name is printed with."""


def junit(checked: Sequence[Checked], allow_unknown: bool = False) -> str:
    """Returns a JUnit document.

    Args:
        checked: The traces.
        allow_unknown: Whether a budget that a trace does not say is skipped, and not failed.
    """
    root = ElementTree.Element("testsuites", {"name": "hftrace check"})
    for each in checked:
        suite = ElementTree.SubElement(root, "testsuite", {"name": _text(each.path)})
        if each.problem is not None:
            error = ElementTree.SubElement(_case(suite, each.path, "load"), "error")
            error.set("message", _text(each.problem))
        for result in each.results:
            case = _case(suite, each.path, f"{result.option} {result.name}")
            if result.status == "ok":
                found, asked = amount(result, result.found), amount(result, result.maximum)
                ElementTree.SubElement(case, "system-out").text = _text(f"{found}, asked {asked}")
                continue
            skipped = result.status == "unknown" and allow_unknown
            ElementTree.SubElement(case, "skipped" if skipped else "failure").set(
                "message", _text(sentence(result))
            )
        if each.caveats:
            said = "\n".join(_text(caveat.text) for caveat in each.caveats)
            ElementTree.SubElement(suite, "system-err").text = said
        _count(suite)
    _count(root)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _case(suite: ElementTree.Element, path: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", {"classname": _text(path), "name": _text(name)})


def _count(element: ElementTree.Element) -> None:
    for name, tag in (
        ("tests", "testcase"),
        ("failures", "failure"),
        ("errors", "error"),
        ("skipped", "skipped"),
    ):
        element.set(name, str(sum(1 for _ in element.iter(tag))))


def _text(text: str) -> str:
    return _NO_XML.sub("", clean(redact(text)))
