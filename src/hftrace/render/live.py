"""The line on stderr that says what a running load is doing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hftrace.render.text import clean
from hftrace.units import byte_count, duration

if TYPE_CHECKING:
    from rich.console import Console


class LiveView:
    """A status line that is redrawn in place, on a terminal; nothing anywhere else.

    Args:
        console: A console on stderr.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = console.status("starting Python") if console.is_terminal else None

    def __enter__(self) -> LiveView:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def show(
        self,
        phase: str,
        name: str,
        elapsed_seconds: float,
        tensors: tuple[int, int | None],
        shard: str | None,
        rss_bytes: int | None,
    ) -> None:
        """Draws the state.

        Args:
            phase: The innermost phase.
            name: The innermost span.
            elapsed_seconds: Since the process was started.
            tensors: How many are placed, and of how many if that is known.
            shard: The shard that is being read, where the loader goes shard by shard.
            rss_bytes: Resident memory, current.
        """
        if self._status is None:
            return
        parts = [f"{phase:<11} {clean(name)[:40]}"]
        done, total = tensors
        if done:
            parts.append(f"{done:,}/{total:,} tensors" if total else f"{done:,} tensors")
        if shard:
            parts.append(clean(shard))
        if rss_bytes is not None:
            parts.append(f"{byte_count(rss_bytes)} resident")
        parts.append(duration(round(elapsed_seconds * 1e9)))
        self._status.update(" · ".join(parts))

    def line(self, text: str) -> None:
        """Prints a line of the load's own output above the status."""
        self._console.print(clean(text), highlight=False, markup=False)
