"""Traces made by hand whose subject is memory: peaks, several processes, and loads that died."""

from __future__ import annotations

from typing import Any

from handmade import GB, MB, MS, Builder, names_and_shapes, shard_name
from hftrace.analysis.ending.evidence import KINDS


def upcast(
    *,
    samples: int = 120,
    between: bool = False,
    after: bool = True,
    imports_ms: int = 5_500,
    shared: int = 0,
    limit: int | None = None,
) -> Any:
    """A cast from bfloat16 to float32: sources stay mapped until the end, then a forward pass and a release.

    The load begins with 400 MB, peaks at 1,700 MB and leaves 1,260 MB.

    Args:
        samples: How many there are.
        between: The peak is a spike that no sample and no edge shows.
        after: Roots of phase touch, forward and release follow the load.
        imports_ms: How long the imports before it took.
        shared: Shared memory, in bytes, in every sample.
        limit: A limit in the outcome.
    """
    made = Builder()
    begin = float(imports_ms)
    if imports_ms:
        made.span(
            None,
            "import",
            "import torch",
            0,
            begin - 10,
            rss_anon_start_bytes=10 * MB,
            rss_file_start_bytes=8 * MB,
            rss_anon_bytes=300 * MB,
            rss_file_bytes=100 * MB,
            rss_peak_bytes=402 * MB,
        )
    edges = {"rss_anon_start_bytes": 300 * MB, "rss_file_start_bytes": 100 * MB}
    peak = 1_700 * MB + shared
    root = made.span(
        None,
        "load",
        "LlamaForCausalLM",
        begin,
        begin + 640,
        "LlamaForCausalLM.from_pretrained",
        "modeling_utils.py:3846",
        **edges,
        rss_anon_bytes=1_150 * MB,
        rss_file_bytes=110 * MB,
        rss_peak_bytes=peak,
    )
    made.span(
        root,
        "instantiate",
        "LlamaForCausalLM",
        begin + 5,
        begin + 60,
        "LlamaForCausalLM.__init__",
        "models/llama/modeling_llama.py:421",
        **edges,
        rss_anon_bytes=302 * MB,
        rss_file_bytes=107 * MB,
        rss_peak_bytes=410 * MB,
    )
    weights = made.span(
        root,
        "weights",
        "LlamaForCausalLM",
        begin + 60,
        begin + 630,
        "PreTrainedModel._load_pretrained_model",
        "modeling_utils.py:4012",
        rss_anon_start_bytes=302 * MB,
        rss_file_start_bytes=107 * MB,
        rss_anon_bytes=1_150 * MB,
        rss_file_bytes=(110 if between else 550) * MB,
        rss_peak_bytes=peak,
    )
    entries = names_and_shapes(3, 2048)
    for position, (name, shape) in enumerate(entries):
        at = begin + 62 + 560 * position / len(entries)
        made.tensor(
            name,
            shape,
            dtype="float32",
            file=shard_name(0, 1),
            span=weights,
            read_start_ns=round(at * MS),
            read_end_ns=round((at + 20) * MS),
            placed_ns=round((at + 24) * MS),
        )
    size = sum(tensor.stored_bytes or 0 for tensor in made.tensors)
    made.file(shard_name(0, 1), size=size, shard=0, format="safetensors", read_bytes=size)
    if after:
        here = {"rss_anon_start_bytes": 1_150 * MB, "rss_file_start_bytes": 110 * MB}
        for number, (phase, anonymous, file) in enumerate(
            (("touch", 1_150, 112), ("forward", 1_190, 150), ("release", 330, 130))
        ):
            made.span(
                None,
                phase,
                phase,
                begin + 650 + 100 * number,
                begin + 740 + 100 * number,
                **here,
                rss_anon_bytes=anonymous * MB,
                rss_file_bytes=file * MB,
                rss_peak_bytes=1_350 * MB,
            )
    end = begin + (950 if after else 640)
    for number in range(samples):
        time = end * number / max(1, samples - 1)
        share = min(1.0, max(0.0, (time - begin - 60) / 570))
        anonymous = 300 * MB if time > begin else int(10 * MB + 290 * MB * time / max(1.0, begin))
        pages = 100 * MB if time > begin else int(8 * MB + 92 * MB * time / max(1.0, begin))
        if share:
            anonymous = int((302 + 848 * share) * MB)
            pages = int((107 + (0 if share == 1 or between else 430) * share) * MB)
        made.sample(time, anonymous, pages)
    if shared:
        made.samples = [_with(sample, rss_shmem_bytes=shared) for sample in made.samples]
    if limit is not None:
        made.outcome = {"status": "ok", "limit_bytes": limit, "limit_kind": "cgroup"}
    return made.trace()


