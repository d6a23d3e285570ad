"""Models that a program has let go of, in words for the first screen."""

from __future__ import annotations

from hftrace import units
from hftrace.analysis.memory.released import Release, Released, releases
from hftrace.render.text import clean
from hftrace.schema.trace import Trace

MAX_NAMED = 3
UNKNOWN = "memory not known"


def released_words(trace: Trace) -> str:
    """Returns which models the program has let go of, and what came back; empty where it has kept all."""
    told = [(each.models, came_back(each)) for each in releases(trace)]
    words: list[str] = []
    left = MAX_NAMED
    known = [(models, text) for models, text in told if text != UNKNOWN]
    for number, (models, text) in enumerate(known):
        if left < len(models) and words:
            more = sum(len(others) for others, _ in known[number:])
            words.append(f"{units.count(more, 'more model')}: --view tree")
            break
        words.append(f"{_who(models)}: {text}")
        left -= len(models)
    unknown = tuple(model for models, text in told if text == UNKNOWN for model in models)
    return "; ".join([*words, *([f"{_who(unknown)}: {UNKNOWN}"] if unknown else [])])


def came_back(release: Release) -> str:
    """Returns what memory the process has given back; what it grew by meanwhile is no part of it."""
    memory = release.memory
    sizes = (
        (memory.anonymous_bytes, "anonymous"),
        (memory.file_bytes, "file-backed"),
        *((size, f"on {clean(device)}") for device, size in memory.device_bytes.items()),
    )
    parts = [f"{units.byte_count(size)} {kind}" for size, kind in sizes if size is not None and size > 0]
    several = len(release.models) > 1
    together = " together" if several else ""
    if parts:
        its = f"{'their' if several else 'its'} {units.byte_count(release.weights_bytes or 0)} of weights"
        more = f", more than {its}" if release.is_more_than_the_weights else ""
        return f"{', '.join(parts)} came back{together}{more}"
    if memory.anonymous_bytes is None or memory.file_bytes is None:
        return UNKNOWN
    return f"nothing came back{together}"


def _who(models: tuple[Released, ...]) -> str:
    """Returns the names of models, the loads of those of one class together."""
    classes: dict[str, list[int | None]] = {}
    for model in models:
        classes.setdefault(clean(model.name), []).append(model.number)
    words = [_of_class(name, numbers) for name, numbers in classes.items()]
    return " and ".join([*([", ".join(words[:-1])] if words[1:] else []), words[-1]])


def _of_class(name: str, numbers: list[int | None]) -> str:
    known = sorted(number for number in numbers if number is not None)
    times = f" \u00d7 {len(numbers)}" if len(numbers) > 1 else ""
    if len(known) < len(numbers):
        return f"{name}{times}"
    if len(known) == 1:
        return f"{name} of load {known[0]}"
    shown = [str(number) for number in known[:MAX_NAMED]]
    more = f" and {len(known) - MAX_NAMED} more" if len(known) > MAX_NAMED else ""
    return f"{name} of loads {', '.join(shown)}{more}"
