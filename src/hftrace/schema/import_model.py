"""The row of the table of imports; :mod:`hftrace.schema.model` has the others."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Import:
    """A module that was imported, or the sum of those of one package that took next to nothing.

    Every module has its time in one row: ``self_ns`` and ``collect_ns`` of all rows are what all of it took.
    """

    id: int
    """Number of the row."""
    parent: int | None
    """The row whose body imported it; None where no import that has a row was under way."""
    name: str | None
    """None for a sum, of those that took less than 2 ms, or than a 300th of all imports, with all that they
    imported."""
    package: str
    """The first part of the name."""
    span: int | None
    """Id of the span of the outermost import that it belongs to."""
    start_ns: int | None
    """When its import began; None for a sum."""
    end_ns: int | None
    """When its import ended; None for a sum."""
    self_ns: int
    """Without what it imported, and without full garbage collections."""
    modules: int
    """How many modules; 1 where it has a name."""
    made_of: str | None = None
    """``bytecode``, ``source`` (it was compiled here), ``extension``, ``built-in``, ``namespace`` or
    ``zip``."""
    compiled: int = 0
    """How many of them were compiled here, because no bytecode of them was found."""
    compile_ns: int = 0
    """What that took; it is a part of ``self_ns``."""
    file_bytes: int | None = None
    """Size of the source or the library that it came from, when the trace was made."""
    where: str | None = None
    """``standard`` (Python's library), ``installed``, or ``own`` (a folder without metadata of packages)."""
    importer: str | None = None
    """The module whose line asked for it, lazy attributes and ``importlib`` passed over."""
    importer_line: int | None = None
    """The line in it."""
    guard: str | None = None
    """What that line is under, where it is imported on a condition: ``if is_scipy_available()``, or
    ``try, except ImportError``. None where there is nothing of the kind, or the source could not be read."""
    collect_ns: int = 0
    """Of full garbage collections that interrupted it, its own imports aside; not in ``self_ns``."""
    status: str = "ok"
    """``error`` where the import failed: often a probe for a package that is not there."""
    thread: int = 0
    """The thread."""
    pid: int = 0
    """The process."""
    rank: int = 0
    """The rank of the process; 0 where there is one."""

    @property
    def duration_ns(self) -> int | None:
        """With all that it imported; None for a sum."""
        return None if self.start_ns is None or self.end_ns is None else max(0, self.end_ns - self.start_ns)
