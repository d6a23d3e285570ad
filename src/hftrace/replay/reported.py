"""What a loader itself said of names: missing, unexpected, of another shape."""

from __future__ import annotations

from collections.abc import Mapping

from hftrace.replay.reader import OpenedSpan

MAX_REPORTED = 10_000
"""A report of so many names of one kind may have been cut."""
OF_ADAPTER = "unexpected in an adapter"
"""What PEFT found no place for; it may be nothing, and is absent where PEFT said nothing."""
AT_LAST = "missing at last"
"""What is still missing in the last report of a load: without what its class does not expect in a file."""


def reported_names(spans: list[OpenedSpan]) -> dict[str, set[str]]:
    """Returns the names that the loader reported, by what it said of them."""
    reported: dict[str, set[str]] = {}
    # 5.x drops from its last report what the class leaves out on purpose.
    last = [span for span in spans if span.phase == "finalize" and "unexpected" in span.attributes]
    for word, among in (("missing", spans), ("unexpected", last or spans), ("mismatched", spans)):
        for span in among:
            names = span.attributes.get(word)
            if isinstance(names, list):
                reported.setdefault(word, set()).update(map(str, names))
    for span in spans:
        of_adapter = span.attributes.get("adapter_unexpected")
        if isinstance(of_adapter, list):
            reported.setdefault(OF_ADAPTER, set()).update(map(str, of_adapter))
    reports = last or [span for span in spans if "unexpected" in span.attributes]
    if reports:
        reported[AT_LAST] = {str(name) for span in reports for name in span.attributes.get("missing") or ()}
    return reported


def of_adapter(reported: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Returns what is said of an adapter alone."""
    return {word: names for word, names in reported.items() if word == OF_ADAPTER}
