"""How the site is built: ``python -m sphinx docs docs/_build/html`` (or ``nox -s docs``).

Sphinx with MyST, because its pages are the Markdown that a code host shows as well, its
references to Python names and between pages are checked, and it builds without a network.
Every warning is an error here, whoever calls it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from hftrace import __version__ as release  # noqa: E402 (the source beside these pages, installed or not)
from hftrace.analysis.findings.explained import explanations  # noqa: E402

URLS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]

project = "hftrace"
author = "The hftrace authors"
version = release
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_extra_path = ["llms.txt"]
nitpicky = True
nitpick_ignore_regex = [
    # Names of other libraries, whose own reference lies behind a network; and type variables.
    (r"py:.*", r"(os|collections|typing|contextlib|pathlib|abc|types|pandas)\..*"),
    (r"py:.*", r"hftrace\.api\.recording\.Function"),
    (r"py:.*", r"(str|int|float|bool|bytes|list|dict|tuple|None|object|Row|Any|Mapping|Iterator|Sequence)"),
    (r"py:.*", r"(AttributeError|KeyError|Exception|ValueError|Path|Generic)"),
]
myst_heading_anchors = 3
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
html_theme = "furo"
html_title = f"hftrace {release}"
html_theme_options = {
    "source_repository": URLS["Repository"],
    "source_branch": "main",
    "source_directory": "docs/",
}

FRONT = {
    "index": "README.md",
    "contributing": "CONTRIBUTING.md",
    "changelog": "CHANGELOG.md",
    "security": "SECURITY.md",
}
"""Pages that are files of the repository's root: written once, shown there and here."""
PLACE = "<!-- {} stands here -->"


def show_front(app: Sphinx, name: str, source: list[str]) -> None:
    """Puts a file of the root into its page, with the links in it as they are from here."""
    if name not in FRONT:
        return
    file = FRONT[name]
    app.env.note_dependency(str(ROOT / file))
    text = (ROOT / file).read_text("utf-8")
    for page, other in FRONT.items():
        text = text.replace(f"]({other}", f"]({page}.md")
    text = re.sub(r"\]\(docs/", "](", text)
    # Folders and files that are no pages: on the code host.
    text = re.sub(
        r"\]\((?!https?:|#|mailto:)([\w./-]+?/?)\)",
        lambda found: (
            found[0]
            if found[1].endswith(".md") and (ROOT / "docs" / found[1]).exists()
            else f"]({URLS['Repository']}/blob/main/{found[1]})"
        ),
        text,
    )
    if (place := PLACE.format(file)) not in source[0]:
        raise ValueError(f"docs/{name}.md does not say {place}")
    source[0] = source[0].replace(place, text)


RULES = "<!-- the page of each rule stands here -->"


def show_rules(app: Sphinx, name: str, source: list[str]) -> None:
    """Puts the pages that ``hftrace explain`` prints into the page of all rules."""
    if name != "rules":
        return
    if RULES not in source[0]:
        raise ValueError(f"docs/rules.md does not say {RULES}")
    source[0] = source[0].replace(
        RULES, "\n".join(f"## {each.title}\n\n{each.page}" for each in explanations())
    )


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", show_rules)
    app.connect("source-read", show_front)
