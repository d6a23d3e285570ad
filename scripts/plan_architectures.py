"""Plans and really loads a small checkpoint of many model types, and compares the two exactly.

    python scripts/plan_architectures.py [--most N] [--only TYPE ...] [--jobs N] [--forks] [-o FILE]

Of each type that can be written small: ``hftrace plan`` in a process of its own, then the load, traced. The
names of the parameters, their number, their bytes by dtype and by device, the bytes of the buffers, the tied
names, and what the loader reported missing are compared: plan with model, and ledger of the trace with model.
A checkpoint is stored in bfloat16 and loaded in float32, so that every weight is read and cast; one of its
keys is renamed, so that one is missing and one unexpected. With ``--forks`` plan and load are forks of one
process, which spares most of the time, and the load is not traced: what the command adds is not run.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hftrace
from hftrace.analysis.as_loaded import as_loaded
from hftrace.errors import HftraceError
from hftrace.launch.planning import plan_load
from hftrace.launch.request import LoadSpec
from hftrace.record.child.blueprint import BlueprintError, blueprint
from hftrace.record.child.keywords import dtype_keyword
from hftrace.schema.trace import Trace
from hftrace.synth.blueprints import plan_blueprint
from hftrace.synth.planning import sharded
from hftrace.synth.writer import write
from hftrace.units import parse_size

MOST_BYTES = 100_000_000
"""What cannot be made smaller than this is left out."""
SECONDS = 300
"""For one type, plan and load together."""
PER_PROCESS = 20
"""Types that share the imports of a process."""
UNEXPECTED = "hftrace_unexpected"
SHOWN = 3
"""Names of each difference that are printed."""


def compared(name: str, size: int, forks: bool = False) -> dict[str, Any]:
    """Returns what came of one model type."""
    try:
        found = blueprint({"model_type": name, "most_bytes": size // 2, "float_bytes": 2})
        planned = plan_blueprint(found, name=name, size=size, dtype="bfloat16")
    except (BlueprintError, HftraceError) as error:
        return {"name": name, "result": "not written", "why": str(getattr(error, "message", error))}
    if planned.data_bytes > MOST_BYTES:
        return {"name": name, "result": "not written", "why": f"{planned.data_bytes} bytes at least"}
    tensors = list(planned.tensors)
    plain = [
        at for at, each in enumerate(tensors) if not each.dtype and each.name.endswith((".bias", ".weight"))
    ]
    if plain:
        tensors[plain[-1]] = dataclasses.replace(tensors[plain[-1]], name=UNEXPECTED)
    changed = dataclasses.replace(
        planned, tensors=tuple(tensors), shards=sharded(tensors, planned.dtype, planned.max_shard_bytes)
    )
    facts = {"name": name, "class": found["class"], "tensors": len(tensors)}
    with tempfile.TemporaryDirectory(prefix="hftrace-plans-") as folder:
        write(changed, folder, force=True)
        if forks:
            plan, (truth, ledger, why) = (
                _forked(_dry, folder, found["class"]),
                _forked(_result, folder, found["class"], False),
            )
        else:
            spec = LoadSpec(model=folder, class_name=found["class"], keywords={dtype_keyword(): "float32"})
            try:
                plan = plan_load(spec)
            except HftraceError as error:
                plan = {"error": error.message}
            truth, ledger, why = _result(folder, found["class"], True)
        if truth is None:
            if "error" in plan:
                return {**facts, "result": "same", "why": f"both fail: {why}"}
            return {**facts, "result": "differs", "why": f"the load fails ({why}), the plan does not"}
    if "error" in plan:
        result = "no plan" if plan.get("refusal") else "differs"
        return {**facts, "result": result, "why": str(plan["error"])[:300]}
    wrong = _differences(_of_plan(plan), truth, "plan") + _differences(ledger, truth, "ledger")
    return {**facts, "result": "differs" if wrong else "same", "why": "; ".join(wrong)}


def _of_plan(plan: dict[str, Any]) -> dict[str, Any]:
    ways = plan["tensors"]
    return {
        "names": {name for row in ways.values() for name in row["names"]},
        "parameters": plan["parameters"],
        "by dtype": plan["bytes_by_dtype"],
        "by device": plan["bytes_by_device"],
        "buffers": plan["buffer_bytes"],
        "tied": set(plan["tied"]),
        "missing": set((ways.get("initialised") or {"names": []})["names"]),
    }


def _forked(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns what a function gives in a fork of this process."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            with os.fdopen(writing, "wb") as stream:
                pickle.dump(function(*arguments), stream)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        said = stream.read()
    os.waitpid(child, 0)
    return pickle.loads(said)


def _dry(folder: str, class_name: str) -> dict[str, Any]:
    import torch
    import transformers

    from hftrace.record.child.plan import _behind, _is_refusal, _reader
    from hftrace.record.child.plan_dry import dry_load
    from hftrace.system.memory import HostMemory

    try:
        reader = _reader(HostMemory(reset=False))
        keywords = {dtype_keyword(): torch.float32}
        return dry_load(getattr(transformers, class_name), folder, keywords, {}, Path(folder), reader)
    except Exception as error:
        refusal, behind = _is_refusal(error), _behind(error)
        said = f"{type(behind).__name__}: {behind}".splitlines()[0]
        return {"error": said if refusal else f"this load would fail: {said}", "refusal": refusal}


def _result(folder: str, class_name: str, traced: bool) -> tuple[Any, Any, str]:
    """Returns what a load ended with, or why it did not."""
    try:
        return (*_loaded(folder, class_name, traced), "")
    except Exception as error:
        return None, None, f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _loaded(folder: str, class_name: str, traced: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what a real load ended with: by the model, and by the ledger of its trace."""
    import torch
    import transformers
    from safetensors import safe_open

    file = Path(folder) / "trace.json"
    with hftrace.trace(file) if traced else contextlib.nullcontext():
        owner = getattr(transformers, class_name)
        keywords = {dtype_keyword(): torch.float32}
        model, info = owner.from_pretrained(folder, output_loading_info=True, **keywords)
    names: dict[int, str] = {}
    first: dict[str, str] = {}
    tied, dtypes, devices = set(), Counter[str](), Counter[str]()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        first[name] = names.setdefault(id(parameter), name)
        if first[name] != name:
            tied.add(name)
            continue
        dtypes[str(parameter.dtype)[6:]] += parameter.numel() * parameter.element_size()
        devices[str(parameter.device)] += parameter.numel() * parameter.element_size()
    truth = {
        "names": set(names.values()),
        "parameters": sum(each.numel() for each in model.parameters()),
        "by dtype": dict(dtypes),
        "by device": dict(devices),
        "buffers": sum(each.numel() * each.element_size() for each in model.buffers()),
        "tied": tied,
        "missing": set(info["missing_keys"]) & set(names.values()),
    }
    # Of a parameter that a class lets be missing the loader says nothing.
    silent = getattr(type(model), "_keys_to_ignore_on_load_missing", None) or ()
    with safe_open(Path(folder) / "model.safetensors", "pt") as opened:
        stored = set(opened.keys())
    truth["missing"] |= {
        name for name in truth["names"] - stored if any(re.search(each, name) for each in silent)
    }
    if not traced:
        return truth, {}
    rows = [
        row
        for row in as_loaded(Trace.open(file)).tensors
        if row.kind == "parameter" and row.tied_to is None and row.name is not None
    ]
    dtypes, devices = Counter(), Counter()
    for row in rows:
        dtypes[str(row.dtype)] += row.bytes or 0
        devices[str(row.device)] += row.bytes or 0
    ledger = {
        # Of names that are tied the ledger may take another one for the parameter's own: they are one.
        "names": {first.get(str(row.name), str(row.name)) for row in rows},
        "by dtype": dict(dtypes),
        "by device": dict(devices),
        "missing": {
            first.get(str(row.name), str(row.name))
            for row in rows
            if row.provenance in ("initialized", "uninitialized")
        },
    }
    return truth, ledger