def _with(row: Any, **values: Any) -> Any:
    return type(row)(**{**{name: getattr(row, name) for name in row.__slots__}, **values})


def two_ranks() -> Any:
    """Two processes that load half a model each onto a device of their own, the second one slower."""
    made = Builder()
    for rank in range(2):
        pid, thread = 100 + rank, 200 + rank
        device = f"cuda:{rank}"
        made.span(
            None,
            "load",
            "LlamaForCausalLM",
            100,
            1_000 + 300 * rank,
            "LlamaForCausalLM.from_pretrained",
            pid=pid,
            thread=thread,
            rank=rank,
            rss_anon_start_bytes=200 * MB,
            rss_file_start_bytes=90 * MB,
            rss_anon_bytes=260 * MB,
            rss_file_bytes=120 * MB,
            rss_peak_bytes=(900 + 200 * rank) * MB,
            device_peak_bytes={device: 4 * GB},
        )
        for number in range(30):
            made.sample(100 + number * 31, (200 + 2 * number) * MB, (90 + 20 * number) * MB)
            made.samples[-1] = _with(
                made.samples[-1],
                pid=pid,
                device_allocated_bytes={device: number * 130 * MB},
                device_reserved_bytes={device: number * 140 * MB},
            )
    return made.trace()


STACKS = """Thread 0x00007f01 (most recent call first):
  File "/opt/python/lib/python3.11/threading.py", line 331 in wait
  File "/opt/python/lib/python3.11/site-packages/hftrace/record/journal.py", line 95 in _run

Current thread 0x00007f02 (most recent call first):
  File "/opt/python/lib/python3.11/site-packages/safetensors/torch.py", line 313 in load_file
  File "<frozen importlib._bootstrap>", line 241 in _call_with_frames_removed
  File "/opt/python/lib/python3.11/site-packages/transformers/modeling_utils.py", line 4012 in _load"""


