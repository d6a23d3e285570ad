"""What ``hftrace.trace`` takes after its block: stop, replay, write; by tensors, and by loads of one block.

    python tests/benchmarks/exit.py                    10,000 tensors, and 25 to 400 loads (a minute)
    python tests/benchmarks/exit.py --quick            tiny: does it work?
    python tests/benchmarks/exit.py --real             25 to 500 real loads of a tiny checkpoint as well
    python tests/benchmarks/exit.py --profile 10000    where the time goes, for so many tensors

Each load is made with the real recorder, and has the spans, files, lazy
tensors and events of a load with transformers 5.x, whose tensors a pool of
threads reads. No torch is needed for it, so what is timed is hftrace alone.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import itertools
import json
import pstats
import statistics
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hftrace.launch.in_process import with_post_mortem
from hftrace.record.recorder import Recorder
from hftrace.replay.trace import replay
from hftrace.schema import lines
from hftrace.schema.trace import Trace

LOADS = (25, 50, 100, 200, 400)
TENSORS = 10_000
TENSORS_OF_A_LOAD = 20
clock = time.monotonic_ns
_identities = itertools.count(140_000_000_000_000, 64)


def write_checkpoint(path: Path, tensors: int) -> list[str]:
    """Writes the header of a safetensors file, and no data; returns the keys."""
    keys = [f"model.layers.{row // 9}.self_attn.projection_{row % 9}.weight" for row in range(tensors)]
    header = {
        key: {"dtype": "BF16", "shape": [64, 64], "data_offsets": [row * 8192, (row + 1) * 8192]}
        for row, key in enumerate(keys)
    }
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw)
    return keys


def record_load(recorder: Recorder, path: Path, keys: list[str]) -> None:
    """Makes one load, as the hooks of 5.x do."""
    load = recorder.begin("load", "LlamaForCausalLM", None, {"what": "model"})
    for name in ("config.json", "generation_config.json", "adapter_config.json"):
        span = recorder.begin("resolve", f"cached_file({name})")
        facts = {"name": name, "path": None, "result": "error", "size": None, "where": str(path.parent)}
        recorder.write(lines.File(span.id, facts))
        recorder.end(span)
    for phase in ("config", "device_map", "instantiate", "tie", "warmup", "finalize", "generation_config"):
        recorder.end(recorder.begin(phase, f"a call for {phase}"))
    recorder.write(lines.Checkpoint(load.id, [str(path)], [1.0]))
    weights = recorder.begin("weights", "convert_and_load_state_dict_in_model")
    slices = {key: next(_identities) for key in keys}
    flat = [item for key, identity in slices.items() for item in (identity, key)]
    recorder.write(lines.Slices(weights.id, flat))

    def read() -> None:
        for identity in slices.values():
            recorder.local.buffer.reads.extend((identity, clock(), clock()))

    reader = threading.Thread(target=read)
    reader.start()
    reader.join()
    buffer = recorder.local.buffer
    for key in keys:
        buffer.converts.extend((key, 0, clock(), clock()))
        buffer.places.extend((key, clock(), clock()))
    recorder.end(weights)
    recorder.end(load)
    recorder.write(lines.Resident(load.id, [str(path)], [1.0]))
    recorder.write(lines.Model(load.id, {"class": "LlamaForCausalLM", "base_model_prefix": "model"}))
    recorder.write(lines.Layouts(load.id, [lines.Layout("bfloat16", "cpu", [64, 64], 8192, False)]))
    rows = [item for key in keys for item in (key, 0, 0, next(_identities))]
    recorder.write(lines.Tensors(load.id, rows))


def timed(action: Callable[[], Any], into: dict[str, float], name: str) -> Any:
    """Calls ``action`` and notes how many seconds it took."""
    started = time.perf_counter()
    result = action()
    into[name] = time.perf_counter() - started
    return result


def leave(recorder: Recorder, directory: Path) -> tuple[dict[str, float], Trace]:
    """Does what ``hftrace.trace`` does when its block is left, but for the hooks and the sampler."""
    seconds: dict[str, float] = {}
    gc.collect()
    timed(recorder.stop, seconds, "stop")
    trace = timed(lambda: replay(directory), seconds, "replay")
    trace = timed(lambda: with_post_mortem(trace), seconds, "ending")
    timed(lambda: trace.save(directory / "trace.json"), seconds, "write")
    return seconds, trace


def synthetic(loads: int, tensors: int) -> dict[str, float]:
    """Returns the seconds of each step after so many loads of so many tensors each."""
    with tempfile.TemporaryDirectory(prefix="hftrace-exit-") as folder:
        directory = Path(folder)
        path = directory / "model.safetensors"
        keys = write_checkpoint(path, tensors)
        recorder = Recorder(directory)
        recorder.start()
        for _ in range(loads):
            record_load(recorder, path, keys)
        seconds, trace = leave(recorder, directory)
    found = (len(trace.loads), len(trace.tensors), {row.provenance for row in trace.tensors})
    if found != (loads, loads * tensors, {"checkpoint"}):
        raise SystemExit(f"the trace holds something else than was recorded: {found}")
    return seconds


def resident_mib() -> float:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("ascii").splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


def real(loads: int) -> dict[str, float]:
    """Returns the seconds of each step after so many real loads of a tiny checkpoint."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    import hftrace
    from hftrace import synth
    from hftrace.launch import in_process
    from hftrace.record.tracer import Tracer

    logging.disable_progress_bar()
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="hftrace-exit-") as folder:
        directory = Path(folder) / "model"
        synth.write_many(directory, 12)
        AutoModelForCausalLM.from_pretrained(directory)
        before = in_process.replay, in_process.with_post_mortem, Tracer.stop, Trace.save
        in_process.replay = lambda *args, **facts: timed(lambda: before[0](*args, **facts), seconds, "replay")
        in_process.with_post_mortem = lambda trace: timed(lambda: before[1](trace), seconds, "ending")
        Tracer.stop = lambda tracer: timed(lambda: before[2](tracer), seconds, "stop")  # type: ignore[method-assign]
        Trace.save = lambda trace, path: timed(lambda: before[3](trace, path), seconds, "write")  # type: ignore[method-assign]
        try:
            with hftrace.trace(Path(folder) / "trace.json", force=True):
                for _ in range(loads):
                    AutoModelForCausalLM.from_pretrained(directory)
                inside = resident_mib()
            sys.stdout.write(f"{loads:>24}  real loads: {resident_mib() - inside:.0f} MiB for leaving them\n")
        finally:
            in_process.replay, in_process.with_post_mortem, Tracer.stop, Trace.save = before  # type: ignore[method-assign]
    return seconds


