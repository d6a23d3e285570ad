"""The default screen of a comparison, and the view that answers the next question."""

from __future__ import annotations

from hftrace.analysis.compare.comparison import Comparison, Difference
from hftrace.analysis.compare.sessions import LOADS
from hftrace.render.compare import VIEWS, load_part
from hftrace.render.compare.options import CompareOptions
from hftrace.render.registry import shown_by
from hftrace.render.text import Block


def screen(comparison: Comparison, options: CompareOptions) -> list[Block]:
    """Returns the default screen: caveats, figures with verdicts, why, and the phases as bars."""
    return [block for name in shown_by(VIEWS, None) for block in load_part(name).brief(comparison, options)]


def next_view(comparison: Comparison, shown: str | None) -> str:
    """Returns the view that answers the next question, which is not one that was shown."""
    if shown == "ranking":
        return "summary"
    differences = [each for each in comparison.differences if each.variant.successful]
    worth: list[str] = []
    if any(_is_outside(difference) for difference in differences):
        worth.append("session")
    if any(_peaks_differ(difference) for difference in differences):
        worth.append("memory")
    if any(not difference.tensors.empty for difference in differences):
        worth.append("tensors")
    if any(difference.files for difference in differences):
        worth.append("files")
    order = [*worth, "phases", "memory", "tensors", "files", "summary"]
    # The default screen has the bars of the phases, and not their figures.
    seen = ["summary"] if shown is None else shown_by(VIEWS, shown)
    return next((name for name in order if name not in seen), "summary")


def _is_outside(difference: Difference) -> bool:
    """Says whether more of a difference between two sessions lies outside of their loads than in them."""
    inside = sum(abs(each.difference_ns) for each in difference.session if each.part.kind == LOADS)
    outside = sum(abs(each.difference_ns) for each in difference.session if each.part.kind != LOADS)
    return outside > inside


def _peaks_differ(difference: Difference) -> bool:
    before, after = difference.baseline.load_peak_bytes, difference.variant.load_peak_bytes
    return before is not None and after is not None and abs(after - before) > 0.05 * before
