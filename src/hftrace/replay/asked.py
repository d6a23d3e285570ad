"""What a load was asked for and what its model says of itself, put where the load's span is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hftrace.replay.reader import OpenedSpan, Process


def add_answers(process: Process) -> None:
    """Adds what each finished model says of itself to its load, and where the keywords of the load went.

    The load's span gets ``got``, and its ``request`` gets ``uses``: ``loader``, ``config``,
    ``model``, ``nowhere`` or ``unknown`` by keyword.
    """
    for block in ("got", "keyword_uses"):
        for fact in process.facts.get(block, []):
            span = process.spans.get(fact.get("span", -1))
            if span is None:
                continue
            if block == "got":
                span.attributes["got"] = {name: value for name, value in fact.items() if name != "span"}
            else:
                span.attributes["request"] = {**_request_of(span), "uses": fact.get("uses")}


def note_beginnings(process: Process, offset: int) -> None:
    """Adds to each load what was there when it began: memory of devices, and the models of earlier loads.

    Args:
        process: What it wrote.
        offset: What is added to its own numbers of spans.
    """
    for span in process.spans.values():
        if span.phase != "load" or span.parent is not None:
            continue
        alive = span.attributes.get("alive")
        if isinstance(alive, list):
            span.attributes["alive"] = [load + offset for load in alive if isinstance(load, int)]
        if span.edge.devices:
            span.attributes["device_allocated_start_bytes"] = {
                name: device.allocated for name, device in span.edge.devices.items()
            }


def first_request(process: Process) -> dict[str, Any]:
    """Returns what was asked of the first model; of the first of anything where no model was asked for.

    ``hftrace load`` says first what it will ask for, which completes what the hook saw of it.
    """
    facts = process.facts.get("request", [])
    models = [fact for fact in facts if fact.get("what", "model") == "model"]
    asked: dict[str, Any] = {}
    for fact in reversed(models or facts):
        asked.update(fact)
    loads = (span for span in process.spans.values() if span.phase == "load" and span.parent is None)
    for load in sorted(loads, key=lambda span: span.start):
        request = _request_of(load)
        if request.get("what") == "model":
            if isinstance(request.get("uses"), Mapping):
                asked["uses"] = request["uses"]
            break
    return asked


def _request_of(span: OpenedSpan) -> dict[str, Any]:
    request = span.attributes.get("request")
    return dict(request) if isinstance(request, Mapping) else {}
