"""The file as a whole: the template with its parts in their places, and what the browser may do with it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any

from hftrace._version import __version__
from hftrace.export.page.data import script_json
from hftrace.export.page.markup import Markup, join, tag, text

STYLES = ("page.css", "figures.css")
SCRIPTS = (
    "base.js",
    "charts.js",
    "lanes.js",
    "memory.js",
    "timeline.js",
    "tree.js",
    "grid.js",
    "behind.js",
    "map.js",
    "main.js",
)
"""What the page's style and its script are made of, in this order: each file is a subject."""
_MARK = re.compile("%%([a-z]+)%%")


def document(title: str, sections: Sequence[tuple[str, str, Markup | None]], data: Any, footer: str) -> str:
    """Returns the page.

    Args:
        title: Of the window.
        sections: Id, name in the table of contents (empty for none) and content of each part; None for a
            part that has nothing to show.
        data: What the script draws.
        footer: The last line.
    """
    shown = [each for each in sections if each[2] is not None]
    style, script = _assets(STYLES), _assets(SCRIPTS)
    links = [tag("a", name, href=f"#{identity}") for identity, name, _ in shown if name]
    places = {
        "policy": text(
            f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
            "base-uri 'none'; form-action 'none'"
        ),
        "generator": text(f"hftrace {__version__}"),
        "title": text(title),
        "style": style,
        "nav": tag("nav", tag("b", "hftrace"), links, aria_label="Parts of this page"),
        "body": "\n".join(join(content) for _, _, content in shown),
        "footer": text(footer),
        "data": script_json(data),
        "script": script,
    }
    # All in one pass: what was put in is never looked at again, so that no name can be a mark.
    return _MARK.sub(lambda match: places[match[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return (files(__package__) / name).read_text("utf-8")


def _assets(names: Iterable[str]) -> str:
    return "\n".join(map(_asset, names))


def _digest(content: str) -> str:
    """Returns what the policy allows: this very text and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def canvas_section(identity: str, title: str, note: str) -> Markup:
    """Returns the place of something that the script draws."""
    return tag(
        "section",
        tag("h2", title, tag("small", note)),
        tag("div", class_="drawn script"),
        tag("noscript", tag("p", "This part is drawn by the script of this page.", class_="quiet")),
        id=identity,
        aria_label=title,
    )
