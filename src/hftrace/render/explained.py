"""What a rule means, on the screen: its page, or all rules in a list."""

from __future__ import annotations

from collections.abc import Iterable

from hftrace.analysis.findings.choice import TOLD_BY
from hftrace.analysis.findings.explained import PARTS, Explanation, explanations
from hftrace.render.text import BAD, DIM, PLAIN, STRONG, WARN, Block, Line, fit, heading, wrap

STYLES = {"error": BAD, "warning": WARN, "info": DIM}
NAME, SEVERITY = 23, 9


def page(explained: Explanation) -> Block:
    """Returns the page of a rule."""
    return Block(lambda width: _page(explained, width))


def _page(explained: Explanation, width: int) -> Iterable[Line]:
    yield heading(explained.rule if explained.kinds else explained.title, width)
    for kind in explained.kinds:
        yield [(f"{kind.name}, {kind.severity}", STYLES[kind.severity])]
        for part in wrap(kind.meaning, width - 2):
            yield [("  " + part, PLAIN)]
    titles = {key: title for title, key in PARTS.items()}
    for key, text in explained.parts().items():
        if text is not None:
            yield []
            yield [(titles[key], STRONG)]
            for part in wrap(text.replace("`", ""), width - 2):
                yield [("  " + part, PLAIN)]


def names(explained: Explanation) -> list[str]:
    """Returns what a rule can find, as its id and a name each."""
    if not explained.kinds:
        return [f"{explained.rule}  {TOLD_BY[explained.rule].name}"]
    return [f"{kind.id}  {kind.name}" for kind in explained.kinds]


def overview() -> Block:
    """Returns all that the rules can find, one a line."""
    return Block(_overview)


def _overview(width: int) -> Iterable[Line]:
    yield heading("Rules", width, "hftrace explain RULE says more of one")
    for each in explanations():
        for kind in each.kinds:
            head: Line = [
                (f"{kind.id}  ", STRONG),
                (fit(kind.severity, SEVERITY), STYLES[kind.severity]),
                (fit(kind.name, NAME), PLAIN),
            ]
            for part in wrap(kind.meaning, width - NAME - SEVERITY - 5):
                yield [*head, (part, DIM)]
                head = [(" " * (NAME + SEVERITY + 5), PLAIN)]
        if not each.kinds:
            yield [(f"{each.rule}  ", STRONG), (f"{'':{SEVERITY}}{TOLD_BY[each.rule].name}", DIM)]
