"""Which findings are wanted: by rule, by name, and by how much they matter."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from hftrace.analysis.findings.registry import catalogue, show_only
from hftrace.analysis.findings.rules import SEVERITIES, Finding
from hftrace.errors import UsageError
from hftrace.schema.trace import Trace


class Elsewhere(NamedTuple):
    """A rule of the catalogue of cases that others tell."""

    name: str
    rules: tuple[str, ...]


TOLD_BY = {"R21": Elsewhere("overwritten-or-mis-tied", ("R27", "R30", "R38", "R42", "R43"))}
"""Rules that have no finding of their own: who asks for one of them asks for those."""


@dataclass(frozen=True)
class Choice:
    """What is chosen of the findings; everything where nothing is said.

    Args:
        select: Rules and names; empty for all.
        ignore: Rules and names that are left out, selected or not.
        severity: The least of :data:`SEVERITIES`.
    """

    select: frozenset[str] = frozenset()
    ignore: frozenset[str] = frozenset()
    severity: str = SEVERITIES[-1]

    def takes(self, finding: Finding) -> bool:
        """Returns whether a finding is chosen."""
        words = {finding.rule, finding.name}
        return (
            (not self.select or bool(words & self.select))
            and not words & self.ignore
            and at_least(finding.severity, self.severity)
        )


def at_least(severity: str, least: str) -> bool:
    """Returns whether a severity is another one, or worse."""
    return SEVERITIES.index(severity) <= SEVERITIES.index(least)


def choose(trace: Trace, choice: Choice) -> None:
    """Lets everything that is drawn or printed of a trace show the chosen findings alone."""
    if choice != Choice():
        show_only(trace, choice.takes)


def split_words(texts: Iterable[str]) -> list[str]:
    """Returns the words of options that take several, such as ``r02,unused-keys``."""
    return [word.strip() for text in texts for word in text.split(",") if word.strip()]


def rule_words(texts: Iterable[str]) -> frozenset[str]:
    """Returns the rules and names that texts such as ``r02,unused-keys`` mean.

    Raises:
        UsageError: There is no such rule.
    """
    return frozenset(each for word in split_words(texts) for each in meant(rule_word(word)))


def rule_word(text: str) -> str:
    """Returns a rule's id or a finding's name as it is written, whatever its case.

    Raises:
        UsageError: There is no such rule.
    """
    found = known_word(text)
    if found is None:
        near = difflib.get_close_matches(text.strip().lower(), [kind.name for kind in catalogue()], n=1)
        hint = f", did you mean {near[0]}?" if near else ":"
        raise UsageError(f"there is no rule {text.strip()!r}{hint} 'hftrace explain' lists all")
    return found


def known_word(text: str) -> str | None:
    """Returns a rule's id or a finding's name as it is written; None where there is none."""
    words = {word.lower(): word for kind in catalogue() for word in (kind.id, kind.name)}
    for rule, elsewhere in TOLD_BY.items():
        words[rule.lower()] = words[elsewhere.name] = rule
    return words.get(text.strip().lower())


def meant(word: str) -> frozenset[str]:
    """Returns the rules or the name that findings have, of a word that is known: others may tell a rule."""
    return frozenset(TOLD_BY[word].rules) if word in TOLD_BY else frozenset({word})
