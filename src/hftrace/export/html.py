"""The report page: one file that a browser opens, without a network. Several traces are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from hftrace.export import Wish
from hftrace.schema.trace import Trace


def write(traces: Sequence[Trace], stream: BinaryIO, wish: Wish) -> None:
    """Writes the page of one trace, or the comparison of several or of groups; the first is the baseline."""
    if len(traces) == 1 and not wish.groups:
        from hftrace.export.page.single import page

        text = page(traces[0], wish.paths[0] if wish.paths else None)
    else:
        from hftrace.export.page.comparison import page as comparison_page

        text = comparison_page(traces, wish.paths, wish.groups)
    stream.write(text.encode("utf-8"))
