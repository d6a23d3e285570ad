"""The line of a journal that says what an import has imported in its turn.

:mod:`hftrace.schema.lines` has all lines.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple


class ImportedModule(NamedTuple):
    """A module that was imported, or the sum of those of one package that took next to nothing."""

    number: int
    parent: int | None
    """The number of the one whose body imported it, where that is written down too."""
    name: str | None
    """None for a sum."""
    package: str
    start_ns: int | None
    end_ns: int | None
    self_ns: int
    """Without what it imported."""
    modules: int
    compiled: int
    """How many of them came from no bytecode."""
    compile_ns: int
    importer: str | None = None
    """The module whose line asked for it."""
    file: str | None = None
    line: int | None = None
    origin: str | None = None
    """The file that it came from."""
    loader: str | None = None
    """``bytecode``, ``source``, ``extension``, ``built-in``, ``namespace`` or ``zip``."""
    failed: int = 0
    collect_ns: int = 0
    """Of full garbage collections that interrupted it; not in ``self_ns``."""


class Imports(NamedTuple):
    """What one outermost import brought."""

    span: int
    """Of that import."""
    thread: int
    items: list[Any]
    """All fields of the first :class:`ImportedModule`, then of the second, and so on."""

    def rows(self) -> Iterator[ImportedModule]:
        """Yields the modules."""
        width = len(ImportedModule._fields)
        return map(ImportedModule, *(self.items[at::width] for at in range(width)))
