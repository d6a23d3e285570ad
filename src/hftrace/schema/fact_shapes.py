"""The known facts of a trace's blocks and of its spans, and of the lines of a journal: what each has to be.

Facts that are not named here may be anything: a newer hftrace wrote them, and nobody here reads them.
"""

from __future__ import annotations

from typing import Any, Final

TEXT: Final = "text"
FLAG: Final = "flag"
AMOUNT: Final = "amount"
"""An integer that is not negative: bytes, a duration, a count, an id."""
INTEGER: Final = "integer"
NUMBER: Final = "number"
"""A rate or so: an integer or a float, and not negative."""
SHARE: Final = "share"
ANY: Final = "any"
Shape = Any
"""One of these words; ``[shape]`` is a list, ``{"name": shape}`` an object, where ``*`` is any other name;
``(shape, shape)`` is one or the other."""

_TEXTS = [TEXT]
_BY_NAME = {"*": TEXT}
_AMOUNTS = {"*": AMOUNT}
_REQUEST = {
    "class": TEXT,
    "model": TEXT,
    "what": TEXT,
    "revision": TEXT,
    "path": TEXT,
    "commit": TEXT,
    "quantization": TEXT,
    "quantization_bits": NUMBER,
    "dequantize": FLAG,
    "keywords": {"*": ANY},
    "uses": _BY_NAME,
    "ignored": [{"keyword": TEXT, "versions": TEXT}],
    "cache": {
        "asked": TEXT,
        "bytes": AMOUNT,
        "duration_ns": AMOUNT,
        "files": AMOUNT,
        "problem": TEXT,
        "resident_before": SHARE,
        "resident_after": SHARE,
    },
}
_ERROR = {"type": TEXT, "message": TEXT, "traceback": TEXT, "raised_at": TEXT, "raised_in": TEXT}
_BYTES_HELD = {"rss_anon_bytes": AMOUNT, "rss_file_bytes": AMOUNT, "rss_shmem_bytes": AMOUNT}

_MOVES = dict.fromkeys(
    (
        *("passes", "pass_ns", "hooks", "modules", "in_ns", "out_ns"),
        *("disk_tensors", "disk_bytes", "memory_tensors", "memory_bytes"),
    ),
    AMOUNT,
)
_MOVED: dict[str, Shape] = {
    **dict.fromkeys(("number", "load", "passes", "pass_ns", "unfinished", "left_out"), AMOUNT),
    "class": TEXT,
    "device": TEXT,
    "modules": [[ANY]],
}