def dead(**outcome: Any) -> Any:
    """A load that hftrace stopped at a memory limit, with everything that its outcome may hold.

    Args:
        outcome: Facts that replace those of the outcome.
    """
    made = Builder()
    made.environment.update(ram_bytes=64 * GB, cgroup_limit_bytes=8 * GB)
    made.request_row(3, 4, 200, bytes=0)
    root = made.span(
        None,
        "load",
        "LlamaForCausalLM",
        0,
        900,
        "LlamaForCausalLM.from_pretrained",
        "modeling_utils.py:3846",
        status="killed",
        rss_anon_start_bytes=300 * MB,
        rss_file_start_bytes=100 * MB,
        rss_peak_bytes=1_425 * MB,
    )
    weights = made.span(
        root,
        "weights",
        "LlamaForCausalLM",
        100,
        900,
        "PreTrainedModel._load_pretrained_model",
        "modeling_utils.py:4012",
        status="killed",
        rss_anon_start_bytes=302 * MB,
        rss_file_start_bytes=100 * MB,
        rss_peak_bytes=1_425 * MB,
    )
    entries = names_and_shapes(2, 1536)
    for position, (name, shape) in enumerate(entries):
        placed = position < 8
        made.tensor(
            name,
            shape,
            dtype="float32" if placed else None,
            provenance="checkpoint" if placed else None,
            device="cpu" if placed else None,
            file=shard_name(position // 10, 2),
            span=weights if placed else None,
            read_start_ns=(110 + 90 * position) * MS if placed else None,
            read_end_ns=(180 + 90 * position) * MS if placed else None,
            placed_ns=(190 + 90 * position) * MS if placed else None,
        )
    for shard in range(2):
        made.file(shard_name(shard, 2), size=200 * MB, shard=shard, format="safetensors")
    for number in range(46):
        made.sample(number * 20, (300 + 20 * max(0, number - 5)) * MB, (100 + 5 * number) * MB)
    sizes = [tensor.stored_bytes or 0 for tensor in made.tensors]
    made.outcome = {
        "status": "killed",
        "signal": "SIGKILL",
        "exit_code": -9,
        "killer": "memory-limit",
        "evidence": [
            {"kind": "limit-reached", "anonymous_bytes": 1_100 * MB, "limit_bytes": 1 * GB},
            {
                "kind": "memory",
                "total_bytes": 1_425 * MB,
                "anonymous_bytes": 1_100 * MB,
                "limit_kind": "--memory-limit",
                "limit_bytes": 1 * GB,
            },
        ],
        "memory_at_death_bytes": 1_425 * MB,
        "anon_at_death_bytes": 1_100 * MB,
        "limit_bytes": 1 * GB,
        "limit_kind": "--memory-limit",
        "last_phase": "weights",
        "last_file": shard_name(0, 2),
        "last_tensor": entries[7][0],
        "last_tensor_ns": 880 * MS,
        "died_in": "LlamaForCausalLM",
        "placed_bytes": sum(sizes[:8]),
        "remaining_bytes": sum(sizes[8:]),
        "predicted_anon_bytes": 1_500 * MB,
        "stack": STACKS,
        "stalls": [],
        **outcome,
    }
    return made.trace()


def hostile_outcome(status: str = "killed") -> Any:
    """An outcome in which every fact is of a wrong type, or steers a terminal, or is absurd."""
    evil = "\x1b]0;owned\x07\x1b[2J\u202e[red]x[/red]\r\n"
    return dead(
        status=status,
        signal=evil,
        exit_code="nine",
        killer=["kernel-oom"],
        evidence=[
            evil,
            5,
            None,
            {"a": 1},
            evil * 50,
            {"kind": 5},
            {"kind": evil, evil: [evil]},
            {"kind": "memory", "total_bytes": evil, "limit_kind": [], "limit_bytes": 10**400},
            *({"kind": kind, **dict.fromkeys(names, evil)} for kind, names in KINDS.items()),
        ],
        memory_at_death_bytes=10**400,
        anon_at_death_bytes=-5,
        limit_bytes=True,
        limit_kind={"a": evil},
        last_phase=7,
        last_file=evil,
        last_tensor=evil * 30,
        last_tensor_ns=-(10**30),
        died_in=[],
        placed_bytes=-10,
        remaining_bytes="all",
        predicted_anon_bytes=1.5,
        stack=evil * 100,
        stalls=[5, {"time_ns": "x", "silent_ns": -4, "phase": evil, "stack": evil}, {"silent_ns": 10**40}],
        error={"type": evil, "message": [1, 2], "traceback": 9},
        cause={"type": [evil], "message": evil * 90},
        device={
            "device": evil,
            "memory_bytes": 10**400,
            "asked_bytes": evil,
            "free_bytes": -1,
            "allowed_bytes": True,
            "allocated_bytes": 10**15,
            "reserved_bytes": 1.5,
            "outside_allocator_bytes": [],
            "predicted_bytes": 10**18,
        },
    )


def on_device(*, full: bool = False) -> Any:
    """A load of eight expert weights onto a GPU, which two conversions make into two parameters of 320 MB.

    At its peak the GPU holds the first parameter, the four sources of the second, and the second itself. With
    ``full`` there is no room for that, and 5.x catches the error and fails later.
    """
    made = Builder()
    made.request["keywords"] = {"dtype": "bfloat16", "device_map": "cuda:0"}
    made.environment["devices"] = [
        {
            "device": "cuda:0",
            "name": "A GPU",
            "memory_bytes": (1_200 if full else 2_000) * MB,
            "used_bytes": 1_100 * MB,
            "outside_allocator_bytes": 300 * MB,
        }
    ]
    status = "error" if full else "ok"

    def held(allocated: int, reserved: int, peak: int) -> dict[str, Any]:
        columns = ("device_allocated_bytes", "device_reserved_bytes", "device_peak_bytes")
        return {
            name: {"cuda:0": size * MB}
            for name, size in zip(columns, (allocated, reserved, peak), strict=True)
        }

    ended = "RuntimeError: We encountered some issues during automatic conversion of the weights."
    root = made.span(
        None,
        "load",
        "MixtralForCausalLM",
        0,
        500,
        "MixtralForCausalLM.from_pretrained",
        "modeling_utils.py:3893",
        status=status,
        attributes={"error": ended} if full else {},
        rss_anon_start_bytes=300 * MB,
        rss_file_start_bytes=200 * MB,
        rss_anon_bytes=310 * MB,
        rss_file_bytes=210 * MB,
        rss_peak_bytes=1_100 * MB,
        **held(320 if full else 640, 880 if full else 1_000, 640 if full else 960),
    )
    weights = made.span(
        root,
        "weights",
        "convert_and_load_state_dict_in_model",
        20,
        480,
        "convert_and_load_state_dict_in_model",
        "core_model_loading.py:1600",
        **held(320 if full else 640, 880 if full else 1_000, 640 if full else 960),
    )
    made.span(
        weights,
        "warmup",
        "caching_allocator_warmup",
        20,
        30,
        "caching_allocator_warmup",
        "modeling_utils.py:5149",
        **held(0, 640, 640),
    )
    parameter = "model.layers.{}.mlp.experts.gate_up_proj"
    if full:
        message = (
            "CUDA out of memory. Tried to allocate 305.18 MiB. GPU 0 has a total capacity of 1.12 GiB of "
            "which 19.07 MiB is free. Of the allocated memory 610.35 MiB is allocated by PyTorch, and 228.88 "
            "MiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try "
            "setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
        )
        made.span(
            weights,
            "convert",
            f"convert({parameter.format(1)})",
            400,
            470,
            "WeightConverter.convert",
            "core_model_loading.py:1258",
            status="error",
            attributes={
                "target": parameter.format(1),
                "operations": ["MergeModulelist"],
                "caught": True,
                "error": f"OutOfMemoryError: {message}",
            },
            **held(640, 880, 640),
        )
    for layer in range(2):
        start = 40 + 210 * layer
        lost = full and layer == 1
        sources = [f"model.layers.{layer}.experts.{number}.w1.weight" for number in range(4)]
        for number, source in enumerate(sources if lost else ()):
            made.tensor(
                source,
                [40_000_000],
                dtype=None,
                device=None,
                provenance=None,
                file=shard_name(0, 1),
                read_start_ns=round((start + 30 * number) * MS),
                read_end_ns=round((start + 30 * number + 25) * MS),
            )
        if not lost:
            made.tensor(
                parameter.format(layer),
                [160_000_000],
                provenance="converted",
                keys=sources,
                device=None if full else "cuda:0",
                file=shard_name(0, 1),
                span=weights,
                read_start_ns=round(start * MS),
                read_end_ns=round((start + 120) * MS),
                placed_ns=round((start + 180) * MS),
            )
    made.file(shard_name(0, 1), size=640 * MB, shard=0, format="safetensors", read_bytes=640 * MB)
    for number in range(40):
        time = number * 500 / 39
        made.sample(
            time,
            305 * MB,
            round((205 + min(600, 1.6 * time)) * MB),
            round(min(960, max(0, 2.2 * (time - 30)))) * MB,
        )
    if full:
        made.outcome = {
            "status": "error",
            "signal": None,
            "exit_code": 1,
            "last_phase": "finalize",
            "last_tensor": "model.norm.weight",
            "died_in": "log_state_dict_report",
            "error": {
                "type": "RuntimeError",
                "message": ended.removeprefix("RuntimeError: "),
                "traceback": f"Traceback (most recent call last):\n{ended}",
            },
        }
    return made.trace()


LOADS = {
    "upcast": upcast,
    "between": lambda: upcast(between=True, after=False),
    "no-samples": lambda: upcast(samples=0, after=False),
    "one-sample": lambda: upcast(samples=1, after=False, imports_ms=0),
    "limited": lambda: upcast(after=False, limit=2 * GB),
    "far-limit": lambda: upcast(after=False, limit=25 * GB),
    "shared": lambda: upcast(after=False, shared=200 * MB),
    "two-ranks": two_ranks,
    "dead": dead,
    "device": on_device,
}
"""Traces that the memory view is shown with in snapshots."""