def _differences(found: dict[str, Any], truth: dict[str, Any], who: str) -> list[str]:
    said = []
    for key, value in found.items():
        if value == truth[key]:
            continue
        if isinstance(value, set):
            more, less = sorted(value - truth[key])[:SHOWN], sorted(truth[key] - value)[:SHOWN]
            said.append(f"{who} {key}: has {more}, lacks {less}")
        else:
            said.append(f"{who} {key}: {value}, model: {truth[key]}")
    return said


def late(number: int, frame: Any) -> None:
    """Ends what takes too long."""
    raise TimeoutError(f"it took more than {SECONDS} s")


def some(names: list[str], size: int, forks: bool) -> int:
    """Prints what came of some types, a line of JSON each."""
    import transformers

    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    if hasattr(transformers.utils.logging, "disable_progress_bar"):
        transformers.utils.logging.disable_progress_bar()
    signal.signal(signal.SIGALRM, late)
    for name in names:
        signal.alarm(SECONDS)
        try:
            result = compared(name, size, forks)
        except Exception as error:
            result = {"name": name, "result": "failed", "why": f"{type(error).__name__}: {error}"[:300]}
        finally:
            signal.alarm(0)
        sys.stdout.write("\nRESULT " + json.dumps(result) + "\n")
        sys.stdout.flush()
    return 0


def main() -> int:
    """Compares all, or those that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--most", type=int, default=None, help="no more than so many, evenly spread")
    parser.add_argument("--only", nargs="+", default=None, help="these types")
    parser.add_argument("--size", default="1MB", help="of the model in float32")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--forks", action="store_true", help="spare the command and the trace")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, default=None)
    options = parser.parse_args()
    size = parse_size(options.size)
    if options.worker:
        return some(options.only, size, options.forks)
    from transformers import __version__
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    names = options.only or sorted(CONFIG_MAPPING_NAMES)
    if options.most is not None and options.most < len(names):
        names = [names[at * len(names) // options.most] for at in range(options.most)]
    waiting = [names[at : at + PER_PROCESS] for at in range(0, len(names), PER_PROCESS)]
    results: list[dict[str, Any]] = []
    while waiting:
        batch, waiting = waiting[: options.jobs], waiting[options.jobs :]
        started = [
            subprocess.Popen(
                [
                    *(sys.executable, __file__, "--worker", "--size", options.size),
                    *["--forks"] * options.forks,
                    *("--only", *part),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                # A fork has none of the threads that its parent computes with, and would wait for them.
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            for part in batch
        ]
        for process, part in zip(started, batch, strict=True):
            out, _ = process.communicate()
            lines = [line for line in out.splitlines() if line.startswith("RESULT ")]
            results += [json.loads(line.removeprefix("RESULT ")) for line in lines]
            for name in part[len(lines) : len(lines) + 1]:
                results.append(
                    {"name": name, "result": "failed", "why": f"the process ended ({process.returncode})"}
                )
            if part[len(lines) + 1 :]:
                waiting.append(part[len(lines) + 1 :])
            for each in results[-len(part) :]:
                if each["result"] not in ("same", "not written"):
                    sys.stdout.write(f"{each['name']}: {each['result']}: {each['why']}\n")
            sys.stdout.flush()
        if options.output is not None:
            options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    counts = Counter(each["result"] for each in results)
    sys.stdout.write(f"transformers {__version__}: {len(results)} types: {dict(counts)}\n")
    return 0 if not {"differs", "failed"} & set(counts) else 1


if __name__ == "__main__":
    sys.exit(main())
