"""What the facts of a journal's lines have to be, where no block or attribute of a trace says it."""

from __future__ import annotations

from hftrace.schema.attach_shapes import ATTACHED
from hftrace.schema.fact_shapes import ATTRIBUTES, BLOCKS, BY_NAME, BYTES_HELD, MOVED, TEXTS
from hftrace.schema.rank_shapes import OF_JOB
from hftrace.schema.shapes import AMOUNT, ANY, FLAG, INTEGER, TEXT, Shape

FACTS: dict[str, dict[str, Shape]] = {
    **BLOCKS,
    "attached": ATTACHED,
    "at_start": BYTES_HELD,
    "child": BLOCKS["header"]["children"]["unrecorded"][0],
    "children": {"count": INTEGER, "alive": INTEGER, "cpu_ns": AMOUNT},
    "process": {"rank": AMOUNT, "ranks": AMOUNT, **OF_JOB},
    "session": {"start_ns": AMOUNT, "end_ns": AMOUNT, "entered_at": TEXT, "left_at": TEXT},
    "surroundings": BLOCKS["header"]["surroundings"],
    "got": {"span": AMOUNT, **ATTRIBUTES["got"]},
    "keyword_uses": {"span": AMOUNT, "uses": BY_NAME},
    "own": {"thread": AMOUNT, "until_ns": AMOUNT},
    "calls": BLOCKS["header"]["calls"],
    "moves": MOVED,
    "released": {"load": AMOUNT, "class": TEXT, "time_ns": AMOUNT, "thread": AMOUNT},
    "adapter_prefix": {"prefix": TEXT},
    "stale": {"load": AMOUNT, "changed_by": TEXTS},
    "ties": {"groups": [TEXTS]},
    "tied": {"load": AMOUNT, "sources": {"*": ANY}},
    "by_key": {"load": AMOUNT, "path": TEXT, "refused": TEXTS},
    "reading": {"open": [[AMOUNT]]},
}
"""By block of a journal's line of facts: what they have to be."""
LINES: dict[str, dict[str, Shape]] = {
    "attributes": ATTRIBUTES,
    "file": {
        "name": TEXT,
        "path": TEXT,
        "result": TEXT,
        "size": AMOUNT,
        "identity": [INTEGER],
        "where": TEXT,
        "client": FLAG,
    },
    "download": {"name": TEXT, "where": TEXT, "bytes": AMOUNT, "ok": FLAG},
    "answer": {"bytes": AMOUNT, "end_ns": AMOUNT, "error": TEXT},
    "model": {
        "class": TEXT,
        "module": TEXT,
        "base_model_prefix": TEXT,
        "offloaded_to": TEXT,
        "quantizer": TEXT,
        "training": FLAG,
        "device_map": {"*": ANY},
    },
}
"""The same of other lines of a journal that hold facts."""
REQUIRED: dict[str, tuple[str, ...]] = {
    "child": ("time_ns",),
    "process": ("rank", "ranks"),
    "own": ("thread", "until_ns"),
    "released": ("load", "class", "time_ns", "thread"),
    "got": ("span",),
    "keyword_uses": ("span",),
    "file": ("name",),
}
"""Facts without which nothing can be made of the others."""
