"""Shows on stderr what a load is doing: a block on a terminal, a line for each phase anywhere else."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from hftrace.cli.common.output import make_console
from hftrace.launch.kept import to_stderr
from hftrace.launch.listening import NOBODY, Listen, Listener
from hftrace.launch.live_ranks import is_first, wait_for_first
from hftrace.render.live import live_block, plain_line
from hftrace.render.terminal import output_width
from hftrace.render.text import clean

if TYPE_CHECKING:
    from rich.live import Live

    from hftrace.analysis.live import LiveState

ENDING = {signal.SIGINT, signal.SIGTERM, *({signal.SIGHUP} if hasattr(signal, "SIGHUP") else ())}
FRAME_SECONDS = 0.2
"""Between two frames: a person reads no more, and the machine is there for the load."""
PLAIN_SECONDS = 1.0
"""Between two looks where only phases that have ended are said."""


class BlockView:
    """A block at the bottom of a terminal that is drawn anew in its place, and gone at the end.

    Args:
        color: As ``--color`` says.
        width: As ``--width`` says.
        title: Says which of several runs it is.
    """

    def __init__(self, color: str, width: int | None, title: str = "") -> None:
        from rich.live import Live

        self.title = title
        self._width = width
        self._stream = sys.stderr
        self._console = make_console(color, width, stderr=True)
        self._live: Live = Live(
            console=self._console,
            # No thread of its own: a frame is drawn where something may have changed.
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=True,
        )
        self._drawing = threading.Lock()
        self._gone = False

    def __enter__(self) -> BlockView:
        self._live.start()
        # Where this process is killed nobody could bring it back.
        self._console.show_cursor(True)
        return self

    def __exit__(self, *_: object) -> None:
        with self._quietly():
            self._live.stop()

    def listener(self) -> Listener:
        """Returns what a load is to call."""
        return Listener(self.show, self.line, self.line, FRAME_SECONDS, predicts=True)

    def show(self, state: LiveState) -> None:
        """Draws the next frame."""
        state.ended.clear()
        block = live_block(state, time.monotonic_ns(), self.title)
        with self._quietly():
            # The window may have been made narrower: a line that wraps could not be taken back.
            self._console.width = output_width(self._width, self._stream)
            self._live.update(block, refresh=True)

    def line(self, text: str) -> None:
        """Prints a line above the block; of a bar that was drawn over and over, the last state."""
        with self._quietly():
            self._console.print(clean(text.rstrip("\r").rpartition("\r")[2]), highlight=False, markup=False)

    @contextlib.contextmanager
    def _quietly(self) -> Iterator[None]:
        # The terminal may be gone: that is no reason to end a load.
        with _signals_wait(), self._drawing, contextlib.suppress(OSError, ValueError):
            yield


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    """Lets a signal come behind a frame: one that is half drawn could not be taken back."""
    came: list[int] = []
    with contextlib.ExitStack() as restored:
        # Handlers run on the main thread alone, whatever thread the kernel has chosen.
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                if callable(signal.getsignal(number)):
                    before = signal.signal(number, lambda number, _: came.append(number))
                    restored.callback(signal.signal, number, before)
        yield
    for number in came:
        signal.raise_signal(number)


class LineView:
    """A line for each phase of a load that has ended."""

    def __enter__(self) -> LineView:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def listener(self) -> Listener:
        """Returns what a load is to call."""
        return Listener(self.show, pause_seconds=PLAIN_SECONDS)

    def show(self, state: LiveState) -> None:
        """Prints the phases that have ended since the last time."""
        ended = list(state.ended)
        state.ended.clear()
        for text in filter(None, map(plain_line, ended)):
            with contextlib.suppress(OSError, ValueError):
                print(clean(text), file=sys.stderr, flush=True)  # noqa: T201


class HeldView:
    """Keeps what a rank says until the first one, which draws on the same terminal, is done with it."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def __enter__(self) -> HeldView:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.release()

    def listener(self) -> Listener:
        """Returns what a load is to call."""
        # That a rank hangs is worth more than a clean screen.
        return Listener(None, self._lines.append)

    def release(self, folder: Path | None = None) -> None:
        """Prints what was kept.

        Args:
            folder: Where the ranks have their runs' directories; None where nobody is waited for.
        """
        if folder is not None:
            wait_for_first(folder)
        held, self._lines = self._lines, []
        for text in held:
            to_stderr(text)


class NoView:
    """Shows nothing."""

    def __enter__(self) -> NoView:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def listener(self) -> Listener:
        """Returns what a load is to call."""
        return NOBODY


View: TypeAlias = BlockView | LineView | HeldView | NoView


def draws_blocks(stream: Any) -> bool:
    """Returns whether a stream is a terminal whose cursor can be moved."""
    try:
        return bool(stream.isatty()) and os.environ.get("TERM", "") not in ("", "dumb", "unknown")
    except (AttributeError, ValueError):
        return False


def live_view(
    color: str, width: int | None, *, quiet: bool = False, lines: bool = True, title: str = ""
) -> View:
    """Returns what shows a load.

    Args:
        color: As ``--color`` says.
        width: As ``--width`` says.
        quiet: Show nothing.
        lines: Whether to print lines where no block can be drawn.
        title: Says which of several runs it is.
    """
    if quiet:
        return NoView()
    if not is_first():
        return HeldView() if draws_blocks(sys.stderr) else NoView()
    if draws_blocks(sys.stderr):
        return BlockView(color, width, title)
    return LineView() if lines else NoView()


def run_views(color: str, width: int | None) -> Listen:
    """Returns what shows each of several runs on a terminal; elsewhere they have lines of their own."""

    @contextlib.contextmanager
    def listen(which: str) -> Iterator[Listener]:
        with live_view(color, width, lines=False, title=which) as view:
            yield view.listener()

    return listen
