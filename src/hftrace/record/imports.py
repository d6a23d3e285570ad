"""What imports which module, and how long each takes: a tree whose small parts are sums.

A process imports thousands of modules, and most take a fraction of a millisecond. One that takes
:data:`LEAST_KEPT_NS` with all that it imports is a row; what is shorter is added up by package, in the row
of the import around it. So each nanosecond is in one row, and there are some hundred rows.
"""

from __future__ import annotations

import importlib.machinery
import itertools
import os
import sys
import threading
import types
from typing import Any

from hftrace.record.frames import IMPORT_FRAME_FILES, is_own
from hftrace.record.garbage import Watch
from hftrace.record.import_state import ImportState, OpenImport
from hftrace.record.recorder import Recorder, clock
from hftrace.schema import lines
from hftrace.schema.encoding import to_line

LEAST_KEPT_NS = 2_000_000
"""An import that takes as long has a row of its own: of 2,900 modules of a load of transformers some 500."""
PACKAGES_KEPT = 12
MAX_FRAMES = 40
"""Frames that are looked through for the one that asked: between them are those of the import machinery."""

_MACHINERY = frozenset({*IMPORT_FRAME_FILES, importlib.__file__})
_ON_DEMAND = frozenset({"__getattr__", "__getattribute__", "_get_module"})
"""Functions of modules that import when an attribute is asked for: who asks is the frame behind them."""
_OWN_FRAMES = 3
"""From :func:`_importer` to the handler: ``ended``, ``shielded`` and the handler itself."""


class _Outside(threading.local):
    """What this thread imports outside of loads."""

    def __init__(self) -> None:
        self.imports = ImportState()


