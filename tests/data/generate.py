"""Traces that tests read: a small one with everything in it, and large ones.

    python tests/data/generate.py          writes trace-VERSION.json for the version of today

The file of a released version is never written again: see README.md here.
Nothing in it was measured; the values are made up, and the same in every run.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

from hftrace.schema.document import VERSION
from hftrace.schema.model import Facts, File, Import, Request, Sample, Span, Table, Tensor
from hftrace.schema.trace import Trace

HERE = Path(__file__).resolve().parent
GIB = 1 << 30

LAYER = (
    ("input_layernorm.weight", (1,)),
    ("self_attn.q_proj.weight", (1, 1)),
    ("self_attn.k_proj.weight", (4, 1)),
    ("self_attn.v_proj.weight", (4, 1)),
    ("self_attn.o_proj.weight", (1, 1)),
    ("post_attention_layernorm.weight", (1,)),
    ("mlp.gate_proj.weight", (0.4, 1)),
    ("mlp.up_proj.weight", (0.4, 1)),
    ("mlp.down_proj.weight", (1, 0.4)),
)
"""The tensors of a layer; each dimension is the hidden size divided by the number."""


def _tensor(name: str | None, **values: Any) -> Tensor:
    row: dict[str, Any] = {
        "name": name,
        "kind": "parameter",
        "provenance": "checkpoint",
        "keys": [] if name is None else [name],
        "file": None,
        "offset": None,
        "shape": None,
        "stored_dtype": None,
        "dtype": "bfloat16",
        "stored_bytes": None,
        "bytes": None,
        "device": "cpu",
        "tied_to": None,
        "read_start_ns": None,
        "read_end_ns": None,
        "placed_ns": None,
        "thread": None,
        "span": None,
    }
    return Tensor(**{**row, **values})


def _file(name: str, **values: Any) -> File:
    row: dict[str, Any] = {
        "name": name,
        "path": f"/models/tiny/{name}",
        "asked_by": 3,
        "result": "local",
        "size_bytes": 1200,
        "downloaded_bytes": None,
        "requests": 0,
        "shard": None,
        "format": name.rpartition(".")[2],
        "resident_before": 1,
        "resident_after": 1.0,
        "opened": True,
        "read_bytes": None,
    }
    return File(**{**row, **values})


def _span(identity: int, parent: int | None, phase: str, start_ns: int, end_ns: int, **values: Any) -> Span:
    row: dict[str, Any] = {
        "name": phase,
        "function": f"transformers.modeling_utils.{phase}",
        "source": f"transformers/modeling_utils.py:{100 + identity}",
        "pid": 4242,
        "thread": 4242,
        "rank": 0,
        "status": "ok",
        "attributes": {},
        "rss_anon_start_bytes": 400_000_000 + start_ns // 1000,
        "rss_anon_bytes": 400_000_000 + end_ns // 1000,
        "rss_file_start_bytes": 210_000_000,
        "rss_file_bytes": 210_000_000,
        "rss_peak_bytes": 610_000_000 + end_ns // 1000,
    }
    row.update(values)
    return Span(id=identity, parent=parent, phase=phase, start_ns=start_ns, end_ns=end_ns, **row)


IMPORTS = [
    Import(1, None, "transformers", "transformers", 1, 5_000_000, 900_000_000, 260_000_000, 1, "bytecode"),
    Import(
        id=2,
        parent=1,
        name="scipy.optimize",
        package="scipy",
        span=1,
        start_ns=100_000_000,
        end_ns=500_000_000,
        self_ns=50_000_000,
        modules=1,
        made_of="source",
        compiled=1,
        compile_ns=9_000_000,
        file_bytes=14_280,
        where="installed",
        importer="transformers.loss.loss_for_object_detection",
        importer_line=27,
        guard="if is_scipy_available()",
        collect_ns=100_000_000,
    ),
    Import(3, 2, None, "scipy", 1, None, None, 250_000_000, 180),
    Import(4, 1, None, "json", 1, None, None, 25_000_000, 5, where="standard"),
]
"""What the process has imported: two modules that took long, and sums of others."""


def make_trace(*, tensors: int = 39, shards: int = 3, samples: int = 40, seed: int = 7) -> Trace:
    """Returns the trace of a made-up load of about ``tensors`` checkpoint tensors."""
    chance = random.Random(seed)
    hidden, clock = 2048, 180_000_000
    names: list[tuple[str, list[int]]] = [("model.embed_tokens.weight", [32000, hidden])]
    layer = 0
    while len(names) < tensors - 2:
        for suffix, divisors in LAYER:
            shape = [round(hidden / divisor) for divisor in divisors]
            names.append((f"model.layers.{layer}.{suffix}", shape))
        layer += 1
    names = [
        *names[: max(1, tensors - 2)],
        ("model.norm.weight", [hidden]),
        ("lm_head.weight", [32000, hidden]),
    ]

    rows: list[Tensor] = []
    offsets = [8 + 40 * len(names)] * shards
    first_shard_span = 8
    bounds: list[list[int]] = [[] for _ in range(shards)]
    for index, (name, shape) in enumerate(names):
        shard = index * shards // len(names)
        size = 2
        for dimension in shape:
            size *= dimension
        start = clock + chance.randrange(800, 3000)
        end = start + chance.randrange(2000, 60000)
        placed = end + chance.randrange(500, 9000)
        rows.append(
            _tensor(
                name,
                file=f"model-{shard + 1:05}-of-{shards:05}.safetensors",
                offset=offsets[shard],
                shape=shape,
                stored_dtype="float32" if name.endswith("norm.weight") else "bfloat16",
                stored_bytes=size * (2 if name.endswith("norm.weight") else 1),
                bytes=size,
                read_start_ns=start,
                read_end_ns=end,
                placed_ns=placed,
                thread=4243 + chance.randrange(4),
                span=first_shard_span + shard,
                convert_start_ns=end,
                convert_end_ns=end + chance.randrange(100, 900),
            )
        )
        offsets[shard] += size
        bounds[shard] += [start, placed]
        clock = placed
    rows += [
        _tensor(
            "model.rotary_emb.inv_freq", kind="buffer", provenance="computed", dtype="float32", shape=[32]
        ),
        _tensor("score.weight", provenance="initialized", shape=[2, hidden], bytes=4 * hidden),
        _tensor("score.bias", provenance="tied", tied_to="score.weight", shape=[2], bytes=4),
        _tensor("scale", shape=[], bytes=2, keys=["scale_a", "scale_b"], provenance="converted"),
        _tensor(
            None,
            kind="unused",
            provenance="unused",
            keys=["model.layers.0.self_attn.rotary_emb.inv_freq"],
            dtype=None,
            device=None,
        ),
        _tensor("adapter.weight", provenance="offloaded", device="meta", offload="disk"),
    ]

    end_ns = clock + 30_000_000
    spans = [
        _span(
            1, None, "load", 0, end_ns, name="LlamaForCausalLM", attributes={"model": "tiny", "cold": False}
        ),
        _span(2, 1, "import", 1_000_000, 90_000_000, name="transformers", attributes={"modules": 1103}),
        _span(3, 1, "config", 90_000_000, 96_000_000),
        _span(4, 1, "resolve", 96_000_000, 99_000_000),
        _span(
            5, 4, "download", 97_000_000, 98_000_000, status="error", attributes={"error": "EntryNotFound"}
        ),
        _span(6, 1, "instantiate", 99_000_000, 179_000_000),
        _span(7, 1, "weights", 179_000_000, clock, device_peak_bytes={"cuda:0": 3 * GIB}),
        *(
            _span(
                first_shard_span + shard,
                7,
                "shard",
                min(times, default=clock),
                max(times, default=clock),
                name=f"model-{shard + 1:05}-of-{shards:05}.safetensors",
                thread=4243,
                attributes={"shard": shard, "keys": len(times) // 2},
                device_allocated_bytes={"cuda:0": 2 * GIB, "cuda:1": 0},
                device_reserved_bytes={"cuda:0": 2 * GIB + (1 << 20), "cuda:1": 0},
            )
            for shard, times in enumerate(bounds)
        ),
        _span(first_shard_span + shards, 1, "tie", clock, clock + 1_000_000, rss_peak_bytes=None),
        _span(first_shard_span + shards + 1, 1, "generation_config", clock + 1_000_000, clock + 4_000_000),
    ]
    files = [
        _file("config.json"),
        _file("adapter_config.json", result="missing", path=None, size_bytes=None, opened=False, asked=2),
        _file("model.safetensors.index.json", size_bytes=4096),
        *(
            _file(
                f"model-{shard + 1:05}-of-{shards:05}.safetensors",
                asked_by=4,
                shard=shard,
                size_bytes=offsets[shard],
                read_bytes=offsets[shard] - 8,
                resident_before=0.25,
                resident_after=round(0.5 + shard / 100, 6),
            )
            for shard in range(shards)
        ),
        _file(
            "generation_config.json",
            result="downloaded",
            path="/cache/generation_config.json",
            downloaded_bytes=1200,
        ),
    ]
    files[-1] = File(**{field: getattr(files[-1], field) for field in File.__slots__} | {"requests": 2})
    requests = [
        Request(
            time_ns=1_000_000 * index,
            duration_ns=None if index == 2 else 400_000,
            method="HEAD" if index < 3 else "GET",
            host="hub.example",
            path="/me/tiny/resolve/main/config.json",
            status=(503, 302, None, 200)[index],
            bytes=(0, 0, None, 512)[index],
            attempt=2 if index == 1 else 1,
            asked_by=1,
            error="ConnectError" if index == 2 else None,
            wait_ns=None if index == 2 else 300_000,
            file="config.json",
            thread=4242,
        )
        for index in range(4)
    ]
    readings = [
        Sample(
            time_ns=end_ns * index // max(1, samples - 1),
            rss_anon_bytes=400_000_000 + 7_000_000 * index,
            rss_file_bytes=210_000_000,
            rss_shmem_bytes=0,
            swap_bytes=0,
            device_allocated_bytes={"cuda:0": index * (50 << 20)} if index % 2 else None,
            device_reserved_bytes=None,
            device_used_bytes={"cuda:0": GIB + index * (50 << 20)},
            storage_read_bytes=None if index == 3 else 4096 * index,
            cpu_ns=11_000_000 * index,
            pid=4242,
        )
        for index in range(samples)
    ]
    return Trace(
        header=Facts(
            {
                "hftrace": "0.1.0",
                "command": "load",
                "argv": ["hftrace", "load", "/models/tiny", "--dtype", "bfloat16"],
                "started": "2026-11-22T09:00:00+00:00",
                "clock_base_ns": 1_234_567_890_123_456_789,
                "ranks": 1,
                "truncated": {},
            }
        ),
        environment=Facts(
            {
                "python": "3.11.7",
                "torch": "2.13.0",
                "transformers": "5.23.0",
                "accelerate": "1.15.0",
                "loader_generation": "D",
                "hooks_missing": [],
                "ram_bytes": 64 * GIB,
                "variables": {"HF_HUB_OFFLINE": "1"},
            }
        ),
        request=Facts(
            {"class": "LlamaForCausalLM", "model": "/models/tiny", "keywords": {"dtype": "bfloat16"}}
        ),
        outcome=Facts(
            {
                "status": "killed",
                "error": None,
                "signal": "SIGKILL",
                "exit_code": -9,
                "killer": "memory-limit",
                "last_phase": "generation_config",
                "limit_bytes": 2 * GIB,
                "limit_kind": "--memory-limit",
                "evidence": [
                    {"kind": "limit-reached", "anonymous_bytes": 2 * GIB + 4096, "limit_bytes": 2 * GIB},
                    {
                        "kind": "memory",
                        "total_bytes": 3 * GIB,
                        "anonymous_bytes": 2 * GIB + 4096,
                        "limit_kind": "--memory-limit",
                        "limit_bytes": 2 * GIB,
                    },
                ],
            }
        ),
        spans=Table.of(Span, spans),
        tensors=Table.of(Tensor, rows),
        files=Table.of(File, files),
        samples=Table.of(Sample, readings),
        requests=Table.of(Request, requests),
        imports=Table.of(Import, IMPORTS),
    )


def main() -> int:
    """Writes the sample of the version of today."""
    path = HERE / f"trace-{VERSION}.json"
    if path.exists():
        print(f"{path} is there already: a sample is written once, see README.md", file=sys.stderr)
        return 1
    make_trace().save(path)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
