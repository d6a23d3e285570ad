"""The page of each rule: cause, how it looks, what mends it, and where it was seen.

They are the files ``pages/RULE.md`` beside this module, in the package and in the documentation alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import Any, NamedTuple

from hftrace.analysis.findings.choice import TOLD_BY, rule_word
from hftrace.analysis.findings.registry import catalogue
from hftrace.analysis.findings.rules import FindingKind


class Explanation(NamedTuple):
    """What there is to say about one rule."""

    rule: str
    kinds: list[FindingKind]
    """What it can find; empty where other rules tell it."""
    page: str
    """Paragraphs of Markdown, each of which begins with its title: ``**Cause.** ...``."""

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON values."""
        kinds = [
            {
                "name": kind.name,
                "severity": kind.severity,
                "concerns": kind.concerns,
                "meaning": kind.meaning,
            }
            for kind in self.kinds
        ]
        return {"rule": self.rule, "findings": kinds, **self.parts()}

    @property
    def title(self) -> str:
        """The rule with the names of what it finds."""
        return f"{self.rule} {', '.join(kind.name for kind in self.kinds) or TOLD_BY[self.rule].name}"

    def parts(self) -> dict[str, str | None]:
        """Returns the paragraphs by their keys in :data:`PARTS`; None where there is none."""
        found: dict[str, str | None] = dict.fromkeys(PARTS.values())
        for paragraph in self.page.strip().split("\n\n"):
            title, _, text = paragraph.removeprefix("**").partition(".** ")
            found[PARTS[title]] = text
        return found


PARTS = {"Cause": "cause", "How it looks": "looks", "Fix": "fix", "Seen in": "cases"}
"""Titles of the paragraphs of a page, and their keys in JSON."""


def explanation(text: str) -> Explanation:
    """Returns the page of a rule.

    Args:
        text: Its id, or the name of something that it finds.

    Raises:
        UsageError: There is no such rule.
    """
    word = rule_word(text)
    by_name = {kind.name: kind.id for kind in catalogue()}
    rule = by_name.get(word, word)
    page = (files(__package__) / "pages" / f"{rule}.md").read_text(encoding="utf-8")
    return Explanation(rule, [kind for kind in catalogue() if kind.id == rule], page)


def explanations() -> Iterator[Explanation]:
    """Yields the pages of all rules, in order."""
    for rule in sorted({*(kind.id for kind in catalogue()), *TOLD_BY}):
        yield explanation(rule)