class Imports:
    """The imports of one recording.

    Args:
        recorder: Who records it.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._numbers = itertools.count(1)
        self._outside = _Outside()
        self._watches: list[Watch] = []
        """Those that are installed."""

    def outside(self) -> ImportState:
        """Returns what this thread imports outside of loads."""
        return self._outside.imports

    def under_way(self) -> ImportState:
        """Returns the imports that are under way on this thread."""
        inside = self._recorder.state.imports
        return inside if inside.stack else self._outside.imports

    def began(self, state: ImportState) -> None:
        """Notes that an outermost import begins."""
        state.clear()
        self._watches.append(state.watch)
        state.watch.install()

    def close(self) -> None:
        """Takes off what watches the collector, where an exception has kept an import from doing so."""
        while self._watches:
            self._watches.pop().remove()

    def ended(self, state: ImportState, name: str, started: int, failed: bool) -> int:
        """Books a module that has been imported, or could not be; returns the time.

        Args:
            state: Of its thread.
            name: Of the module.
            started: When its import began.
            failed: Whether an exception ends it.
        """
        ended = clock()
        stack = state.stack
        own = stack.pop()
        took = ended - started
        alone = took - own.inner_ns
        package = name.partition(".")[0]
        packages = state.packages
        packages[package] = packages.get(package, 0) + alone
        state.modules.append((package, started, ended))
        if own.compiled:
            state.compiled.append((name, own.compile_ns))
        around = stack[-1] if stack else None
        if around is not None:
            around.inner_ns += took
        elif state is not self._outside.imports and self._outside.imports.stack:
            # A load in the body of a module that is being imported: it is not that module's own time.
            self._outside.imports.stack[-1].inner_ns += took
        if took < LEAST_KEPT_NS:
            _fold(own.folded, package, (1, alone, own.compiled, own.compile_ns))
            if around is not None:
                around.rows += own.rows
                for each, sums in own.folded.items():
                    _fold(around.folded, each, sums)
            else:
                state.rows += own.rows
                state.rows += self._sums(own, None)
            return ended
        importer, file, line = _importer()
        number = next(self._numbers)
        row = lines.ImportedModule(
            number,
            None,
            name,
            package,
            started,
            ended,
            alone,
            1,
            own.compiled,
            own.compile_ns,
            importer,
            file,
            line,
            None,
            None,
            int(failed),
        )
        state.rows += [each._replace(parent=number) for each in own.rows]
        state.rows += self._sums(own, number)
        if around is not None:
            around.rows.append(row)
        else:
            state.rows.append(row)
        return ended

    def _sums(self, own: OpenImport, parent: int | None) -> list[lines.ImportedModule]:
        return [
            lines.ImportedModule(
                next(self._numbers), parent, None, package, None, None, alone, modules, compiled, compile_ns
            )
            for package, (modules, alone, compiled, compile_ns) in own.folded.items()
        ]

    def described(self, state: ImportState) -> dict[str, Any]:
        """Returns what an outermost import brought, as attributes of its span, once it has ended."""
        self._take_out_collections(state)
        ranked = sorted(state.packages.items(), key=lambda item: -item[1])
        facts: dict[str, Any] = {
            "modules": len(state.modules),
            "packages": [[package, cost] for package, cost in ranked[:PACKAGES_KEPT]],
        }
        if state.compiled:
            facts["bytecode"] = _bytecode(state.compiled)
        return facts

    def _take_out_collections(self, state: ImportState) -> None:
        """Takes full garbage collections out of the time of the modules that they interrupted.

        They walk all objects of the process, whatever is being imported.
        """
        watch, modules = state.watch, state.modules
        watch.remove()
        if watch in self._watches:
            self._watches.remove(watch)
        for start, end in watch.between(modules[-1][1], modules[-1][2]) if modules else ():
            # The innermost module is the one that began last of those that were under way.
            under_way = [each for each in modules if each[1] <= start and end <= each[2]]
            package, began, _ = max(under_way, key=lambda each: each[1])
            state.packages[package] -= end - start
            for at, row in enumerate(state.rows):
                if row.start_ns == began:
                    took = min(end - start, row.self_ns)
                    state.rows[at] = row._replace(
                        self_ns=row.self_ns - took, collect_ns=row.collect_ns + took
                    )
                    break
        watch.forget()

    def write(self, state: ImportState, span: int) -> None:
        """Writes the rows of an outermost import down, and forgets them.

        Args:
            state: Of its thread.
            span: The number of its span.
        """
        recorder = self._recorder
        rows = state.rows
        state.clear()
        if rows:
            items = [field for row in rows for field in _with_origin(row)]
            thread = recorder.local.buffer.thread
            recorder.writer.write_soon(to_line(lines.Imports(span, thread, items)))


def _fold(folded: dict[str, list[int]], package: str, sums: Any) -> None:
    known = folded.get(package)
    if known is None:
        folded[package] = list(sums)
        return
    for at, each in enumerate(sums):
        known[at] += each


def _importer() -> tuple[str | None, str | None, int | None]:
    """Returns the module, the file and the line that asked for the import that ends now."""
    frame: types.FrameType | None = sys._getframe(_OWN_FRAMES)
    for _ in range(MAX_FRAMES):
        if frame is None:
            break
        code = frame.f_code
        file = code.co_filename
        if file not in _MACHINERY and code.co_name not in _ON_DEMAND and not is_own(file):
            name = frame.f_globals.get("__name__")
            if type(name) is str:  # what has none was made by somebody on the spot
                return name, file, frame.f_lineno
        frame = frame.f_back
    return None, None, None


def _with_origin(row: lines.ImportedModule) -> lines.ImportedModule:
    """Returns a row that says where its module came from."""
    spec = _spec_of(row.name) if row.name is not None and not row.failed else None
    if spec is None:
        return row
    origin = spec.origin if type(spec.origin) is str else None
    return row._replace(origin=origin, loader=_kind_of(spec.loader, row.compiled))


def _spec_of(name: str) -> Any:
    """Returns how a module was found; no code of the module runs (some import on ``getattr``)."""
    module = sys.modules.get(name)
    if not issubclass(type(module), types.ModuleType):
        return None
    spec = types.ModuleType.__getattribute__(module, "__dict__").get("__spec__")
    return spec if type(spec) is importlib.machinery.ModuleSpec else None


def _kind_of(loader: Any, compiled: int) -> str | None:
    """Returns what a module was made of; None where that is not known, as with a loader of somebody's own."""
    kind = type(loader)
    if kind is importlib.machinery.SourceFileLoader:
        return "source" if compiled else "bytecode"
    if kind is importlib.machinery.ExtensionFileLoader:
        return "extension"
    if loader is importlib.machinery.FrozenImporter or loader is importlib.machinery.BuiltinImporter:
        return "built-in"
    if loader is None or kind.__name__ in ("NamespaceLoader", "_NamespaceLoader"):
        return "namespace"
    return "zip" if kind.__name__ == "zipimporter" else None


def _bytecode(compiled: list[tuple[str, int]]) -> dict[str, Any]:
    """Returns how much of an import was compiled, and how much of that was not kept for the next process."""
    unwritten, unwritten_ns, example = 0, 0, None
    for name, took in compiled:
        spec = _spec_of(name)
        cached = getattr(spec, "cached", None)
        if type(cached) is str and not os.path.exists(cached):
            unwritten += 1
            unwritten_ns += took
            example = example or cached
    facts: dict[str, Any] = {
        "compiled": len(compiled),
        "compile_ns": sum(took for _, took in compiled),
        "unwritten": unwritten,
        "unwritten_ns": unwritten_ns,
    }
    if example is not None:
        # Of one that is not there, the next folder above it that is.
        folder = os.path.dirname(example)
        while folder and not os.path.isdir(folder) and folder != os.path.dirname(folder):
            folder = os.path.dirname(folder)
        facts.update(
            folder=os.path.dirname(example),
            switched_off=bool(sys.dont_write_bytecode),
            writable=os.access(folder, os.W_OK),
        )
    return facts
