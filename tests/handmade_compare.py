"""Groups of traces made by hand, for comparisons: one load in several runs, with noise."""

from __future__ import annotations

import random
from typing import Any

from handmade import GB, MB, MS, Builder, names_and_shapes, shard_name

STEADY = (1.0, 1.02, 0.99, 1.01, 0.98)
"""Five runs within 2 % of each other."""


def load(
    factor: float = 1.0,
    *,
    instantiate_ms: float = 2_000,
    weights_ms: float = 1_000,
    dtype: str = "float32",
    device: str = "cpu",
    generation: str = "D",
    resident: float | None = 1.0,
    format: str = "safetensors",
    layers: int = 4,
    touch_ms: float | None = None,
    storage: int | None = 0,
    function: str = "_load_pretrained_model",
    peak: int = 0,
    offload: int = 0,
    **keywords: Any,
) -> Any:
    """One run of a load; its times and what it added at its peak are multiplied by ``factor``."""
    made = Builder()
    made.environment["generation"] = generation
    made.environment["transformers"] = {"A": "4.48.3", "D": "5.23.0"}.get(generation, "4.57.6")
    made.request["keywords"] = dict(keywords)
    if device != "cpu":
        made.environment["devices"] = [{"device": device, "name": "GPU", "total_bytes": 80 * GB}]
    made.span(
        None,
        "import",
        "import torch",
        0,
        900 * factor,
        rss_anon_start_bytes=10 * MB,
        rss_file_start_bytes=10 * MB,
        rss_anon_bytes=200 * MB,
        rss_file_bytes=100 * MB,
        rss_peak_bytes=305 * MB,
    )
    entries = names_and_shapes(layers, 1024)
    stored = sum(2 * _count(shape) for _, shape in entries)
    size = stored * (2 if dtype == "float32" else 1)
    on_host = size if device == "cpu" else 0
    edges = {"rss_anon_start_bytes": 200 * MB, "rss_file_start_bytes": 100 * MB}
    after = {"rss_anon_bytes": 210 * MB + on_host, "rss_file_bytes": 110 * MB}
    highest = 330 * MB + int((on_host + stored + peak) * factor)
    on_device = {device: size + 20 * MB} if device != "cpu" else None
    begin = 1_000 * factor
    at = begin
    length = (100 + instantiate_ms + weights_ms + 60) * factor
    root = made.span(
        None,
        "load",
        "LlamaForCausalLM",
        begin,
        begin + length,
        "LlamaForCausalLM.from_pretrained",
        "modeling_utils.py:3846",
        **edges,
        **after,
        rss_peak_bytes=highest,
        device_peak_bytes=on_device,
        device_allocated_bytes=on_device,
        storage_read_bytes=storage,
    )
    for phase, spent, name in (
        ("import", 80, None),
        ("instantiate", instantiate_ms, "LlamaForCausalLM.__init__"),
        ("weights", weights_ms, function),
        ("tie", 30, "PreTrainedModel.tie_weights"),
    ):
        here = {**edges, **after, "rss_peak_bytes": highest} if phase == "weights" else {}
        last = made.span(root, phase, phase, at, at + spent * factor, name, **here)
        if phase == "weights":
            weights, start = last, at
        at += spent * factor
    for position, (name, shape) in enumerate(entries):
        began = start + weights_ms * factor * 0.9 * position / len(entries)
        away = position > len(entries) - 1 - offload
        made.tensor(
            name,
            shape,
            dtype=dtype,
            device="meta" if away else device,
            offload="disk" if away else None,
            provenance="offloaded" if away else "checkpoint",
            file=shard_name(0, 1),
            span=weights,
            read_start_ns=round(began * MS),
            read_end_ns=round((began + 1) * MS),
            placed_ns=round((began + 2) * MS),
        )
    made.file("config.json", size=700)
    made.file(
        shard_name(0, 1) if format == "safetensors" else "pytorch_model.bin",
        size=stored + 8192,
        shard=0,
        format=format,
        resident_before=resident,
        resident_after=1.0,
        read_bytes=stored,
    )
    if touch_ms is not None:
        ready = {"rss_anon_start_bytes": 210 * MB + on_host, "rss_file_start_bytes": 110 * MB, **after}
        end = begin + length
        made.span(None, "touch", "touch", end + 5, end + 5 + touch_ms * factor, **ready, storage_read_bytes=0)
    for number in range(60):
        share = max(0.0, min(1.0, (number - 20) / 39))
        made.sample(
            (begin + length) * number / 59, 200 * MB + int(on_host * share), 100 * MB + int(stored * share)
        )
    return made.trace()


def _count(shape: list[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def runs(factors: Any = STEADY, **options: Any) -> list[Any]:
    """Several runs of a load."""
    return [load(factor, **options) for factor in factors]


def noise(seed: int, count: int = 5) -> list[float]:
    """Factors of a busy machine: mostly 3 % around one, now and then a run that takes far longer."""
    draw = random.Random(seed)
    return [heavy_tailed(draw) for _ in range(count)]


def heavy_tailed(draw: random.Random) -> float:
    """One such factor."""
    factor = 1 + draw.gauss(0, 0.03)
    return factor * (1 + draw.expovariate(3)) if draw.random() < 0.15 else factor


def slow_init() -> list[tuple[str, list[Any]]]:
    """Fast init against none, of generation A: initialising is what differs, and nothing else."""
    options: dict[str, Any] = {"generation": "A", "touch_ms": 40}
    return [
        ("slow", runs(instantiate_ms=3_500, _fast_init=False, **options)),
        ("fast", runs((1.01, 1.0, 0.99, 1.02, 0.985), instantiate_ms=600, **options)),
    ]


def same() -> list[tuple[str, list[Any]]]:
    """One load, twice."""
    return [("first", runs()), ("second", runs((0.985, 1.015, 1.0, 0.995, 1.03)))]


def five() -> list[tuple[str, list[Any]]]:
    """A baseline and four variants, with names of all lengths, on a machine with a device."""
    return [
        ("default", runs()),
        ("dtype=auto", runs(dtype="bfloat16", weights_ms=400)),
        (
            "device_map=auto, offloaded to disk",
            runs(dtype="bfloat16", device="cuda:0", offload=9, weights_ms=900),
        ),
        ("pickle", runs(format="pickle", weights_ms=1_600, peak=200 * MB, function="load_state_dict")),
        ("busy", runs(noise(3), storage=300 * MB)),
    ]


def odd() -> list[tuple[str, list[Any]]]:
    """Mixed and failed runs: cold among warm, another version, one that was killed, one without memory."""
    import handmade

    cold = load(1.3, resident=0.0, storage=90 * MB)
    other = load(generation="A")
    return [
        ("mixed", [load(), cold, other, handmade.killed(), load(resident=None)]),
        ("dead", [handmade.killed(), handmade.failing(), handmade.empty()]),
        ("lazy", [handmade.lazy()]),
    ]


GROUPS = {"slow-init": slow_init, "same": same, "five": five, "odd": odd}
"""Comparisons that the views are shown with in snapshots."""