def measure(action: Callable[[], dict[str, float]], rounds: int) -> dict[str, float]:
    """Returns the median of each step, and of their sum."""
    results = [action() for _ in range(rounds)]
    steps = {name: statistics.median(result[name] for result in results) for name in results[0]}
    return {**steps, "all": statistics.median(sum(result.values()) for result in results)}


def say(what: str, seconds: dict[str, float], per: int) -> None:
    steps = "  ".join(f"{name} {value:7.3f}" for name, value in seconds.items())
    sys.stdout.write(f"{what:>24}  {steps}  ({seconds['all'] / per * 1e6:8.1f} us each)\n")
    sys.stdout.flush()


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, which mean nothing")
    parser.add_argument("--real", action="store_true", help="real loads with transformers as well")
    parser.add_argument("--rounds", type=int, default=5, help="of each measurement; medians are shown")
    parser.add_argument("--profile", type=int, metavar="TENSORS", help="print where the time goes, and leave")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args(given)
    if options.profile:
        profile = cProfile.Profile()
        profile.runcall(synthetic, 1, options.profile)
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)
        return
    tensors = 100 if options.quick else TENSORS
    counts = (2, 4) if options.quick else LOADS
    rounds = 1 if options.quick else options.rounds
    sys.stdout.write("Seconds after the block, medians\n")
    figures: dict[str, Any] = {"tensors": measure(lambda: synthetic(1, tensors), rounds), "loads": {}}
    say(f"{tensors} tensors", figures["tensors"], tensors)
    for count in counts:
        figures["loads"][count] = measure(lambda count=count: synthetic(count, TENSORS_OF_A_LOAD), rounds)  # type: ignore[misc]
        say(f"{count} loads", figures["loads"][count], count)
    first, last = counts[0], counts[-1]
    cost = {count: figures["loads"][count]["all"] / count for count in (first, last)}
    figures["growth"] = cost[last] / cost[first]
    sys.stdout.write(f"A load costs {figures['growth']:.2f} times as much among {last} as among {first}\n")
    if options.real:
        figures["real"] = {}
        for count in (2,) if options.quick else (25, 100, 500):
            figures["real"][count] = measure(lambda count=count: real(count), 1)  # type: ignore[misc]
            say(f"{count} real loads", figures["real"][count], count)
    if options.json:
        options.json.write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