BLOCKS: dict[str, dict[str, Shape]] = {
    "header": {
        "hftrace": TEXT,
        "command": TEXT,
        "argv": _TEXTS,
        "start_time": TEXT,
        "clock_base_ns": INTEGER,
        "wall_ns": AMOUNT,
        "world_size": AMOUNT,
        "peaks": TEXT,
        "recovered": FLAG,
        "child": {"start_ns": AMOUNT, "end_ns": AMOUNT},
        "children": {
            "count": INTEGER,
            "alive": INTEGER,
            "cpu_ns": AMOUNT,
            "unrecorded": [
                {
                    "how": TEXT,
                    "name": TEXT,
                    "parent": INTEGER,
                    "pid": INTEGER,
                    "python": FLAG,
                    "time_ns": INTEGER,
                }
            ],
        },
        "calls": {"left_out": {"*": {"calls": AMOUNT, "duration_ns": AMOUNT}}},
        "errors": [{"hook": TEXT, "message": TEXT}],
        "moves": [{"pid": INTEGER, "rank": AMOUNT, **_MOVED}],
        "lost": {"*": ANY},
        "measured": _BY_NAME,
        "processes": [{"pid": INTEGER, "rank": AMOUNT, "at_start": _BYTES_HELD}],
        "process": {"pid": INTEGER},
        "sampling": {
            "rate_asked_hz": NUMBER,
            "rate_reached_hz": NUMBER,
            "source": TEXT,
            "missing": _BY_NAME,
            "limit": {"time_ns": INTEGER, "rss_anon_bytes": AMOUNT, "limit_bytes": AMOUNT},
            "ended": [
                {
                    "how": TEXT,
                    "signal": TEXT,
                    "exit_code": INTEGER,
                    "reason": TEXT,
                    "time_ns": INTEGER,
                    "replaced_by": TEXT,
                }
            ],
        },
        "session": {
            "start_ns": INTEGER,
            "end_ns": INTEGER,
            "entered_at": TEXT,
            "left_at": TEXT,
            "recorded_until_ns": INTEGER,
        },
        "surroundings": {"imported": _TEXTS, "mapped": _TEXTS, "storage_read_bytes": AMOUNT},
        "watched": [ANY],
        "threads": [{"pid": INTEGER, "thread": AMOUNT, "name": TEXT}],
        "variant": {"name": TEXT, "round": INTEGER, "environment": {"*": ANY}},
    },
    "environment": {
        "python": TEXT,
        "torch": TEXT,
        "transformers": TEXT,
        "accelerate": TEXT,
        "safetensors": TEXT,
        "huggingface_hub": TEXT,
        "os": TEXT,
        "machine": TEXT,
        "filesystem": TEXT,
        "generation": TEXT,
        "cpu_count": AMOUNT,
        "usable_cpu_count": AMOUNT,
        "ram_bytes": AMOUNT,
        "cgroup_limit_bytes": AMOUNT,
        "changed_globals": [ANY],
        "device_memory": {
            "source": TEXT,
            "reason": TEXT,
            "pinned_bytes": ({"current": AMOUNT, "peak": AMOUNT}, AMOUNT),
        },
        "devices": [
            {
                "device": TEXT,
                "name": TEXT,
                "memory_bytes": AMOUNT,
                "total_bytes": AMOUNT,
                "used_bytes": AMOUNT,
                "outside_allocator_bytes": AMOUNT,
            }
        ],
        "hooks": {"found": AMOUNT, "missing": _TEXTS, "stand_ins": _BY_NAME},
        "loader": {
            "traced_as": TEXT,
            "versions": TEXT,
            "default_dtype": TEXT,
            "dtype_keyword": TEXT,
            "always_meta": FLAG,
            "meta_buffers": FLAG,
            "collects_after_shards": FLAG,
        },
        "resource_limits": _AMOUNTS,
        "variables": _BY_NAME,
    },
    "request": _REQUEST,
    "outcome": {
        "status": TEXT,
        "error": _ERROR,
        "cause": _ERROR,
        "block_error": TEXT,
        "signal": TEXT,
        "exit_code": INTEGER,
        "exit_message": TEXT,
        "usage": FLAG,
        "killer": TEXT,
        "limit_bytes": AMOUNT,
        "limit_kind": TEXT,
        "last_phase": TEXT,
        "last_file": TEXT,
        "last_tensor": TEXT,
        "last_tensor_file": TEXT,
        "last_tensor_ns": INTEGER,
        "died_in": TEXT,
        "load": AMOUNT,
        "span": AMOUNT,
        "stack": TEXT,
        "timeout_seconds": NUMBER,
        "anon_at_death_bytes": AMOUNT,
        "memory_at_death_bytes": AMOUNT,
        "placed_bytes": AMOUNT,
        "remaining_bytes": AMOUNT,
        "predicted_anon_bytes": AMOUNT,
        "returned_resident_share": SHARE,
        "reading": [{"tensor": TEXT, "file": TEXT, "since_ns": INTEGER, "thread": AMOUNT}],
        "stalls": [
            {
                "time_ns": INTEGER,
                "silent_ns": AMOUNT,
                "phase": TEXT,
                "hosts": _TEXTS,
                "stack": TEXT,
                "last_stack": TEXT,
            }
        ],
        "device": {
            "device": TEXT,
            "allocated_bytes": AMOUNT,
            "allowed_bytes": AMOUNT,
            "asked_bytes": AMOUNT,
            "free_bytes": AMOUNT,
            "memory_bytes": AMOUNT,
            "outside_allocator_bytes": AMOUNT,
            "predicted_bytes": AMOUNT,
            "reserved_bytes": AMOUNT,
        },
    },
}
"""By block: what its facts have to be. A null is always allowed."""

