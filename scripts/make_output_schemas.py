"""Writes the JSON Schemas of what ``--json`` prints, one for each output, which ship in the package.

    python scripts/make_output_schemas.py [--check]

Rows and figures that are classes come from these, so that the two cannot
differ; objects that a function builds are written here. Further keys are always
allowed: a key that goes, or that holds something else, breaks a reader.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hftrace
from hftrace.analysis.compare.comparison import Call
from hftrace.analysis.compare.files import FileKey
from hftrace.analysis.compare.sessions import PART_KEYS
from hftrace.analysis.ending.death import Death
from hftrace.analysis.findings.explained import PARTS
from hftrace.analysis.findings.rules import Finding
from hftrace.analysis.ledger.merges import Merge
from hftrace.analysis.memory.composition import Part
from hftrace.analysis.memory.pinned import Pinned
from hftrace.analysis.memory.released import Memory, Released
from hftrace.analysis.memory.usage import DeviceReading, Reading, State
from hftrace.analysis.plan.against import Difference
from hftrace.analysis.ranks.each import RankFacts
from hftrace.analysis.ranks.job import Job
from hftrace.analysis.time import session
from hftrace.analysis.time.generation import Generation
from hftrace.analysis.time.imports import Bytecode, PackageSum, StorageRead
from hftrace.analysis.time.offloading import MovedModel
from hftrace.analysis.time.placement import Attached, Place, Written
from hftrace.analysis.time.ready import Release, Step
from hftrace.analysis.time.session import Bounds, Stretch
from hftrace.analysis.time.tree import Node
from hftrace.schema.model import File, Import, Request, Sample, Span, Tensor

TARGET = Path(hftrace.__file__).parent / "schema" / "json"
Schema = dict[str, Any]
SIMPLE = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
ANY: Schema = {}
BOOLEAN: Schema = {"type": "boolean"}
INTEGER: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
STRING: Schema = {"type": "string"}


def nullable(schema: Schema) -> Schema:
    """Returns the schema of a value that may be unknown."""
    if set(schema) == {"type"}:
        return {"type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def array(items: Schema) -> Schema:
    """Returns the schema of a list."""
    return {"type": "array", "items": items}


def mapping(values: Schema) -> Schema:
    """Returns the schema of an object whose keys are names."""
    return {"type": "object", "additionalProperties": values}


def record(keys: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """Returns the schema of an object with these keys, and maybe others."""
    return {
        "type": "object",
        "properties": {**keys, **(optional or {})},
        "required": list(keys),
        "additionalProperties": True,
    }


def fields_of(row: type) -> dict[str, Schema]:
    """Returns the schemas of the fields of a dataclass or a named tuple."""
    hints = typing.get_type_hints(row)
    # What a row computes when it is asked is a property of another name.
    return {name: of(hint) for name, hint in hints.items() if typing.get_origin(hint) is not Callable}


def of(hint: Any) -> Schema:
    """Returns the schema of the values that a type hint allows."""
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if hint is Any:
        return ANY
    if origin in (types.UnionType, typing.Union):
        rest = [part for part in arguments if part is not type(None)]
        schema = of(rest[0]) if len(rest) == 1 else {"anyOf": [of(part) for part in rest]}
        return nullable(schema) if len(rest) < len(arguments) else schema
    if dataclasses.is_dataclass(origin) or hasattr(origin, "_fields"):
        return record(fields_of(origin))
    if origin is dict or getattr(origin, "__name__", "") == "Mapping":
        return mapping(of(arguments[1])) if len(arguments) > 1 else {"type": "object"}
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return {"type": "array", "prefixItems": [of(part) for part in arguments], "items": False}
    if origin in (list, tuple) or getattr(origin, "__name__", "") == "Sequence":
        return array(of(arguments[0])) if arguments else {"type": "array"}
    return {"type": SIMPLE[origin]}


FIGURES = {"count": INTEGER, "bytes": INTEGER, "stored_bytes": INTEGER}
SIZES = {
    "total_bytes": nullable(INTEGER),
    "anonymous_bytes": nullable(INTEGER),
    "file_bytes": nullable(INTEGER),
}
COMPOSITION = {
    "load": INTEGER,
    "span": INTEGER,
    "time_ns": nullable(INTEGER),
    "peak_bytes": INTEGER,
    "start_bytes": INTEGER,
    "explained": nullable(NUMBER),
    "overstated_bytes": INTEGER,
    "parts": array(of(Part)),
}
DEVICE_PEAK = {
    "device": STRING,
    "load": INTEGER,
    "span": INTEGER,
    "peak_bytes": INTEGER,
    "explained": nullable(NUMBER),
    "overstated_bytes": INTEGER,
    "parts": array(of(Part)),
    "allocated_bytes": nullable(INTEGER),
    "reserved_bytes": nullable(INTEGER),
    "unused_bytes": nullable(INTEGER),
    "memory_bytes": nullable(INTEGER),
    "outside_allocator_bytes": nullable(INTEGER),
}
WEIGHTS = {
    "checkpoint_bytes": nullable(INTEGER),
    "read_bytes": nullable(INTEGER),
    "mapped_bytes": nullable(INTEGER),
    "reading_ns": nullable(INTEGER),
    "weights_ns": nullable(INTEGER),
    "rate_bytes_per_s": nullable(NUMBER),
    "lazy_bytes": nullable(INTEGER),
    "cache": nullable(STRING),
    "resident_before": nullable(NUMBER),
    "resident_share": nullable(NUMBER),
    "waiting_ns": INTEGER,
    "reader_threads": INTEGER,
    "shards": array(
        record(
            {
                "file": STRING,
                "tensors": INTEGER,
                "bytes": INTEGER,
                "duration_ns": nullable(INTEGER),
                "threads": INTEGER,
            }
        )
    ),
    "tensors": record(
        {
            "count": INTEGER,
            "bytes": INTEGER,
            "by_provenance": mapping(record(FIGURES)),
            "by_dtype": mapping(record(FIGURES)),
            "by_device": mapping(record(FIGURES)),
            "casts": array(record({"from": STRING, "to": STRING, **FIGURES})),
        }
    ),
}
FILES = record(
    {
        "count": INTEGER,
        "missing": array(STRING),
        "errors": array(STRING),
        "downloaded_bytes": INTEGER,
    }
)
HELD = record(
    {
        "anonymous_bytes": nullable(INTEGER),
        "file_bytes": nullable(INTEGER),
        "since_start": nullable(
            record({"anonymous_bytes": nullable(INTEGER), "file_bytes": nullable(INTEGER)})
        ),
        "device_bytes": nullable(mapping(INTEGER)),
        "models": nullable(
            array(
                record(
                    {"load": INTEGER, "span": INTEGER, "class": STRING, "bytes": nullable(mapping(INTEGER))}
                )
            )
        ),
    }
)
LOAD = record(
    {
        "number": INTEGER,
        "span": INTEGER,
        "name": STRING,
        "class": STRING,
        "what": STRING,
        "model": nullable(STRING),
        "adapters": array(STRING),
        "function": nullable(STRING),
        "start_ns": INTEGER,
        "end_ns": INTEGER,
        "status": STRING,
        # As the trace has it.
        "error": ANY,
        "thread": INTEGER,
        "rank": INTEGER,
        "pid": INTEGER,
        "wall_ns": INTEGER,
        "attributed": nullable(NUMBER),
        "phases": mapping(INTEGER),
        # What was asked and what the model says of itself, as the trace has it.
        "request": {"type": "object"},
        "got": {"type": "object"},
        "code": array(
            {
                "type": "object",
                "required": ["file", "repo", "commit", "revision", "sha256", "classes", "pinned"],
                "properties": {
                    "file": STRING,
                    "repo": STRING,
                    "commit": nullable(STRING),
                    "revision": nullable(STRING),
                    "sha256": nullable(STRING),
                    "classes": array(STRING),
                    "pinned": BOOLEAN,
                },
            }
        ),
        "dtype": nullable(
            record(
                {
                    "keyword": nullable(STRING),
                    "asked": nullable(STRING),
                    "default": nullable(STRING),
                    "got": nullable(STRING),
                }
            )
        ),
        "memory": record(
            {
                "rss_peak_bytes": nullable(INTEGER),
                "peak_above_start_bytes": nullable(INTEGER),
                "returned_above_start_bytes": nullable(INTEGER),
                "returned_above_start_anonymous_bytes": nullable(INTEGER),
                "returned_above_start_file_bytes": nullable(INTEGER),
            }
        ),
        "device_peak_bytes": nullable(mapping(INTEGER)),
        "held": HELD,
        **WEIGHTS,
        "tensors_in": array(record({"load": INTEGER, "count": INTEGER})),
        "files": FILES,
        "findings": array(record({"rule": STRING, "name": STRING})),
    }
)
CHILDREN = record(
    {
        "count": INTEGER,
        "python": INTEGER,
        "alive": nullable(INTEGER),
        "cpu_ns": nullable(INTEGER),
        "kinds": array(record({"how": STRING, "name": nullable(STRING), "count": INTEGER})),
    }
)
RELEASED_MEMORY = {
    **fields_of(Memory),
    "anonymous_bytes": nullable(INTEGER),
    "file_bytes": nullable(INTEGER),
    "device_bytes": mapping(INTEGER),
}

SUMMARY = record(
    {
        "model": ANY,
        "class": ANY,
        "command": ANY,
        "start_time": ANY,
        "wall_ns": INTEGER,
        "loads_wall_ns": INTEGER,
        "outside_ns": INTEGER,
        "unrecorded_ns": INTEGER,
        "attributed": nullable(NUMBER),
        "session_attributed": nullable(NUMBER),
        "session": of(Bounds),
        "parts": array(of(session.Part)),
        "returned_ns": nullable(INTEGER),
        "ready_ns": nullable(INTEGER),
        "after_load": array(of(Step)),
        "release": nullable(of(Release)),
        "generation": nullable(
            record(
                {
                    "calls": INTEGER,
                    "counted": INTEGER,
                    "counted_ns": INTEGER,
                    "duration_ns": INTEGER,
                    "new_tokens": INTEGER,
                    "first_token_ns": nullable(INTEGER),
                    "each": array(record({**fields_of(Generation), "tokens_per_s": nullable(NUMBER)})),
                }
            )
        ),
        "released": array(record({**fields_of(Released), "together": BOOLEAN, **RELEASED_MEMORY})),
        "released_together": array(
            record({"spans": array(INTEGER), "weights_bytes": nullable(INTEGER), **RELEASED_MEMORY})
        ),
        "phases": mapping(INTEGER),
        "loads": array(LOAD),
        # What the trace says of its end, as it stands there.
        "outcome": {"type": "object"},
        "overlapping": array(record({"load": INTEGER, "with": array(INTEGER)})),
        "children": nullable(CHILDREN),
        "instead": nullable(
            record(
                {
                    "wall_ns": nullable(INTEGER),
                    "spans": mapping(INTEGER),
                    "imported": array(STRING),
                    "loaders": array(STRING),
                    "mapped": array(STRING),
                    "storage_read_bytes": nullable(INTEGER),
                    "files": INTEGER,
                    "children": nullable(CHILDREN),
                }
            )
        ),
        "rss_peak_bytes": nullable(INTEGER),
        "rss_anon_peak_bytes": nullable(INTEGER),
        "rss_file_peak_bytes": nullable(INTEGER),
        "device_peak_bytes": nullable(mapping(INTEGER)),
        "unmeasured_devices": array(STRING),
        "memory": nullable(
            record(
                {
                    "start": record(SIZES),
                    "peak_bytes": nullable(INTEGER),
                    "peak_time_ns": nullable(INTEGER),
                    "peak_between_samples": nullable(BOOLEAN),
                    "peak_above_start_bytes": nullable(INTEGER),
                    "kept_bytes": nullable(INTEGER),
                    "after": array(record({"phase": STRING, **SIZES, "above_start": record(SIZES)})),
                    "composition": nullable(record(COMPOSITION)),
                    "device_peaks": array(record(DEVICE_PEAK)),
                },
                {"returned": record(SIZES), "returned_above_start": record(SIZES)},
            )
        ),
        **WEIGHTS,
        "files": FILES,
        "findings": array(of(Finding)),
        "silence": record({"claimed": BOOLEAN, "doubts": array(record({"kind": STRING}))}),
    }
)
NODE = record(
    {
        **{name: of(hint) for name, hint in typing.get_type_hints(Node).items() if name != "children"},
        "rate_bytes_per_s": nullable(NUMBER),
        "children": array({"$ref": "#/$defs/node"}),
    }
)
PEAK = nullable(
    record(
        {
            "bytes": INTEGER,
            "time_ns": nullable(INTEGER),
            "span": nullable(INTEGER),
            "exact": BOOLEAN,
            "between_samples": BOOLEAN,
        }
    )
)
TIMELINE = record(
    {
        "start_ns": INTEGER,
        "end_ns": INTEGER,
        "lanes": array(
            record(
                {
                    "name": STRING,
                    "rank": INTEGER,
                    "pid": INTEGER,
                    "thread": INTEGER,
                    "stretches": array(of(tuple[int, int, str])),
                }
            )
        ),
        "readers": array(record({"name": STRING, "rank": INTEGER, "thread": INTEGER, "busy_ns": INTEGER})),
        "waits": array(of(tuple[int, int])),
        "steps": array(of(tuple[int, int, str])),
        "outside": array(of(Stretch)),
    }
)
MEMORY = record(
    {
        "processes": array(
            record(
                {
                    "rank": INTEGER,
                    "pid": INTEGER,
                    "peak": PEAK,
                    "load_peak": PEAK,
                    "limit_bytes": nullable(INTEGER),
                    "limit_kind": ANY,
                    "states": array(of(State)),
                    "above_start": array(of(State)),
                    "readings": array(of(Reading)),
                    "devices": mapping(
                        record({"peak_bytes": nullable(INTEGER), "readings": array(of(DeviceReading))})
                    ),
                }
            )
        ),
        "composition": nullable(record(COMPOSITION)),
        "device_peaks": array(record(DEVICE_PEAK)),
        "pinned_host": nullable(of(Pinned)),
        "merges": array(of(Merge)),
    }
)
WRITTEN = {"written": array(of(Written)), "attached": nullable(of(Attached))}
OFFLOAD = record(
    {
        "placements": array(
            record(
                {
                    "load": INTEGER,
                    "name": STRING,
                    "asked": ANY,
                    "asked_limits": nullable(mapping(ANY)),
                    "computed": BOOLEAN,
                    "places": array(record({**fields_of(Place), "modules": array(STRING)})),
                    "largest_bytes": nullable(INTEGER),
                    "largest_name": nullable(STRING),
                    **WRITTEN,
                }
            )
        ),
        "operations": array(
            record(
                {
                    "span": INTEGER,
                    "name": STRING,
                    "caller": nullable(STRING),
                    "duration_ns": INTEGER,
                    **WRITTEN,
                }
            )
        ),
        "passes": array(of(MovedModel)),
    }
)
MODULE = {
    "class": nullable(STRING),
    "parameters": nullable(INTEGER),
    "trained_parameters": nullable(INTEGER),
    "trained": nullable(STRING),
    "bytes": INTEGER,
    "buffers": nullable(INTEGER),
    "buffer_bytes": INTEGER,
    "dtype": mapping(INTEGER),
    "device": mapping(INTEGER),
    "provenance": mapping(INTEGER),
}
MODEL = record(
    {
        "models": array(
            record(
                {
                    "load": nullable(INTEGER),
                    "rank": INTEGER,
                    "part": nullable(STRING),
                    "watched": nullable(INTEGER),
                    "name": nullable(STRING),
                    "source": nullable(STRING),
                    "classes_known": BOOLEAN,
                    "tensors": INTEGER,
                    "footprint_bytes": nullable(INTEGER),
                    **MODULE,
                    "modules": array(record({"name": STRING, **MODULE}, {"load": array(STRING)})),
                }
            )
        )
    }
)
POSTMORTEM = record(
    {
        **{"sure" if name == "confidence" else name: schema for name, schema in fields_of(Death).items()},
        "progress": nullable(NUMBER),
        "of_limit": nullable(NUMBER),
        "missing_bytes": nullable(INTEGER),
    }
)
METRIC = record(
    {
        "median": nullable(NUMBER),
        "values": array(NUMBER),
        "low": nullable(NUMBER),
        "high": nullable(NUMBER),
        "ratio": nullable(NUMBER),
        "ratio_low": nullable(NUMBER),
        "ratio_high": nullable(NUMBER),
        "p_value": nullable(NUMBER),
        "verdict": nullable(STRING),
        "more_runs": nullable(INTEGER),
    }
)
FILE_STATE = nullable(
    record(
        {
            name: fields_of(File)[name]
            for name in ("result", "size_bytes", "read_bytes", "downloaded_bytes", "opened")
        }
    )
)
TENSOR_GROUP = record(
    {
        "label": STRING,
        "count": INTEGER,
        "change": mapping({"type": "array", "minItems": 2, "maxItems": 2}),
        "bytes_before": INTEGER,
        "bytes_after": INTEGER,
        "names": array(STRING),
    }
)
SESSION_PART = {name: fields_of(session.Part)[name] for name in PART_KEYS}
DIFFERENCE = {
    "attribution": mapping(INTEGER),
    "phase_verdicts": mapping(record({"difference_ns": NUMBER, "p_value": NUMBER, "verdict": STRING})),
    "memory_attribution": array(
        record(
            {
                "kind": STRING,
                "memory": STRING,
                "label": STRING,
                "baseline_bytes": INTEGER,
                "bytes": INTEGER,
                "difference_bytes": INTEGER,
            }
        )
    ),
    "did": array(
        record({"kind": STRING, "detail": STRING, "baseline": record(FIGURES), "variant": record(FIGURES)})
    ),
    "session_attribution": array(
        record(
            {
                **SESSION_PART,
                "baseline_ns": INTEGER,
                "ns": INTEGER,
                "difference_ns": INTEGER,
            }
        )
    ),
    "files": array(record({**fields_of(FileKey), "baseline": FILE_STATE, "variant": FILE_STATE})),
    "functions_only_baseline": array(of(Call)),
    "functions_only_variant": array(of(Call)),
    "tensors": record(
        {
            "same": INTEGER,
            "only_baseline": array(TENSOR_GROUP),
            "only_variant": array(TENSOR_GROUP),
            "changed": array(TENSOR_GROUP),
        }
    ),
}
COMPARE = record(
    {
        "baseline": STRING,
        "caveats": array(
            record({"kind": STRING, "subject": STRING, "text": STRING, "within": nullable(STRING)})
        ),
        "variants": mapping(
            record(
                {
                    "runs": INTEGER,
                    "runs_with_figures": INTEGER,
                    "metrics": mapping(METRIC),
                    "phases": mapping(INTEGER),
                    "session": array(record({**SESSION_PART, "ns": INTEGER})),
                    "load_peak_bytes": nullable(INTEGER),
                },
                # Of every group but the baseline.
                DIFFERENCE,
            )
        ),
        "ranking": record(
            {
                "metric": STRING,
                "order": array(STRING),
                "best": nullable(STRING),
                "call": nullable(STRING),
                "verdict": nullable(STRING),
            }
        ),
    }
)
CHECK = record(
    {
        "ok": BOOLEAN,
        "traces": array(
            record(
                {
                    "trace": STRING,
                    "problem": nullable(STRING),
                    "caveats": array(STRING),
                    "budgets": array(
                        record(
                            {
                                "budget": STRING,
                                "name": STRING,
                                "unit": {"enum": ["ns", "bytes", "count"]},
                                "asked": INTEGER,
                                "found": nullable(INTEGER),
                                "status": {"enum": ["ok", "broken", "unknown"]},
                                "detail": STRING,
                            }
                        )
                    ),
                }
            )
        ),
    }
)
DOCTOR = record(
    {
        "hftrace": STRING,
        "python": STRING,
        "executable": STRING,
        "problems": mapping(STRING),
        "absent": mapping(STRING),
        "hooks": array(record({"target": STRING, "library": STRING, "phase": STRING, "status": STRING})),
        "generation": nullable(STRING),
        "devices": array({"type": "object"}),
        "accelerator": nullable(BOOLEAN),
        "versions": mapping(nullable(STRING)),
        "counters": mapping(BOOLEAN),
        "ram_bytes": nullable(INTEGER),
        "cgroup_limit_bytes": nullable(INTEGER),
        "variables": mapping(STRING),
        "essential": array(STRING),
    }
)
SYNTH_LIST = array(
    record(
        {
            "name": STRING,
            "parameters": INTEGER,
            "data_bytes": INTEGER,
            "dtype": STRING,
            "source": STRING,
            "transformers": STRING,
        }
    )
)
PACKAGE = record(
    {
        "package": STRING,
        "total_ns": INTEGER,
        "self_ns": INTEGER,
        "modules": INTEGER,
        "asked_by": nullable(STRING),
        "guard": nullable(STRING),
        "asked_times": INTEGER,
        "children": array({"$ref": "#/$defs/package"}),
    }
)
IMPORTS = record(
    {
        "imports_ns": INTEGER,
        "collections_ns": INTEGER,
        "modules": INTEGER,
        "packages": array(of(PackageSum)),
        "trees": mapping({"$ref": "#/$defs/package"}),
        "optional": nullable(
            array(
                record(
                    {
                        "package": STRING,
                        "distributions": array(STRING),
                        "asked_by": STRING,
                        "guard": nullable(STRING),
                        "spared_ns": INTEGER,
                        "modules": INTEGER,
                        "brings": array(STRING),
                        "dependents": array(STRING),
                        "environment": mapping(STRING),
                        "program_line": STRING,
                    }
                )
            )
        ),
        "bytecode": nullable(of(Bytecode)),
        "storage_read": nullable(of(StorageRead)),
        "rows": array(record({**fields_of(Import), "chain": array(STRING)})),
    }
)
EXPLAIN = record(
    {
        "rule": STRING,
        "findings": array(record(dict.fromkeys(("name", "severity", "concerns", "meaning"), STRING))),
        **dict.fromkeys(PARTS.values(), nullable(STRING)),
    }
)
SIZES_BY_NAME = mapping(INTEGER)
VERSIONS = nullable(mapping(nullable(STRING)))
PLAN_CHANGE = {
    "keywords": {"type": "object"},
    "words": STRING,
    "changes_results": BOOLEAN,
    "needs": nullable(SIZES_BY_NAME),
    "needs_at_most": nullable(SIZES_BY_NAME),
    "bytes_by_device": nullable(SIZES_BY_NAME),
}
PLAN = record(
    {
        "model": STRING,
        "known": BOOLEAN,
        "unknown_because": nullable(STRING),
        "class": nullable(STRING),
        "versions": VERSIONS,
        "loader": nullable({"type": "object"}),
        "python": nullable(STRING),
        "parameters": nullable(INTEGER),
        "bytes_by_dtype": nullable(SIZES_BY_NAME),
        "bytes_by_device": nullable(SIZES_BY_NAME),
        "buffer_bytes": nullable(INTEGER),
        "device_map": nullable(mapping(STRING)),
        "tied": nullable(array(STRING)),
        "tensors": nullable(mapping(record({"count": INTEGER, "bytes": INTEGER, "names": array(STRING)}))),
        **dict.fromkeys(
            (
                "peak_anon_bytes",
                "peak_total_bytes",
                "peak_anon_at_least_bytes",
                "peak_total_at_least_bytes",
                "peak_anon_at_most_bytes",
                "peak_total_at_most_bytes",
                "start_anon_bytes",
                "start_total_bytes",
                "end_anon_bytes",
                "end_total_bytes",
                "unread_bytes",
                "offload_written_bytes",
                "cache_bytes",
            ),
            nullable(INTEGER),
        ),
        "peak_unknown_because": nullable(STRING),
        "peak_device_bytes": nullable(SIZES_BY_NAME),
        "peak_phases": nullable(mapping(STRING)),
        "phases": nullable({"anyOf": [{"type": "object"}, {"type": "array"}]}),
        "cache_unknown_because": nullable(STRING),
        "needs": nullable(SIZES_BY_NAME),
        "needs_at_most": nullable(SIZES_BY_NAME),
        "limits": mapping({"type": ["integer", "string", "null"]}),
        "fits": nullable(BOOLEAN),
        "short_bytes": SIZES_BY_NAME,
        "change": nullable(record(PLAN_CHANGE)),
    },
    {
        "against": array(
            record(
                {
                    "figure": STRING,
                    "planned": nullable(INTEGER),
                    "measured": nullable(INTEGER),
                    "difference": nullable(NUMBER),
                }
            )
        ),
        "against_differs": array(record(fields_of(Difference))),
    },
)
FLOOR = record(
    {
        "model": STRING,
        "measured_at": STRING,
        "filesystem": nullable(STRING),
        "bytes": INTEGER,
        "readers": INTEGER,
        **dict.fromkeys(
            (
                "cold_bytes_per_s",
                "cold_readers_bytes_per_s",
                "warm_bytes_per_s",
                "warm_readers_bytes_per_s",
            ),
            nullable(INTEGER),
        ),
        "import_ns": SIZES_BY_NAME,
        "kept": nullable(STRING),
    },
    {
        "copy_bytes_per_s": INTEGER,
        "cast_bytes_per_s": INTEGER,
        "pinned_bytes_per_s": SIZES_BY_NAME,
        "pageable_bytes_per_s": SIZES_BY_NAME,
    },
)
RANKS = record(
    {
        "ranks": array(INTEGER),
        "job": nullable(
            record(
                {
                    **fields_of(Job),
                    "ranks": array(
                        record(
                            {
                                **fields_of(RankFacts),
                                "busy_ns": INTEGER,
                                "committed_bytes": nullable(INTEGER),
                            }
                        )
                    ),
                }
            )
        ),
        "outcome": nullable(array(ANY)),
    }
)
COMPARISON = {**COMPARE, "required": [key for key in COMPARE["required"] if key != "ranking"]}
JUDGEMENT = nullable(record({"ratio": nullable(NUMBER), "p_value": nullable(NUMBER), "verdict": STRING}))
EQUALITY = nullable(record({"proven": BOOLEAN, "how": STRING}))
CALL = nullable(
    record(
        {
            "python": STRING,
            "class": nullable(STRING),
            "keywords": {"type": "object"},
            "environment": mapping(STRING),
            "collector": nullable(STRING),
        }
    )
)
TUNE = record(
    {
        "objective": STRING,
        "metric": STRING,
        "better": BOOLEAN,
        "verdict": nullable(STRING),
        "ratio": nullable(NUMBER),
        "settings": array(STRING),
        "call": CALL,
        "plain": CALL,
        "equal": EQUALITY,
        "tried": array(
            record(
                {
                    "name": STRING,
                    "keywords": {"type": "object"},
                    "without": array(STRING),
                    "environment": mapping(STRING),
                    "collector": nullable(STRING),
                    "changes": array(STRING),
                    "finding": nullable(STRING),
                    "alone": JUDGEMENT,
                    "without_it": JUDGEMENT,
                    "equal": EQUALITY,
                    "peak_bytes": nullable(INTEGER),
                    "reason": nullable(STRING),
                }
            )
        ),
        "max_peak_bytes": nullable(INTEGER),
        "plain_peak_bytes": nullable(INTEGER),
        "best_peak_bytes": nullable(INTEGER),
        "budget_seconds": NUMBER,
        "spent_seconds": NUMBER,
        "notes": array(STRING),
        "comparison": nullable(COMPARISON),
        "directory": STRING,
        "proof_directory": nullable(STRING),
    }
)
BISECT = record(
    {
        "metric": STRING,
        "good": STRING,
        "bad": STRING,
        "candidates": array(STRING),
        "first_bad": nullable(STRING),
        "last_good": nullable(STRING),
        "suspects": array(STRING),
        "proven": BOOLEAN,
        "verdict": nullable(STRING),
        "ratio": nullable(NUMBER),
        "phases": mapping(INTEGER),
        "phase_verdicts": mapping(record({"difference_ns": NUMBER, "p_value": NUMBER, "verdict": STRING})),
        "steps": array(
            record(
                {
                    "label": STRING,
                    "subject": nullable(STRING),
                    "side": STRING,
                    "reason": nullable(STRING),
                    "transformers": nullable(STRING),
                    "values": mapping(array(NUMBER)),
                    "between": nullable(BOOLEAN),
                    "against_good": JUDGEMENT,
                    "against_bad": JUDGEMENT,
                }
            )
        ),
        "comparison": nullable(COMPARISON),
        "directory": STRING,
        "proof_directory": nullable(STRING),
    }
)
VIEWS = {
    "summary": SUMMARY,
    "loads": array(LOAD),
    "ranks": RANKS,
    "tree": array({"$ref": "#/$defs/node"}),
    "timeline": TIMELINE,
    "model": MODEL,
    "imports": IMPORTS,
    "spans": array(of(Span)),
    "tensors": array(of(Tensor)),
    "files": array(of(File)),
    "requests": array(of(Request)),
    "samples": array(of(Sample)),
    "memory": MEMORY,
    "offload": OFFLOAD,
    "postmortem": POSTMORTEM,
}
OUTPUTS: dict[str, tuple[str, Schema]] = {
    **{f"show-{name}": (f"hftrace show TRACE --view {name} --json", each) for name, each in VIEWS.items()},
    "show-all": ("hftrace show TRACE --view all --json", record(VIEWS)),
    "compare": ("hftrace compare ... --json", COMPARE),
    "check": ("hftrace check ... --json", CHECK),
    "doctor": ("hftrace doctor --json", DOCTOR),
    "plan": ("hftrace plan MODEL --json", PLAN),
    "floor": ("hftrace floor MODEL --json", FLOOR),
    "tune": ("hftrace tune MODEL --json", TUNE),
    "bisect": ("hftrace bisect MODEL ... --json", BISECT),
    "explain": ("hftrace explain RULE --json", EXPLAIN),
    "explain-all": ("hftrace explain --json", array(EXPLAIN)),
    "synth-list": ("hftrace synth --list --json", SYNTH_LIST),
}
PARTS = {"node": NODE, "package": PACKAGE}
"""Objects that hold others of their kind."""
SAME = {"show-summary": "; so do hftrace show TRACE --json, hftrace load --json and hftrace recover --json"}


def document(name: str) -> Schema:
    """Returns the schema of an output as it is written."""
    command, schema = OUTPUTS[name]
    made: Schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": name,
        "description": f"`{command}` prints this{SAME.get(name, '')}. Times are nanoseconds, sizes bytes, "
        "shares 0 to 1; what is not known is null. Readers ignore keys that they do not know.",
        **schema,
    }
    text = json.dumps(schema)
    parts = {name: each for name, each in PARTS.items() if f"#/$defs/{name}" in text}
    if parts:
        made["$defs"] = parts
    return made


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say whether the files are current")
    check = parser.parse_args().check
    TARGET.mkdir(exist_ok=True)
    texts = {TARGET / f"{name}.schema.json": json.dumps(document(name), indent=1) + "\n" for name in OUTPUTS}
    old = {path for path in TARGET.iterdir() if path.suffix == ".json"} - texts.keys()
    wrong = [
        path for path, text in texts.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if not check:
        for path in wrong:
            path.write_text(texts[path], encoding="utf-8")
        for path in old:
            path.unlink()
        return 0
    for path in [*wrong, *sorted(old)]:
        sys.stdout.write(f"{path} is not current: run python scripts/make_output_schemas.py\n")
    return 1 if wrong or old else 0


if __name__ == "__main__":
    sys.exit(main())
