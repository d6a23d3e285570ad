"""Traces that timelines have to hold: made by hand, recorded, and odd in every way that a file may be."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import handmade
import handmade_loads
import handmade_memory
from hftrace.schema.model import Request, Table
from hftrace.schema.trace import Trace

ROOT = Path(__file__).parents[1]
RECORDED = (
    *("tests/data/trace-1.0.json", "tests/data/trace-1.3.json"),
    *("tests/data/gpu/llama-7b-bnb4-5.24.0.json.gz", "tests/data/gpu/llama-7b-cuda-4.57.6.json.gz"),
    *("tests/data/gpu/llama-7b-cuda-5.24.0.json.gz", "tests/data/gpu/llama-7b-offload-5.24.0.json.gz"),
    *("traces/examples/imports-C-4.57.6.json", "traces/examples/llama-D-5.23.0-limit.json"),
    *("traces/examples/llama-A-4.48.3.json", "traces/examples/mixtral-D-5.23.0-gpu.json"),
)


def overlapping():
    """Steps of coroutines that take turns on one thread, with loads in them."""
    made = handmade.Builder()
    for number, (start, end) in enumerate([(0, 50), (20, 90), (30, 60), (70, 120), (95, 99)]):
        step = made.span(None, "step", f"coroutine {number}", start, end)
        load = made.span(step, "load", f"model {number}", start + 1, end - 1, attributes={"number": number})
        made.span(load, "weights", f"weights {number}", start + 1, end - 2)
    return made.trace()


def odd():
    """Spans whose ends do not fit: a little, which is cut, and a lot; attributes of every type."""
    made = handmade.Builder()
    made.request["model"] = "\x7f\x9b[2J\u2028"
    root = made.span(None, "load", "root", 0, 100)
    made.span(root, "config", "a little longer", 10, 100 + 0.0005)
    made.span(root, "weights", "much longer", 20, 300)
    values = {
        "none": None,
        "number": 12345678901234567890123,
        "float": 1e300,
        "true": True,
        "text": 'quoted "text"\\ \n\t\x00 \ud800 模型 </script>',
        "list": [1, [2, {"deep": [None]}], []],
        "": {"": {"a.b": 1, "a": {"b": 2}}},
        "many": list(range(100_000)),
    }
    made.span(None, "step", 'say "x" \\ 模型 é', 400, 410, attributes=values)
    made.span(None, "step", "", 410, 410)
    trace = made.trace()
    requests = [
        Request(10_000_000 + start, length, "GET", "hub", f"/m/{start}", 200, 7, 1, root)
        for start, length in [(0, 50), (10, 100), (20, 10), (60, None), (200, 5)]
    ]
    return Trace.of_content(dataclasses.replace(trace, requests=Table.of(Request, requests)))


def traces():
    named = {name: make() for name, make in handmade.ALL.items()}
    named |= {"service": handmade_loads.service(), "adapted": handmade_loads.adapted()}
    named |= {"two ranks": handmade_memory.two_ranks(), "dead": handmade_memory.dead()}
    named |= {"deep": handmade.deep(), "empty": handmade.empty(), "hostile": handmade.hostile()}
    named |= {"overlapping": overlapping(), "odd": odd()}
    return named | {Path(path).name: Trace.open(ROOT / path) for path in RECORDED}
