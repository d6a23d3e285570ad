"""HTML that is put together from elements: text is escaped, always, where it becomes part of one."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TypeAlias, Union

from hftrace.render.text import clean

VOID = frozenset({"br", "hr", "meta", "rect", "line", "col"})
"""Elements without content."""
DRAWN = frozenset({"rect", "line"})
"""Those of them that are of a picture."""


class Markup(str):
    """Text that is HTML already. Nothing but this module makes one of anything that came from a trace."""

    __slots__ = ()


Content: TypeAlias = Union[str, Iterable["Content"], None]  # noqa: UP007 - it names itself
"""What an element may hold: text, elements, nothing, or several of these."""


def text(value: object) -> Markup:
    """Returns text as HTML: one line, without what steers a terminal or reorders it, escaped."""
    return Markup(html.escape(clean(value)))


def join(content: Content) -> Markup:
    """Returns content as HTML."""
    if content is None:
        return Markup("")
    if isinstance(content, Markup):
        return content
    if isinstance(content, str):
        return text(content)
    return Markup("".join(map(join, content)))


def tag(name: str, *content: Content, **attributes: object) -> Markup:
    """Returns an element.

    Args:
        name: Of the element.
        *content: What is in it.
        **attributes: By their names, ``class_`` and ``data_id`` for ``class`` and ``data-id``; one that is
            None or False is left out, and one that is True stands without a value.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{text(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID:
        # In a picture an element that is not closed holds all that follow.
        return Markup(f"<{name}{written}{'/' if name in DRAWN else ''}>")
    return Markup(f"<{name}{written}>{join(content)}</{name}>")


def table(
    titles: Sequence[str],
    rows: Iterable[Sequence[Content]],
    right: Sequence[bool],
    *,
    caption: str,
    class_: str = "",
) -> Markup:
    """Returns a table.

    Args:
        titles: Of its columns; where all are empty there is no head.
        rows: Their cells. The first one of each is its heading.
        right: Which columns are numbers.
        caption: What it shows, for those who hear it.
        class_: Of the element.
    """
    kinds = ["n" if number else None for number in right]
    head = tag(
        "tr", [tag("th", title, scope="col", class_=kind) for title, kind in zip(titles, kinds, strict=True)]
    )
    body = [
        tag(
            "tr",
            [
                tag("th", cell, scope="row", class_=kind) if not at else tag("td", cell, class_=kind)
                for at, (cell, kind) in enumerate(zip(row, kinds, strict=True))
            ],
        )
        for row in rows
    ]
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption),
            tag("thead", head) if any(titles) else None,
            tag("tbody", body),
            class_=class_ or None,
        ),
        class_="scroll",
    )


def section(identity: str, title: str, *content: Content, note: Content = None) -> Markup:
    """Returns a part of the page with its heading, and a note beside that."""
    heading = tag("h2", title, tag("small", note) if note else None)
    return tag("section", heading, *content, id=identity, aria_label=title)


def remarks(said: Sequence[str]) -> Markup | None:
    """Returns what is to be said below a picture or a table; None for nothing."""
    return tag("ul", [tag("li", each) for each in said], class_="remarks") if said else None
