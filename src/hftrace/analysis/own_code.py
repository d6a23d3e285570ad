"""The code that came with what a load loads: its files, and of which revision they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from hftrace.analysis.values import text

COMMIT = re.compile(r"[0-9a-f]{40}")
PACKAGE = "transformers_modules."
"""Begins the name of every module that transformers imports from a checkpoint's files."""


class CodeFile(NamedTuple):
    """One file of Python code that came with a checkpoint, and was imported."""

    file: str
    repo: str
    """The repository or the folder that it came from."""
    commit: str | None
    """None for one of a local folder."""
    revision: str | None
    """What the caller gave; None for nothing."""
    sha256: str | None
    classes: tuple[str, ...]
    """Those that were taken from it; none of a file that another one imports."""

    @property
    def pinned(self) -> bool:
        """Whether the next load runs the same code: of a local folder nobody else decides that."""
        return self.commit is None or COMMIT.fullmatch(self.revision or "") is not None


def code_files(attributes: Mapping[str, Any]) -> list[CodeFile]:
    """Returns the files of code of a load.

    Args:
        attributes: Of the load's span.
    """
    noted = attributes.get("code")
    found = []
    for entry in noted if isinstance(noted, list) else []:
        if not isinstance(entry, Mapping) or not text(entry.get("file")):
            continue
        classes = entry.get("classes")
        found.append(
            CodeFile(
                str(entry["file"]),
                text(entry.get("repo")) or "",
                text(entry.get("commit")),
                text(entry.get("revision")),
                text(entry.get("sha256")),
                tuple(map(str, classes)) if isinstance(classes, list) else (),
            )
        )
    return found
