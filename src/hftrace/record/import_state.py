"""What is being imported on a thread, and what that has brought so far."""

from __future__ import annotations

from hftrace.record.garbage import Watch
from hftrace.schema.import_lines import ImportedModule


class OpenImport:
    """A module that is being imported on this thread."""

    __slots__ = ("compile_ns", "compiled", "folded", "inner_ns", "rows")

    def __init__(self) -> None:
        self.inner_ns = 0
        """What the imports in it took."""
        self.compiled = 0
        self.compile_ns = 0
        self.rows: list[ImportedModule] = []
        """Those in it that have a row, and no parent yet."""
        self.folded: dict[str, list[int]] = {}
        """By package, of modules in it that have none: how many, their own time, how many were compiled, and
        in what time."""


class ImportState:
    """The imports of one thread, from the beginning of an outermost one to its end."""

    __slots__ = ("compiled", "modules", "packages", "rows", "stack", "watch")

    def __init__(self) -> None:
        self.stack: list[OpenImport] = []
        self.packages: dict[str, int] = {}
        """By package: the own time of its modules."""
        self.modules: list[tuple[str, int, int]] = []
        """Package, start and end of each module, by their ends."""
        self.compiled: list[tuple[str, int]] = []
        """Modules that came from no bytecode, and what it took to compile each."""
        self.rows: list[ImportedModule] = []
        self.watch = Watch()
        """Sees the full collections that interrupt an outermost import: a fifth of what torch takes."""

    def clear(self) -> None:
        """Forgets what an outermost import brought."""
        self.packages, self.modules, self.compiled, self.rows = {}, [], [], []
