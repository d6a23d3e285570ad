"""What the session of each group went into: its loads together, and what lies outside of them by name."""

from __future__ import annotations

from collections.abc import Iterable

from hftrace import units
from hftrace.analysis.compare.comparison import Comparison
from hftrace.analysis.time.session import Part
from hftrace.render.compare.columns import side_by_side
from hftrace.render.compare.options import CompareOptions
from hftrace.render.session import part_words
from hftrace.render.text import DIM, PLAIN, Block, Line, heading, notes, wrap

LIMIT = 40
"""Parts that have a row of their own."""


def draw(comparison: Comparison, options: CompareOptions) -> list[Block]:
    """Returns what the session of each group went into, one column for each group."""

    def lines(width: int) -> Iterable[Line]:
        yield heading("Sessions", width)
        longest: dict[Part, int] = {}
        for variant in comparison.variants:
            for part, spent in variant.session_parts.items():
                longest[part] = max(abs(spent), longest.get(part, 0))
        if not longest:
            for text in wrap("no group has a session: each is a load alone, or an older trace", width):
                yield [(text, DIM)]
            return
        ordered = sorted(longest, key=lambda part: -longest[part])
        command = comparison.baseline.typical.header.get("command")
        named: dict[str, list[Part]] = {}
        for part in ordered[:LIMIT]:
            named.setdefault(part_words(part, command), []).append(part)
        rest = f"{len(ordered) - LIMIT:,} more"
        rows = [*named, rest] if len(ordered) > LIMIT else list(named)

        def spent_in(parts: dict[Part, int], words: str) -> int | None:
            if not parts:
                return None
            if words in named:
                return sum(parts.get(part, 0) for part in named[words])
            return sum(parts.get(part, 0) for part in ordered[LIMIT:])

        yield from side_by_side(
            comparison,
            [(words, "", PLAIN) for words in rows],
            lambda variant, words: spent_in(variant.session_parts, words),
            units.duration,
            units.signed_duration,
            width,
        )
        yield from notes(["of the run in the middle by the wall time of its session"], width)

    return [Block(lines)]
