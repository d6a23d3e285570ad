"""Rules about what a load failed for: files that are not whole, and what was asked for and is not there."""

from __future__ import annotations

from collections.abc import Iterator

from hftrace import units
from hftrace.analysis.ending.culprits import absent
from hftrace.analysis.ending.damage import (
    damage_facts,
    damage_remedy,
    damage_sentence,
    damaged_rows,
    is_other_format,
)
from hftrace.analysis.ending.words import not_there_sentence
from hftrace.analysis.findings.rules import Finding, Where, first_few, rule
from hftrace.schema.trace import Trace

MAX_NAMES = 3


@rule(
    (
        "R47",
        "damaged-files",
        "Files of the checkpoint are cut off, empty, missing, or not what their name says.",
    ),
    concerns="ending",
    severity="error",
)
def damaged(trace: Trace) -> Iterator[Finding]:
    """R47: files that were not whole when a load failed."""
    rows = damaged_rows(trace)
    if not rows:
        return
    found = [damage_facts(trace, row) for row in rows]
    name = str(trace.files[rows[0]].name)
    missing = all(each["problem"] == "missing" for each in found)
    other = all(is_other_format(each) for each in found)
    what = "is not there" if missing else "is not what its name says" if other else "is not whole"
    title = f"{name} {what}"
    if len(rows) > 1:
        are = "are not there" if missing else "are not what their names say" if other else "are not whole"
        title = f"{units.count(len(rows), 'file')} {are}, {name} among them"
    rest = f"; and {len(found) - MAX_NAMES:,} more" if len(found) > MAX_NAMES else ""
    yield Finding(
        "R47",
        "damaged-files",
        title,
        f"{'; '.join(damage_sentence(each) for each in found[:MAX_NAMES])}{rest}.",
        _sentence("; ".join(dict.fromkeys(damage_remedy(each) for each in found))),
        view="files",
        numbers={"files": len(rows)},
        where=Where(files=first_few(str(trace.files[row].name) for row in rows)),
    )


@rule(
    ("R48", "not-there", "The folder, repository, revision or variant that was asked for does not exist."),
    concerns="ending",
    severity="error",
)
def not_there(trace: Trace) -> Iterator[Finding]:
    """R48: what was asked for and is not there."""
    if trace.outcome.get("status") != "error":
        return
    for piece in absent(trace):
        said, _, advice = not_there_sentence(piece).partition(": ")
        yield Finding("R48", "not-there", _capital(said), f"{_capital(said)}.", _sentence(advice))


def _capital(text: str) -> str:
    """Returns a sentence as it begins; a name stays what it is."""
    return text[:1].upper() + text[1:] if text.startswith("there is") else text


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
