"""The recorder: spans, events and the state of each thread.

It knows nothing of transformers; what to record is said by the hook tables in
:mod:`hftrace.record.hooks`. Everything it is told goes to the journal as it
happens, and nothing of the host (no tensor, no module, no exception) is kept.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hftrace.record import buffers, reader_clocks
from hftrace.record.callers import before_load, caller_facts
from hftrace.record.children import Children
from hftrace.record.earlier import Earlier
from hftrace.record.edges import Edges, counted_at, counted_since
from hftrace.record.failures import own_words, told
from hftrace.record.garbage import Watch
from hftrace.record.interruptions import pass_on
from hftrace.record.kept_files import KeptFiles
from hftrace.record.overrides import without_overrides
from hftrace.record.reading import Readers
from hftrace.record.reserve import Reserve
from hftrace.record.thread_state import OpenSpan, ThreadState
from hftrace.record.writer import JournalWriter, WrittenLine
from hftrace.record.writes import WriteLog
from hftrace.schema import journal, lines
from hftrace.schema.encoding import to_line
from hftrace.schema.redact import learn_process
from hftrace.system.heap import free_heap_bytes

clock = time.monotonic_ns

MAX_ERRORS = 100
"""Own errors written out in full; beyond that they are only counted."""


class Recorder:
    """Records one process.

    Args:
        directory: Where the journal goes.
        rank: The rank of this process, 0 where there is only one.
        exact_peaks: Whether to reset the kernel's and the allocators'
            watermarks at each edge, which gives exact peaks per span.
        facts: What to say in the journal's header.
    """

    def __init__(
        self,
        directory: Path,
        *,
        rank: int = 0,
        exact_peaks: bool = True,
        facts: dict[str, Any] | None = None,
    ) -> None:
        learn_process()  # before the first line
        self.pid = os.getpid()
        self.active = self.abandoned = False
        self.open_loads = self.error_count = 0
        self._lock = threading.RLock()  # as the journal's, which says why
        self.span_numbers, self._hooks = itertools.count(1), itertools.count(1)
        self._threads: list[tuple[buffers.Buffer, str]] = []
        self._announced = 0
        self.checkpoint_paths: list[tuple[int | None, str]] = []
        """Weight files of open loads, with the thread of each: see :mod:`hftrace.record.hooks.capture`."""
        self.record_imports = False
        """Whether imports outside of a load are spans too, as ``hftrace load`` wants for its own."""
        self.first_checkpoint: str | None = None
        self.watched_modules: set[str] = set()
        """Modules whose import :attr:`on_module` wants to hear of."""
        self.on_module: Callable[[str], None] | None = None
        self.on_model_class: Callable[[Any], None] | None = None
        self.in_child: Callable[[], None] | None = None
        """Called in a child by fork when it loads something, if it is to be recorded too."""
        self.children: Children | None = None
        self.models: list[tuple[int, Callable[[], Any]]] = []
        """The span of each load, and what returns its finished model, or None once that is gone."""
        self.local = buffers.ThreadBuffers(self._threads)
        self.earlier = Earlier()
        self.state = ThreadState(self.earlier)
        self.writes = WriteLog()
        self.belongings: dict[Any, Any] = {}  # see hftrace.record.belongings
        self._load_stacks: list[list[OpenSpan]] = []
        """For each open load, innermost last, the stack of its thread."""
        self.edges = Edges(exact_peaks=exact_peaks)
        self.memory, self.devices = self.edges.memory, self.edges.devices
        self.garbage, self.readers = Watch(), Readers()
        self.files = KeptFiles(directory)
        path = journal.journal_path(directory, self.pid, rank)
        self.reserve = Reserve(path)
        self.writer = JournalWriter(path, self._drain, self._expects_events)
        self.write(
            lines.Header(
                {
                    "schema": journal.SCHEMA,
                    "version": journal.VERSION,
                    "pid": self.pid,
                    "rank": rank,
                    "clock_base_ns": clock(),
                    "wall_clock_ns": time.time_ns(),
                    "exact_peaks": self.memory.exact,
                    "device_peaks_reset": exact_peaks,
                    **(facts or {}),
                }
            )
        )

    # -- start and stop ----------------------------------------------------------------------

    def start(self) -> None:
        """Begins to record."""
        self.writer.start()
        self.active = True

    def stop(self) -> None:
        """Ends recording and closes the journal."""
        self.active = False
        self.garbage.remove()
        self.writer.flush()
        if self.writer.lost:
            self.write(lines.Lost(self.writer.lost))
        if self.error_count > MAX_ERRORS:
            self.write(lines.Error("", f"{self.error_count - MAX_ERRORS} more errors of hftrace"))
        self.write(lines.Stop(clock()))
        self.drop()

    def drop(self) -> None:
        """Closes the journal as it is, and lets go of everything; may be called again."""
        self.active = False
        self.garbage.remove()
        self.writer.close()
        self.reserve.close(self.writer.stopped, self.writer.lost)
        self.memory.close()

    def abandon(self) -> None:
        """Forgets everything: called in the child after a fork, where nothing of this may run."""
        self.active, self.abandoned = False, True
        self.open_loads, self.children = 0, None
        self._lock = threading.RLock()  # a thread that the child does not have may hold it
        self.garbage.remove()
        self.files.abandon()
        self.writer.abandon()

    # -- spans -------------------------------------------------------------------------------

    def edge(self, *, own: bool = True) -> lines.Edge:
        """Reads what an edge of a span has; ``own`` says that the span begins and ends on this thread."""
        # In a forked child these files are about the parent, and reading them sets its marks back.
        return lines.Edge() if self.abandoned else self.edges.read(own=own)

    def begin(
        self,
        phase: str,
        name: str,
        hook: int | None = None,
        attributes: dict[str, Any] | None = None,
        started: int | None = None,
    ) -> OpenSpan:
        """Begins a span on this thread.

        Args:
            phase: One of the phases of DESIGN.md.
            name: What the reader sees.
            hook: The number of the hook point.
            attributes: What is known at the start.
            started: The time, where the caller took it already.

        The clock is read before the memory, so that the cost of reading lies
        inside the span and no time falls between two spans. A load is the
        other way round: its own time is what no phase explains, and what we
        cost must not be counted there.
        """
        is_load = phase == "load"
        known = before_load() if is_load and not self.state.stack else {}  # a load is not to pay for this
        load_edge = self.edge() if is_load else None
        if started is None or is_load:
            started = clock()
        stack = self.state.stack
        self.state.told = None
        if stack:
            parent: int | None = stack[-1].id
        else:
            above = None if is_load else self._serving()
            parent = above.id if above else None
        span = OpenSpan(next(self.span_numbers), phase, hook, name)
        thread = self.local.buffer.thread
        if parent is None and not is_load:
            known = caller_facts()
        noted = {**known, **(attributes or {})}
        edge = load_edge or self.edge()
        line = lines.Begin(span.id, parent, phase, name, hook, thread, started, edge, noted)
        if is_load:
            # Goes with the first phase's line, a fraction of a millisecond later.
            self.writer.write_soon(to_line(line))
        else:
            self.write(line)
        span.counted = counted_at(phase)
        # Last: where one of the steps above fails, nothing is open that nobody would end.
        if is_load:
            with self._lock:
                self.open_loads += 1
                self._load_stacks.append(stack)
                if self.open_loads == 1:
                    self.garbage.install()
                    self.writer.wake()
            if not self.active:
                self.garbage.remove()  # stopped meanwhile, which takes no lock
        stack.append(span)
        return span

    def end(
        self,
        span: OpenSpan,
        status: str = "ok",
        attributes: dict[str, Any] | None = None,
        ended: int | None = None,
    ) -> None:
        """Ends a span, at ``ended`` or now, and whatever was left open above it on this thread."""
        if span.phase == "load" and ended is None:
            ended = clock()
        stack = self.state.stack
        own = span in stack
        while span in stack:
            self._pop(stack)
        if attributes:
            span.notes.update(attributes)
        if span.phase == "weights" and all(open_span.phase == "load" for open_span in stack):
            span.notes["heap_free_bytes"] = free_heap_bytes()
        if own and span.counted is not None:
            span.notes.update(counted_since(span.counted))
        edge = self.edge(own=own)
        if ended is None:
            ended = clock()
        self.writer.write_soon(to_line(lines.End(span.id, ended, edge, status, span.notes)))
        if span.phase == "load" and len(stack) <= (self.state.late is not None):
            self.reserve.load_ended(span.id, ended, status, stopped=self.writer.stopped is not None)
            self._keep_headers(failed=status != "ok")
            # A process may leave at once, by a signal or os._exit: of a load that has returned all is kept.
            self.writer.flush(wait=False)

    def _keep_headers(self, *, failed: bool) -> None:
        """Copies the headers of a load's weight files, once its clock has stopped."""
        try:
            for line in self.files.returned(failed=failed, last=not self.open_loads):
                self.write(line)
        except Exception as error:
            self.error("headers of weight files", error)

    def _pop(self, stack: list[OpenSpan]) -> OpenSpan:
        top = stack.pop()
        if top.phase == "load":
            with self._lock:
                self.open_loads -= 1
                if not self.open_loads:
                    self.garbage.remove()
                for index in range(len(self._load_stacks) - 1, -1, -1):
                    if self._load_stacks[index] is stack:
                        del self._load_stacks[index]
                        break
        return top

    def unwind(self, depth: int) -> None:
        """Closes on this thread what an error of our own has left open above ``depth`` spans."""
        stack = self.state.stack
        while len(stack) > depth:
            self._pop(stack)

    def fail(self, span: OpenSpan, error: BaseException, around: OpenSpan | None = None) -> None:
        """Ends a span through which an exception passes; the exception itself is not kept.

        Args:
            span: The span.
            error: What left it.
            around: The load that ends with it, where it has a span of its own.
        """
        # What it takes to describe it is no time of the load's.
        ended = clock() if span.phase == "load" or around is not None else None
        status = "interrupted" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "error"
        outermost = len(self.state.stack) == 1 + (around is not None)
        notes = told(self.state, error, outermost=outermost)
        self.end(span, status, notes, ended)
        if around is not None:
            self.end(around, status, notes, ended)

    def failed_call(
        self, phase: str, name: str, hook: int, started: int, error: BaseException, notes: dict[str, Any]
    ) -> None:
        """Writes a span for a call that costs none where it succeeds, once an exception has left it.

        Args:
            phase: One of the phases of DESIGN.md.
            name: What the reader sees.
            hook: The number of the hook point.
            started: When the call began.
            error: Why it ended; only its words are kept.
            notes: Attributes.
        """
        self.fail(self.begin(phase, name, hook, notes, started), error)

    def current(self) -> OpenSpan | None:
        """Returns the innermost open span of this thread, or of the load that this worker serves."""
        return self.state.stack[-1] if self.state.stack else self._serving()

    def _serving(self) -> OpenSpan | None:
        """Returns the span that a worker thread without spans of its own works for.

        Where nobody has said it, that is the innermost one of the load that began
        last: with several loads at once a pool's thread cannot be told apart further.
        """
        if self.state.serving is not None or self.state.alone:
            return self.state.serving
        try:
            return self._load_stacks[-1][-1]
        except IndexError:
            return None

    def current_id(self) -> int | None:
        """Returns the id of :meth:`current`."""
        span = self.current()
        return span.id if span else None

    # -- everything else -----------------------------------------------------------------------

    def hook(
        self,
        target: str,
        function: str,
        source: str,
        phase: str,
        phase_before: str = "",
        phase_after: str = "",
    ) -> int:
        """Announces a hook point that has been installed; returns its number."""
        number = next(self._hooks)
        self.write(lines.Hook(number, target, function, source, phase, phase_before, phase_after))
        return number

    def write(self, line: lines.Line) -> None:
        """Writes a line of any kind at once."""
        self.writer.write(to_line(line))

    def facts(self, block: str, values: dict[str, Any]) -> None:
        """Adds facts to a block of the trace."""
        self.reserve.keep(block, values)
        self.write(lines.Facts(block, values))

    def error(self, where: str, error: BaseException) -> None:
        """Counts an error of our own, which the host never sees; what a signal's handler raised goes on."""
        pass_on(error)
        self.error_count += 1
        if self.error_count <= MAX_ERRORS:
            self.write(lines.Error(where, own_words(error)))

    def _expects_events(self) -> bool:
        """Returns whether a load is open: what happens once per tensor is only recorded inside one."""
        return self.open_loads > 0

    def _drain(self) -> list[WrittenLine]:
        batches: list[WrittenLine] = [*buffers.drain(self._threads, self.earlier.threads)]
        batches += self.garbage.drain()
        others: list[lines.Line] = []
        while self._announced < len(self._threads):
            buffer, name = self._threads[self._announced]
            others.append(lines.Thread(buffer.thread, name))
            self._announced += 1
        if self.open_loads and (reads := self.readers.look()) is not None:
            others.append(lines.Facts("reading", {"open": reads}))
        if self.open_loads:
            others += self.devices.news()
        others += reader_clocks.news(self._threads, at_end=not self.open_loads)
        return [*batches, *map(to_line, others)]


def shielded(recorder: Recorder, where: str, action: Callable[..., Any], *arguments: Any) -> Any:
    """Calls one of our own functions; an error in it is recorded, and None returned.

    Args:
        recorder: Who records the error.
        where: The hook point, for the report.
        action: What to call.
        *arguments: Its arguments.
    """
    if (state := recorder.state).busy:
        return None
    state.busy = True
    try:
        with without_overrides():
            return action(*arguments)
    except Exception as error:
        recorder.error(where, error)
        return None
    finally:
        state.busy = False
