"""What tracing costs: ratios of traced to untraced loads, measured beside each other in one run.

    python tests/benchmarks/overhead.py                     everything (about an hour)
    python tests/benchmarks/overhead.py --quick             every part, tiny: does it work?
    python tests/benchmarks/overhead.py --part handlers     the hot handlers alone (seconds)
    python tests/benchmarks/overhead.py --part loads --workload many-10k --rounds 9
    python tests/benchmarks/overhead.py --part loads --workload cast-1b --peers
    python tests/benchmarks/overhead.py --json figures.json

Nothing here is a test with a limit: times depend on the machine and on what
else runs on it. What does not is a ratio of two things that took turns.

Parts
    loads     Untraced and traced loads take turns in one long-lived process that has
              loaded the checkpoint once before (page cache warm, lazy imports done), the
              order turned around each round, ``gc.collect()`` before each. Printed are
              ratios of medians of wall and of processor time with the 95 % range of a
              bootstrap over rounds. Processor time counts all threads of the process, so
              that it holds the journal's thread too, and is the less noisy of the two.
              Beside them: what ``hftrace.trace`` takes around the load, for entering it
              and, on leaving it, for stopping, replaying the journal and writing the file.
              A third kind of load shows a cost that is smaller than the machine's noise:
              ``--amplify`` recorders (20) trace it at the same time, each with all hooks and
              a journal of its own, and the difference to the untraced load is divided by
              their number.
              With ``--fresh`` every load has a fresh interpreter to itself instead, which
              has done its imports and loaded a model of a few tensors before.
    handlers  Each handler of the hot path around a function that does nothing, called some
              200,000 times with a real recorder that drains to a real journal, less the
              plain calls. Processor time of the calling thread, and of the whole process
              until the journal is on the disk.
    memory    Fresh interpreters, one load each: the greatest anonymous memory until the
              load returned, traced less untraced, read from outside every 5 ms; then what
              is left once the load has returned, and the greatest until the trace is made.
    trace     Size of the trace, and the time and memory of ``hftrace show`` on it as a
              whole process.

Workloads
    cast-1b    1.1 B parameters in bfloat16 loaded as float32, so that every byte moves
    many-10k   10,000 small tensors
    many-100k  100,000 small tensors

Checkpoints have random weights and are kept in ``--cache`` for the next run.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PARTS = ("loads", "handlers", "memory", "trace")
WORKLOADS = ("cast-1b", "many-10k", "many-100k")
PEERS = ("cProfile", "pyinstrument", "viztracer", "memray")
TARGETS = {"cast-1b": 1.01, "many-10k": 1.01, "many-100k": 1.01}
ROUNDS = {"cast-1b": 9, "many-10k": 9, "many-100k": 3}
EVENTS = ("reads", "converts", "places", "modules", "moves", "initializes")
"""What happens once per tensor or module."""
EVENT_TARGET_US = 0.7
MEMORY_TARGET_MB = 40.0
MB = 1e6
AMPLIFIED = "amplified "
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True)
class Sizes:
    """How large everything is: the real thing, or just enough to run every line."""

    cast: str | None = None
    many_10k: int = 10_000
    many_100k: int = 100_000
    small: int = 300
    calls: int = 200_000


QUICK = Sizes(cast="2MB", many_10k=100, many_100k=300, small=30, calls=2_000)


# -- checkpoints --------------------------------------------------------------------------------


def checkpoint(workload: str, sizes: Sizes, cache: Path) -> Path:
    from hftrace import synth

    if workload == "cast-1b":
        os.environ["HFTRACE_CACHE"] = str(cache)
        return synth.cached("tinyllama-1.1b", sizes.cast, "bfloat16")
    tensors = {"many-10k": sizes.many_10k, "many-100k": sizes.many_100k, "small": sizes.small, "tiny": 12}
    directory = cache / f"many-{tensors[workload]}"
    if not (directory / "config.json").exists():
        synth.write_many(directory, tensors[workload], force=True)
    return directory


# -- inside a measured process --------------------------------------------------------------------


class Stopwatch:
    """Times the steps that ``hftrace.trace`` takes on leaving, by wrapping them for the time of one trace."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.events: dict[str, int] = {}

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        from hftrace.launch import in_process
        from hftrace.record.tracer import Tracer
        from hftrace.schema.trace import Trace

        before = in_process.replay, Tracer.stop, Trace.save

        def replay(directory: Any, **facts: Any) -> Any:
            self.events = count_events(Path(directory))
            return self._timed("replay", before[0], directory, **facts)

        in_process.replay = replay
        Tracer.stop = lambda tracer: self._timed("stop", before[1], tracer)
        Trace.save = lambda trace, *args, **kwargs: self._timed("write", before[2], trace, *args, **kwargs)
        try:
            yield
        finally:
            in_process.replay, Tracer.stop, Trace.save = before

    def _timed(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            self.seconds[name] = time.perf_counter() - started


def count_events(directory: Path) -> dict[str, int]:
    """Counts what happened once per tensor, from the journal."""
    from hftrace.schema import events, journal

    counts = {"journal_bytes": 0}
    for path in directory.glob(f"{journal.JOURNAL_PREFIX}*"):
        counts["journal_bytes"] += path.stat().st_size
        for line in journal.lines(path):
            if line[0] in EVENTS:
                counts[line[0]] = counts.get(line[0], 0) + events.count(line)
    return counts


def load_model(directory: str, dtype: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    value = dtype if dtype == "auto" else getattr(torch, dtype)
    try:
        return AutoModelForCausalLM.from_pretrained(directory, dtype=value)
    except TypeError:  # transformers before 4.56
        return AutoModelForCausalLM.from_pretrained(directory, torch_dtype=value)


def anonymous_bytes(pid: int | str = "self") -> int:
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


@contextlib.contextmanager
def beside(arm: str, output: Path) -> Iterator[None]:
    """Runs the body under another profiler."""
    if arm == "cProfile":
        import cProfile

        with cProfile.Profile():
            yield
    elif arm == "pyinstrument":
        import pyinstrument

        with pyinstrument.Profiler():
            yield
    elif arm == "viztracer":
        import viztracer

        tracer = viztracer.VizTracer(verbose=0)
        tracer.start()
        try:
            yield
        finally:
            tracer.stop()
            tracer.clear()
    elif arm == "memray":
        import memray

        with memray.Tracker(output / f"memray-{time.monotonic_ns()}.bin"):
            yield
    else:
        yield


def one_load(
    arm: str, directory: str, dtype: str, output: Path, announce: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Loads once, and lets go of the model after everything has been measured."""
    announce = announce or (lambda what: None)
    gc.collect()
    result: dict[str, Any] = {"arm": arm}
    announce("load")
    entered = time.perf_counter()
    if arm.startswith(AMPLIFIED):
        from hftrace.record.tracer import Tracer

        tracers = []
        for index in range(int(arm.removeprefix(AMPLIFIED))):
            place = output / f"{time.monotonic_ns()}-{index}"
            place.mkdir()
            tracers.append(Tracer(place))
            tracers[-1].start()
        cpu, wall = time.process_time(), time.perf_counter()
        model = load_model(directory, dtype)
        result["wall"] = time.perf_counter() - wall
        for tracer in tracers:
            tracer.recorder.writer.flush()
        result["cpu"] = time.process_time() - cpu
        for tracer in tracers[::-1]:
            tracer.stop()
        tracers.clear()
    elif arm != "hftrace":
        with beside(arm, output):
            cpu, wall = time.process_time(), time.perf_counter()
            model = load_model(directory, dtype)
            result["cpu"], result["wall"] = time.process_time() - cpu, time.perf_counter() - wall
            result["anonymous_after"] = anonymous_bytes()
            announce("end")
    else:
        from hftrace import trace

        stopwatch = Stopwatch()
        with stopwatch.installed(), trace(output / "trace.json", force=True) as recorded:
            cpu, wall = time.process_time(), time.perf_counter()
            result["enter"] = wall - entered
            model = load_model(directory, dtype)
            result["cpu"], result["wall"] = time.process_time() - cpu, time.perf_counter() - wall
            result["anonymous_after"] = anonymous_bytes()
            announce("leave")
            leaving = time.perf_counter()
        result["leave"] = time.perf_counter() - leaving
        announce("end")
        result.update(stopwatch.seconds)
        result["events"] = stopwatch.events
        result["tensors"] = len(recorded.trace.tensors) if recorded.trace is not None else 0
        del recorded
    result["total"] = time.perf_counter() - entered
    del model
    gc.collect()
    return result


def prepare(directory: str, dtype: str) -> None:
    """Does the imports, of transformers' own lazy modules too."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    load_model(directory, dtype)
    import hftrace
    import hftrace.launch.in_process  # noqa: F401


def worker(task: dict[str, Any]) -> None:
    """A measured process: writes one JSON line per result to the file that it was given."""
    with open(task["results"], "a", encoding="utf-8", buffering=1) as results:
        if task["what"] == "handlers":
            for row in measure_handlers(task["calls"], task["repeat"]):
                results.write(json.dumps(row) + "\n")
            return
        output = Path(task["output"])
        prepare(task["warm"], task["dtype"])

        def announce(what: str) -> None:
            results.write(json.dumps({"now": what}) + "\n")

        for index, arm in enumerate(task["arms"]):
            row = one_load(arm, task["directory"], task["dtype"], output, announce)
            results.write(json.dumps({"index": index, **row}) + "\n")


# -- the hot handlers -----------------------------------------------------------------------------


def _materialize_copy(tensor: Any, device: Any = None, dtype: Any = None) -> Any:
    return tensor


def set_param_for_module(
    model: Any, target_name: Any, param_value: Any, loading_info: Any, hf_quantizer: Any = None
) -> None:
    return None


def offload_and_maybe_resave_param(target_name: Any, param: Any, loading_info: Any) -> None:
    return None


def set_module_tensor_to_device(module: Any, tensor_name: Any, device: Any, value: Any = None) -> None:
    return None


class WeightRenaming:
    __slots__ = (
        "layer_targets",
        "operations",
        "quantization_operation",
        "result",
        "source_patterns",
        "target_patterns",
    )

    def __init__(self, name: str) -> None:
        self.source_patterns = [name]
        self.target_patterns = [name]
        self.layer_targets = {name: {name}}
        self.operations: list[Any] = []
        self.quantization_operation = None
        self.result = {name: None}

    def convert(self, layer_name: Any, model: Any = None, config: Any = None) -> Any:
        return self.result


class WeightConverter(WeightRenaming):
    __slots__ = ()

    def convert(self, layer_name: Any, model: Any = None, config: Any = None) -> Any:
        return self.result


class Operation:
    def shard_tensor(self, tensor: Any, device: Any = None, dtype: Any = None) -> Any:
        return tensor


class Module:
    def _load_from_state_dict(self, state_dict: Any, prefix: Any, local_metadata: Any, strict: Any) -> None:
        return None

    def _init_weights(self, module: Any) -> None:
        return None


def handler_cases(calls: int) -> list[tuple[str, Any, Any, Callable[[Any], Any], list[Any]]]:
    """Returns name, handler, function, a loop over the arguments, and the arguments of each call."""
    from hftrace.record.hooks import events

    names = [f"model.layers.{index // 9}.self_attn.q_proj.weight{index % 9}" for index in range(calls)]
    lazy = [object() for _ in range(calls)]
    renamings = [WeightRenaming(name) for name in names]
    converters = [WeightConverter(name) for name in names]
    module, operation = Module(), Operation()

    def reads(items: list[Any]) -> None:
        for item in items:
            _materialize_copy(item, None, None)

    def shards(items: list[Any]) -> None:
        for item in items:
            operation.shard_tensor(item, None, None)

    def converts(items: list[Any]) -> None:
        for item in items:
            item.convert(item, model=module, config=None)

    def places(items: list[Any]) -> None:
        for item in items:
            set_param_for_module(module, item, None, None, None)

    def offloads(items: list[Any]) -> None:
        for item in items:
            offload_and_maybe_resave_param(item, None, None)

    def modules(items: list[Any]) -> None:
        for item in items:
            module._load_from_state_dict(None, item, None, True)

    def moves(items: list[Any]) -> None:
        for item in items:
            set_module_tensor_to_device(module, item, "cpu")

    def initializes(items: list[Any]) -> None:
        for item in items:
            module._init_weights(item)

    return [
        ("read", events.read_handler, _materialize_copy, reads, lazy),
        ("convert (renaming)", events.rename_convert_handler, WeightRenaming.convert, converts, renamings),
        ("place", events.place_second, set_param_for_module, places, names),
        (
            "convert (converter)",
            events.weight_convert_handler,
            WeightConverter.convert,
            converts,
            converters,
        ),
        ("read (sharded)", events.shard_tensor_handler, Operation.shard_tensor, shards, lazy),
        ("place (offload)", events.place_first, offload_and_maybe_resave_param, offloads, names),
        ("module (4.36 to 4.50)", events.module_handler, Module._load_from_state_dict, modules, names),
        ("move (accelerate)", events.move_handler, set_module_tensor_to_device, moves, names),
    ]


def measure_handlers(calls: int, repeat: int) -> Iterator[dict[str, Any]]:
    """Yields nanoseconds per call of each handler, plain calls and traced ones in turn."""
    from hftrace.record.hooks.points import HookPoint
    from hftrace.record.patching import patch
    from hftrace.record.recorder import Recorder

    for name, handler, function, loop, items in handler_cases(calls):
        plain, calling, whole = [], [], []
        for _ in range(repeat):
            with tempfile.TemporaryDirectory(prefix="hftrace-benchmark-") as place:
                gc.collect()
                started = time.thread_time_ns()
                loop(items)
                plain.append((time.thread_time_ns() - started) / calls)
                recorder = Recorder(Path(place))
                recorder.start()
                span = recorder.begin("load", "benchmark")
                point = HookPoint("benchmark:function", "weights")
                undo = patch(
                    function,
                    lambda original, h=handler, p=point, r=recorder, f=function: h(r, p, 1, f, original),
                )
                gc.collect()
                thread, process = time.thread_time_ns(), time.process_time_ns()
                loop(items)
                calling.append((time.thread_time_ns() - thread) / calls)
                undo()
                recorder.end(span)
                recorder.stop()
                if recorder.error_count:
                    raise RuntimeError(f"the handler {name} has failed {recorder.error_count} times")
                whole.append((time.process_time_ns() - process) / calls)
        base = statistics.median(plain)
        yield {
            "handler": name,
            "plain_ns": base,
            "calling_ns": statistics.median(calling) - base,
            "whole_ns": statistics.median(whole) - base,
            "least_ns": min(whole) - min(plain),
            "calls": calls,
        }


# -- the measuring process ------------------------------------------------------------------------


@dataclass
class Settings:
    sizes: Sizes
    cache: Path
    rounds: int | None
    fresh: bool
    peers: bool
    amplify: int
    memory_rounds: int
    repeat: int


def say(text: str = "") -> None:
    print(text, flush=True)


def run_worker(
    task: dict[str, Any], *, watch: bool = False
) -> tuple[list[dict[str, Any]], list[tuple[str, int]]]:
    """Runs a measured process; returns its results and, if asked, readings of its memory by stage."""
    readings: list[tuple[str, int]] = []
    with tempfile.TemporaryDirectory(prefix="hftrace-benchmark-") as place:
        results = Path(place) / "results.jsonl"
        results.touch()
        task = {**task, "results": str(results), "output": place}
        process = subprocess.Popen(
            [sys.executable, __file__, "--worker", json.dumps(task)], env={**os.environ, **QUIET}
        )
        done = threading.Event()

        def look() -> None:
            stage, position = "start", 0
            while not done.wait(0.005):
                with results.open(encoding="utf-8") as handle:
                    handle.seek(position)
                    for line in iter(handle.readline, ""):
                        if not line.endswith("\n"):
                            break
                        position += len(line)
                        stage = json.loads(line).get("now", stage)
                with contextlib.suppress(OSError):
                    readings.append((stage, anonymous_bytes(process.pid)))

        watcher = threading.Thread(target=look, daemon=True)
        if watch:
            watcher.start()
        code = process.wait()
        done.set()
        if watch:
            watcher.join()
        if code:
            raise SystemExit(f"the measured process ended with code {code}")
        rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if "now" not in row], readings


def bootstrap(pairs: list[tuple[float, float]], draws: int = 2000) -> tuple[float, float]:
    """Returns the 95 % range of the ratio of medians, over rounds drawn with replacement."""
    generator = random.Random(0)
    ratios = []
    for _ in range(draws):
        drawn = generator.choices(pairs, k=len(pairs))
        ratios.append(
            statistics.median(traced for traced, _ in drawn)
            / max(statistics.median(plain for _, plain in drawn), 1e-12)
        )
    ratios.sort()
    return ratios[int(0.025 * draws)], ratios[int(0.975 * draws) - 1]


def compare(traced: list[float], plain: list[float]) -> dict[str, Any]:
    pairs = list(zip(traced, plain, strict=True))
    low, high = bootstrap(pairs)
    return {
        "ratio": statistics.median(traced) / max(statistics.median(plain), 1e-12),
        "range": [low, high],
        "paired_ratio": statistics.median(a / max(b, 1e-12) for a, b in pairs),
        "least_ratio": min(traced) / max(min(plain), 1e-12),
        "traced_s": statistics.median(traced),
        "plain_s": statistics.median(plain),
        "paired_difference_s": statistics.median(a - b for a, b in pairs),
    }


def arms_of(settings: Settings) -> list[str]:
    arms = ["plain", "hftrace"]
    for peer in PEERS if settings.peers else ():
        if importlib.util.find_spec(peer) is None:
            say(f"  {peer} is not installed: skipped")
        else:
            arms.append(peer)
    return arms


def loads(workload: str, settings: Settings) -> dict[str, Any]:
    directory = checkpoint(workload, settings.sizes, settings.cache)
    dtype = "float32" if workload == "cast-1b" else "auto"
    rounds = settings.rounds or ROUNDS[workload]
    arms = arms_of(settings)
    amplified = f"{AMPLIFIED}{settings.amplify}"
    if settings.amplify:
        arms.insert(2, amplified)
    order: list[str] = []
    for index in range(rounds):
        order += arms if index % 2 == 0 else arms[::-1]
    task = {"what": "loads", "directory": str(directory), "dtype": dtype}
    if settings.fresh:
        warm = str(checkpoint("tiny", settings.sizes, settings.cache))
        rows = [run_worker({**task, "warm": warm, "arms": [arm]})[0][0] for arm in order]
    else:
        rows, _ = run_worker({**task, "warm": str(directory), "arms": order})
    by_arm = {arm: [row for row in rows if row["arm"] == arm] for arm in arms}
    plain, traced = by_arm["plain"], by_arm["hftrace"]
    events = traced[0]["events"]
    count = sum(events.get(kind, 0) for kind in EVENTS)
    result: dict[str, Any] = {
        "workload": workload,
        "rounds": rounds,
        "processes": "fresh" if settings.fresh else "one",
        "tensors": traced[0]["tensors"],
        "events": events,
        "wall": compare([row["wall"] for row in traced], [row["wall"] for row in plain]),
        "cpu": compare([row["cpu"] for row in traced], [row["cpu"] for row in plain]),
        "around_s": {
            name: statistics.median(row.get(name, 0.0) for row in traced)
            for name in ("enter", "leave", "stop", "replay", "write")
        },
        "raw": [[row["arm"], row["wall"], row["cpu"]] for row in rows],
    }
    if count:
        result["event_us"] = result["cpu"]["paired_difference_s"] / count * 1e6
        result["event_count"] = count
    if settings.amplify:
        result["amplified"] = {}
        for clock in ("wall", "cpu"):
            values = compare([row[clock] for row in by_arm[amplified]], [row[clock] for row in plain])
            share = [(ratio - 1) / settings.amplify + 1 for ratio in (values["ratio"], *values["range"])]
            cost = values["paired_difference_s"] / settings.amplify
            result["amplified"][clock] = {"ratio": share[0], "range": share[1:], "cost_s": cost}
            if count:
                result["amplified"][clock]["event_us"] = cost / count * 1e6
    result["peers"] = {
        arm: {
            clock: compare([row[clock] for row in by_arm[arm]], [row[clock] for row in plain])
            for clock in ("wall", "cpu")
        }
        for arm in arms
        if arm in PEERS
    }
    return result


def memory(settings: Settings) -> dict[str, Any]:
    directory = str(checkpoint("many-100k", settings.sizes, settings.cache))
    warm = str(checkpoint("tiny", settings.sizes, settings.cache))
    found: dict[str, dict[str, list[int]]] = {
        arm: {"peak": [], "after": [], "whole": []} for arm in ("plain", "hftrace")
    }
    for index in range(settings.memory_rounds):
        for arm in ("plain", "hftrace") if index % 2 == 0 else ("hftrace", "plain"):
            task = {"what": "loads", "directory": directory, "warm": warm, "dtype": "auto", "arms": [arm]}
            rows, readings = run_worker(task, watch=True)
            during = [value for stage, value in readings if stage == "load"]
            until_end = during + [value for stage, value in readings if stage == "leave"]
            after = rows[0]["anonymous_after"]
            found[arm]["peak"].append(max([*during, after]))
            found[arm]["after"].append(after)
            found[arm]["whole"].append(max([*until_end, after]))
    middle = {arm: {name: statistics.median(v) for name, v in kinds.items()} for arm, kinds in found.items()}
    return {
        "rounds": settings.memory_rounds,
        "plain_peak_bytes": middle["plain"]["peak"],
        "added_peak_bytes": middle["hftrace"]["peak"] - middle["plain"]["peak"],
        "added_after_bytes": middle["hftrace"]["after"] - middle["plain"]["after"],
        "added_until_written_bytes": middle["hftrace"]["whole"] - middle["plain"]["whole"],
        "raw": found,
    }


def trace_figures(workload: str, settings: Settings, place: Path) -> dict[str, Any]:
    """Makes a trace, and reads it as a user would."""
    directory = checkpoint(workload, settings.sizes, settings.cache)
    path, packed = place / f"{workload}.json", place / f"{workload}.json.gz"
    code = (
        "import sys, hftrace\n"
        "from transformers import AutoModelForCausalLM\n"
        "with hftrace.trace(sys.argv[2]) as recorded:\n"
        "    AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "recorded.trace.save(sys.argv[3])\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(directory), str(path), str(packed)],
        check=True,
        env={**os.environ, **QUIET},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    seconds, peaks = [], []
    command = [sys.executable, "-m", "hftrace.cli.main", "show"]
    failure = None
    for _ in range(5):
        started = time.perf_counter()
        process = subprocess.Popen(
            [*command, str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds.append(time.perf_counter() - started)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.stderr is not None
        with process.stderr:
            if process.returncode:
                failure = process.stderr.read().strip().splitlines()[-1:]
        peaks.append(usage.ru_maxrss * 1024)
    started = time.perf_counter()
    reading = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, time, hftrace; s = time.perf_counter(); t = hftrace.Trace.open(sys.argv[1]); "
            "print(time.perf_counter() - s, len(t.tensors))",
            str(path),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    return {
        "workload": workload,
        "tensors": int(reading[1]),
        "json_bytes": path.stat().st_size,
        "gzip_bytes": packed.stat().st_size,
        "open_s": float(reading[0]),
        "show_s": None if failure else statistics.median(seconds),
        "show_least_s": None if failure else min(seconds),
        "show_peak_bytes": None if failure else max(peaks),
        "failure": failure,
    }


# -- output ---------------------------------------------------------------------------------------


def table(title: str, head: list[str], rows: list[list[str]]) -> None:
    say(f"\n{title}")
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, ["-" * width for width in widths], *rows]:
        cells = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        say("  " + "  ".join(cells).rstrip())


def show_loads(results: list[dict[str, Any]]) -> None:
    head = [
        "load",
        "rounds",
        "clock",
        "plain s",
        "traced s",
        "ratio",
        "95 % range",
        "paired",
        "min/min",
        "target",
    ]
    rows, around, events, peers, amplified = [], [], [], [], []
    for result in results:
        for clock in ("wall", "cpu"):
            values = result[clock]
            rows.append(
                [
                    f"{result['workload']} ({result['tensors']:,} tensors)",
                    str(result["rounds"]),
                    clock,
                    f"{values['plain_s']:.3f}",
                    f"{values['traced_s']:.3f}",
                    f"{values['ratio']:.3f}",
                    f"{values['range'][0]:.3f} to {values['range'][1]:.3f}",
                    f"{values['paired_ratio']:.3f}",
                    f"{values['least_ratio']:.3f}",
                    f"<= {TARGETS[result['workload']]}" if clock == "wall" else "",
                ]
            )
        for clock, values in result.get("amplified", {}).items():
            amplified.append(
                [
                    result["workload"],
                    clock,
                    f"{result[clock]['plain_s']:.3f}",
                    f"{values['cost_s'] * 1000:+.1f}",
                    f"{values['ratio']:.4f}",
                    f"{values['range'][0]:.4f} to {values['range'][1]:.4f}",
                    f"<= {TARGETS[result['workload']]}",
                    f"{values.get('event_us', 0):.2f}",
                    f"<= {EVENT_TARGET_US}",
                ]
            )
        times = result["around_s"]
        around.append(
            [
                result["workload"],
                f"{times['enter']:.3f}",
                f"{result['wall']['traced_s']:.3f}",
                f"{times['stop']:.3f}",
                f"{times['replay']:.3f}",
                f"{times['write']:.3f}",
                f"{times['leave']:.3f}",
                f"{result['events']['journal_bytes'] / MB:.1f}",
            ]
        )
        if "event_us" in result:
            kinds = ", ".join(
                f"{number:,} {kind}" for kind, number in result["events"].items() if kind != "journal_bytes"
            )
            events.append([result["workload"], kinds, f"{result['event_us']:.2f}", f"<= {EVENT_TARGET_US}"])
        for peer, clocks in result["peers"].items():
            peers.append([result["workload"], peer] + [f"{clocks[c]['ratio']:.3f}" for c in ("wall", "cpu")])
    table("Traced load / untraced load", head, rows)
    if amplified:
        table(
            "The same with many recorders at once, divided by their number",
            [
                "load",
                "clock",
                "plain s",
                "cost ms",
                "ratio",
                "95 % range",
                "target",
                "us per event",
                "target",
            ],
            amplified,
        )
    table(
        "Around the load (seconds, medians; leave holds stop, replay and write)",
        ["load", "enter", "load", "stop", "replay", "write", "leave", "journal MB"],
        around,
    )
    if events:
        table(
            "Processor time per tensor event: paired difference of the loads / events, as noisy as they are",
            ["load", "events", "us per event", "target"],
            events,
        )
    if peers:
        table("Other tools / untraced load", ["load", "tool", "wall", "cpu"], peers)


def show_handlers(rows: list[dict[str, Any]]) -> None:
    table(
        f"Handlers around a function that does nothing, {rows[0]['calls']:,} calls (ns per event)",
        ["handler", "plain call", "calling thread", "with the journal", "min - min", "target"],
        [
            [
                row["handler"],
                f"{row['plain_ns']:.0f}",
                f"+{row['calling_ns']:.0f}",
                f"+{row['whole_ns']:.0f}",
                f"+{row['least_ns']:.0f}",
                f"<= {EVENT_TARGET_US * 1000:.0f}",
            ]
            for row in rows
        ],
    )


def show_memory(result: dict[str, Any]) -> None:
    table(
        f"Anonymous memory of a load of many-100k (MB, medians of {result['rounds']} fresh processes each)",
        ["what", "MB", "target"],
        [
            ["peak, untraced", f"{result['plain_peak_bytes'] / MB:.1f}", ""],
            [
                "added to the peak until the load returned",
                f"{result['added_peak_bytes'] / MB:+.1f}",
                f"<= {MEMORY_TARGET_MB:.0f}",
            ],
            ["added when the load has returned", f"{result['added_after_bytes'] / MB:+.1f}", ""],
            [
                "added to the peak until the trace is written, in the same process",
                f"{result['added_until_written_bytes'] / MB:+.1f}",
                "",
            ],
        ],
    )


def show_traces(results: list[dict[str, Any]]) -> None:
    rows = []
    for result in results:
        large = result["workload"] == "many-100k"
        name = f"{result['workload']} ({result['tensors']:,} tensors)"
        rows += [
            [name, "size, .json, MB", f"{result['json_bytes'] / MB:.2f}", "< 15" if large else ""],
            [name, "size, .json.gz, MB", f"{result['gzip_bytes'] / MB:.2f}", "< 2" if large else ""],
            [name, "Trace.open, s", f"{result['open_s']:.3f}", "< 0.5" if large else ""],
        ]
        if result["failure"]:
            rows.append([name, "hftrace show", f"failed: {result['failure']}", ""])
        else:
            rows += [
                [
                    name,
                    "hftrace show, whole process, s",
                    f"{result['show_s']:.3f} (min {result['show_least_s']:.3f})",
                    "<= 1.5" if large else "<= 0.25",
                ],
                [
                    name,
                    "hftrace show, peak memory, MB",
                    f"{result['show_peak_bytes'] / MB:.0f}",
                    "< 300" if large else "",
                ],
            ]
    table("The trace", ["trace", "what", "measured", "target"], rows)


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; may be repeated")
    parser.add_argument(
        "--workload", action="append", choices=WORKLOADS, help="only these loads; may be repeated"
    )
    parser.add_argument("--rounds", type=int, help="rounds of loads (default: 9, and 3 of 100,000 tensors)")
    parser.add_argument(
        "--memory-rounds", type=int, default=3, help="processes of each kind for memory (default 3)"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="each measured load in an interpreter of its own"
    )
    parser.add_argument(
        "--amplify", type=int, default=20, help="recorders of the amplified loads (default 20; 0 for none)"
    )
    parser.add_argument("--peers", action="store_true", help="other profilers that are installed, too")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, one round: only to see that it runs"
    )
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / "hftrace-benchmark",
        help="where checkpoints are kept",
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> None:
    options = arguments(given)
    if options.worker:
        worker(json.loads(options.worker))
        return
    quick = options.quick
    settings = Settings(
        sizes=QUICK if quick else Sizes(),
        cache=options.cache.absolute(),
        rounds=options.rounds or (1 if quick else None),
        fresh=options.fresh,
        peers=options.peers,
        amplify=2 if quick else options.amplify,
        memory_rounds=1 if quick else options.memory_rounds,
        repeat=1 if quick else 5,
    )
    settings.cache.mkdir(parents=True, exist_ok=True)
    parts = options.part or PARTS
    workloads = options.workload or WORKLOADS
    figures: dict[str, Any] = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "sizes": asdict(settings.sizes),
        "versions": {name: version(name) for name in ("torch", "transformers", "safetensors", "hftrace")},
    }
    say(
        f"python {figures['python']}, {figures['cpus']} CPUs, "
        + ", ".join(f"{name} {value}" for name, value in figures["versions"].items())
    )
    if "handlers" in parts:
        task = {"what": "handlers", "calls": settings.sizes.calls, "repeat": settings.repeat}
        figures["handlers"] = run_worker(task)[0]
        show_handlers(figures["handlers"])
    if "loads" in parts:
        figures["loads"] = []
        for workload in workloads:
            figures["loads"].append(loads(workload, settings))
        show_loads(figures["loads"])
    if "memory" in parts and sys.platform.startswith("linux"):
        figures["memory"] = memory(settings)
        show_memory(figures["memory"])
    if "trace" in parts:
        with tempfile.TemporaryDirectory(prefix="hftrace-benchmark-") as place:
            figures["traces"] = [
                trace_figures(name, settings, Path(place)) for name in ("small", "many-100k")
            ]
        show_traces(figures["traces"])
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def version(name: str) -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "?"


if __name__ == "__main__":
    main()