ATTRIBUTES: dict[str, Shape] = {
    "request": (_REQUEST, FLAG),
    "got": {
        "class": TEXT,
        "classes": _TEXTS,
        "dtype": TEXT,
        "source": TEXT,
        "attn_implementation": TEXT,
        "tie_word_embeddings": FLAG,
        "device_map": {"*": ANY},
        "foreign_files": _TEXTS,
        "kept_in_float32": _TEXTS,
        "sub_configs": _TEXTS,
        "quantization": {
            "method": TEXT,
            "quantizer": TEXT,
            "bits": NUMBER,
            "pre_quantized": FLAG,
            "skipped": _TEXTS,
        },
        "footprint_bytes": AMOUNT,
        "parts": [
            {"class": TEXT, "config": TEXT, "prefix": TEXT, "dtype": TEXT, "attn_implementation": TEXT}
        ],
    },
    "returned": TEXT,
    "class": TEXT,
    "model": TEXT,
    "what": TEXT,
    "error": TEXT,
    "file": TEXT,
    "name": TEXT,
    "repo": TEXT,
    "folder": TEXT,
    "device": TEXT,
    "dtype": TEXT,
    "host": TEXT,
    "caller": TEXT,
    "caller_function": TEXT,
    "raised_at": TEXT,
    "raised_in": TEXT,
    "inputs_from": TEXT,
    "target": TEXT,
    "tokenizer": TEXT,
    "bytes": AMOUNT,
    "own_ns": AMOUNT,
    "files": AMOUNT,
    "shard": AMOUNT,
    "shards": AMOUNT,
    "tensors": AMOUNT,
    "keys": AMOUNT,
    "modules": ANY,  # how many, of imports; their names, of a container
    "imports": AMOUNT,
    "moved": AMOUNT,
    "renamed": AMOUNT,
    "verified": AMOUNT,
    "unverified": AMOUNT,
    "measured": AMOUNT,
    "unmeasured": AMOUNT,
    "different": AMOUNT,
    "collected": AMOUNT,
    "heap_free_bytes": AMOUNT,
    "heap_free_start_bytes": AMOUNT,
    "kept_anon_bytes": INTEGER,
    "kept_file_bytes": INTEGER,
    "automatic": FLAG,
    "body": FLAG,
    "cold": FLAG,
    "container": FLAG,
    "freed": FLAG,
    "part": FLAG,
    "stale": FLAG,
    "changed_by": _TEXTS,
    "missing": _TEXTS,
    "mismatched": _TEXTS,
    "unexpected": _TEXTS,
    "operations": _TEXTS,
    "weight_files": _TEXTS,
    "alive": [INTEGER],
    "packages": [[ANY]],
    "structure": ANY,  # hftrace.schema.structure takes all of it or none
    "structure_now": ANY,
    "devices": _AMOUNTS,
    "elsewhere": (_AMOUNTS, AMOUNT),
    "address_space": _AMOUNTS,
    "inputs": _BY_NAME,
    "asked": TEXT,
    "batch": AMOUNT,
    "cache": {"class": TEXT, "bytes": _AMOUNTS},
    "characters": AMOUNT,
    "chat": FLAG,
    "first_text_ns": AMOUNT,
    "first_token_ns": AMOUNT,
    "inner_calls": AMOUNT,
    "new_tokens": AMOUNT,
    "of_load": AMOUNT,
    "limits": _AMOUNTS,
    "largest_layer": {"bytes": AMOUNT, "names": _TEXTS},
    "attached": {"hooks": AMOUNT, "offloaded": AMOUNT},
    "written": [{"files": AMOUNT, "bytes": AMOUNT, "duration_ns": AMOUNT, "format": TEXT, "folder": TEXT}],
    "moves": _MOVES,
    "prompt_tokens": AMOUNT,
    "sequences": AMOUNT,
    "steps": AMOUNT,
    "streamer": TEXT,
    "text": TEXT,
    "text_characters": AMOUNT,
    "token_ns": {"median": AMOUNT, "first": AMOUNT, "last": AMOUNT},
    "tokens": AMOUNT,
    "task": TEXT,
}
"""The same of the attributes of spans, of any phase. ``request`` is a flag in spans of the Hub's client."""

FACTS: dict[str, dict[str, Shape]] = {
    **BLOCKS,
    "at_start": _BYTES_HELD,
    "child": BLOCKS["header"]["children"]["unrecorded"][0],
    "children": {"count": INTEGER, "alive": INTEGER, "cpu_ns": AMOUNT},
    "process": {"rank": AMOUNT, "ranks": AMOUNT},
    "session": {"start_ns": AMOUNT, "end_ns": AMOUNT, "entered_at": TEXT, "left_at": TEXT},
    "surroundings": BLOCKS["header"]["surroundings"],
    "got": {"span": AMOUNT, **ATTRIBUTES["got"]},
    "keyword_uses": {"span": AMOUNT, "uses": _BY_NAME},
    "own": {"thread": AMOUNT, "until_ns": AMOUNT},
    "calls": BLOCKS["header"]["calls"],
    "moves": _MOVED,
    "released": {"load": AMOUNT, "class": TEXT, "time_ns": AMOUNT, "thread": AMOUNT},
    "adapter_prefix": {"prefix": TEXT},
    "stale": {"load": AMOUNT, "changed_by": _TEXTS},
    "ties": {"groups": [_TEXTS]},
    "tied": {"load": AMOUNT, "sources": {"*": ANY}},
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
