"""Plans and really loads every kind of checkpoint that the tests know, and compares the two exactly.

    python scripts/plan_kinds.py [--only KIND ...] [--work FOLDER]

Each kind of ``tests/integration/kinds`` is made, and its first ``from_pretrained`` of a model is done
twice, each time in a fork of its own: as a plan, and in truth, untraced. The kinds of ``PLAIN`` are
those that need no module. Names of the parameters, their number, their bytes by dtype and device, the
bytes of the buffers, tied names and what was missing in the files are compared. What was found stays
in ``tests/data/plan_kinds.json``, by version.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests" / "integration"
RESULTS = ROOT / "tests" / "data" / "plan_kinds.json"
EXACT, UNKNOWN, BOTH_FAIL, DIFFERS = "exact", "not known", "both fail", "differs"
NO_LOAD, CANNOT = "no from_pretrained of transformers", "not with it"
NO_RESULT = "no result"
SECONDS_EACH = 120
CAUSAL = "AutoModelForCausalLM"
LIMITED: dict[str, Any] = {"device_map": "auto", "max_memory": {"cpu": "2MB"}, "offload_folder": "off"}
BIN = ("--format", "bin")
PLAIN: dict[str, tuple[str, tuple[str, ...], str, dict[str, Any]]] = {
    "plain": ("llama-2-7b", (), CAUSAL, {}),
    "sharded": ("llama-2-7b", ("--max-shard-size", "1MB"), CAUSAL, {"dtype": "auto"}),
    "pickle": ("llama-2-7b", BIN, CAUSAL, {"dtype": "auto"}),
    "pickle, cast": ("llama-2-7b", BIN, CAUSAL, {"dtype": "float32"}),
    "cast up": ("llama-2-7b", (), CAUSAL, {"dtype": "float32"}),
    "cast down": ("bert-base", (), "AutoModelForMaskedLM", {"dtype": "float16"}),
    "tied": ("qwen2.5-0.5b", (), CAUSAL, {}),
    "new head": ("llama-2-7b", (), "AutoModelForSequenceClassification", {}),
    "encoder and decoder": ("t5-small", (), "AutoModelForSeq2SeqLM", {}),
    "vision": ("vit-base", (), "AutoModelForImageClassification", {}),
    "speech": ("whisper-tiny", (), "AutoModelForSpeechSeq2Seq", {}),
    "device_map cpu": ("llama-2-7b", (), CAUSAL, {"device_map": "cpu"}),
    "device_map auto": ("llama-2-7b", (), CAUSAL, {"device_map": "auto", "dtype": "auto"}),
    "device_map auto, the rest on disk": ("llama-2-7b", (), CAUSAL, {**LIMITED, "dtype": "auto"}),
    "the same, cast": ("llama-2-7b", (), CAUSAL, {**LIMITED, "dtype": "float32"}),
    "the same, pickle": ("llama-2-7b", BIN, CAUSAL, {**LIMITED, "dtype": "auto"}),
    "device_map of names, one on disk": (
        "llama-2-7b",
        (),
        CAUSAL,
        {"device_map": {"model": "cpu", "lm_head": "disk"}, "dtype": "auto", "offload_folder": "off"},
    ),
    "device_map meta": ("llama-2-7b", (), CAUSAL, {"device_map": {"": "meta"}, "dtype": "auto"}),
    "low_cpu_mem_usage": ("llama-2-7b", (), CAUSAL, {"low_cpu_mem_usage": True, "dtype": "auto"}),
    "experts": ("mixtral-8x7b", (), CAUSAL, {}),
    "experts, cast": ("mixtral-8x7b", (), CAUSAL, {"dtype": "float32"}),
}


class Seen(Exception):  # noqa: N818
    """Ends a kind's load once its first model was planned or loaded."""


def kind_of(name: str) -> Any:
    """Returns how a kind is made and loaded."""
    if name in PLAIN:
        return SimpleNamespace(make=lambda folder: _synthesize(name, folder), load=lambda at: _load(name, at))
    path = TESTS / "kinds" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    kind = importlib.util.module_from_spec(spec)
    sys.modules[name] = kind  # where pickle and transformers look for its classes
    spec.loader.exec_module(kind)
    return kind


def _synthesize(name: str, folder: Path) -> None:
    architecture, words, _, _ = PLAIN[name]
    command = [sys.executable, "-m", "hftrace", "synth", architecture, "--size", "4MB", *words]
    subprocess.run([*command, "-o", str(folder), "--force"], check=True, stdin=subprocess.DEVNULL)


def _load(name: str, folder: Path) -> Any:
    import torch
    import transformers

    from hftrace.record.child.keywords import dtype_keyword

    _, _, owner, given = PLAIN[name]
    keywords = dict(given)
    if "dtype" in keywords:
        value = keywords.pop("dtype")
        keywords[dtype_keyword()] = value if value == "auto" else getattr(torch, value)
    return getattr(transformers, owner).from_pretrained(str(folder), **keywords)


@contextlib.contextmanager
def first_load(instead: Callable[[Any, str, dict[str, Any], Callable[[], Any]], Any]) -> Any:
    """Puts a function in the place of the outermost ``from_pretrained`` of a model."""
    from transformers import PreTrainedModel
    from transformers.models.auto.auto_factory import _BaseAutoModelClass

    inside = []

    def wrapped(original: Any) -> Any:
        def from_pretrained(owner: Any, model: Any, *rest: Any, **keywords: Any) -> Any:
            if inside:
                return original.__func__(owner, model, *rest, **keywords)
            inside.append(owner)
            return instead(owner, model, keywords, lambda: original.__func__(owner, model, *rest, **keywords))

        return classmethod(from_pretrained)

    for each in (PreTrainedModel, _BaseAutoModelClass):
        each.from_pretrained = wrapped(vars(each)["from_pretrained"])
    yield inside


def _begin(kind: Any, folder: Path, instead: Callable[..., Any]) -> None:
    with first_load(instead) as inside:
        try:
            kind.load(folder)
        except Seen:
            pass
        except Exception:
            # One that needs what its making left in the process has no load that could be planned.
            if inside:
                raise


def planned(kind: Any, folder: Path) -> dict[str, Any]:
    """Returns the plan of a kind's first load."""
    from hftrace.record.child.plan import _behind, _is_refusal, _reader
    from hftrace.record.child.plan_dry import dry_load
    from hftrace.system.memory import HostMemory

    found: dict[str, Any] = {}

    def plan(owner: Any, model: Any, keywords: dict[str, Any], _: Any) -> None:
        reader = _reader(HostMemory(reset=False))
        place = folder.with_name(folder.name + "-plan")
        place.mkdir()
        try:
            found.update(dry_load(owner, model, keywords, {}, place, reader))
        except Exception as error:
            refusal = _is_refusal(error)
            found.update(error=_said(_behind(error)), refusal=refusal)
        raise Seen

    _begin(kind, folder, plan)
    return found


def loaded(kind: Any, folder: Path) -> dict[str, Any]:
    """Returns what a kind's first load ends with."""
    found: dict[str, Any] = {}

    def load(owner: Any, model: Any, keywords: dict[str, Any], original: Callable[[], Any]) -> None:
        try:
            result = original()
            found.update(_truth(result[0] if isinstance(result, tuple) else result))
        except Exception as error:
            found["error"] = _said(error)
        raise Seen

    _begin(kind, folder, load)
    return found


def _truth(model: Any) -> dict[str, Any]:
    places = getattr(model, "hf_device_map", None) or {}

    def place(name: str, parameter: Any) -> str:
        if parameter.device.type != "meta":
            return str(parameter.device)
        parts = name.split(".")
        names = [".".join(parts[:count]) for count in range(len(parts), -1, -1)]
        return str(next((places[name] for name in names if name in places), "meta"))

    first: dict[int, str] = {}
    tied, dtypes, devices = [], Counter[str](), Counter[str]()
    for name, each in model.named_parameters(remove_duplicate=False):
        if first.setdefault(id(each), name) != name:
            tied.append(name)
            continue
        dtypes[str(each.dtype)[6:]] += each.numel() * each.element_size()
        devices[place(name, each)] += each.numel() * each.element_size()
    count = sum(each.numel() for each in model.parameters())
    if getattr(model, "hf_quantizer", None) is not None:
        count = int(model.num_parameters())
    return {
        "names": sorted(first.values()),
        "parameters": count,
        "by dtype": dtypes,
        "by device": devices,
        "buffers": sum(each.numel() * each.element_size() for each in model.buffers()),
        "tied": sorted(tied),
    }


def _said(error: BaseException) -> str:
    words = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {words[0][:200]}"


def compared(plan: dict[str, Any], truth: dict[str, Any]) -> tuple[str, str]:
    """Returns how a plan stands to the load, and what it says or gets wrong."""
    if not plan and not truth:
        return NO_LOAD, ""
    if "error" in plan:
        if plan["refusal"]:
            return UNKNOWN, str(plan["error"])
        if "error" in truth:
            return BOTH_FAIL, str(truth["error"])
        return DIFFERS, f"the plan says that it fails: {plan['error']}"
    if "error" in truth:
        return DIFFERS, f"the load fails: {truth['error']}"
    ways = plan["tensors"]
    mine = {
        "names": sorted(name for row in ways.values() for name in row["names"]),
        "parameters": plan["parameters"],
        "by dtype": plan["bytes_by_dtype"],
        "by device": plan["bytes_by_device"],
        "buffers": plan["buffer_bytes"],
        "tied": sorted(plan["tied"]),
    }
    wrong = []
    for key, value in mine.items():
        if value != truth[key]:
            if isinstance(value, list):
                more, less = set(value) - set(truth[key]), set(truth[key]) - set(value)
                wrong.append(f"{key}: has {sorted(more)[:3]}, lacks {sorted(less)[:3]}")
            else:
                wrong.append(f"{key}: {value}, model: {dict(truth[key]) if key[:2] == 'by' else truth[key]}")
    return (DIFFERS, "; ".join(wrong)) if wrong else (EXACT, "")


def work(packages: str, pairs: list[str]) -> int:
    """Makes, plans and loads kinds, and leaves a ``result.json`` in each one's folder."""
    sys.path.insert(0, str(TESTS))
    import torch
    import transformers

    for package in filter(None, packages.split(",")):
        importlib.import_module(package)
    _ = transformers.LlamaForCausalLM, transformers.AutoModelForCausalLM
    transformers.logging.set_verbosity_error()
    for name, place in zip(pairs[::2], pairs[1::2], strict=True):
        folder = Path(place)
        found = {}
        for step in ("make", "plan", "load"):
            child = os.fork()
            if child:
                os.waitpid(child, 0)
                continue
            try:
                os.chdir(folder.parent)
                with open(folder.parent / f"{step}.txt", "wb") as output:
                    os.dup2(output.fileno(), 1)
                    os.dup2(output.fileno(), 2)
                torch.manual_seed(7)
                kind = kind_of(name)
                if step == "make":
                    kind.make(folder)
                    answer: dict[str, Any] = {}
                else:
                    answer = planned(kind, folder) if step == "plan" else loaded(kind, folder)
                (folder.parent / f"{step}.json").write_text(json.dumps(answer))
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(0)
        for step in ("make", "plan", "load"):
            path = folder.parent / f"{step}.json"
            found[step] = json.loads(path.read_text()) if path.exists() else None
        if None in found.values():
            step = next(step for step, value in found.items() if value is None)
            last = ((folder.parent / f"{step}.txt").read_text(errors="replace").splitlines() or ["nothing"])[
                -1
            ]
            result = (DIFFERS if step != "make" else CANNOT, f"{step}: {last[:200]}")
        else:
            result = compared(found["plan"], found["load"])
        (folder.parent / "result.json").write_text(json.dumps(result))
        sys.stdout.write(f"{name}: {result[0]}{': ' * bool(result[1])}{result[1]}\n")
        sys.stdout.flush()
    return 0


def _tests() -> ModuleType:
    """Returns the module of the tests, which knows what a kind needs."""
    sys.path.insert(0, str(TESTS))
    spec = importlib.util.spec_from_file_location("test_kinds", TESTS / "test_kinds.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measure(only: list[str] | None, place: Path) -> dict[str, tuple[str, str]]:
    """Returns what came of each kind with this interpreter's transformers."""
    tests = _tests()
    names = only or [*PLAIN, *tests.KINDS]
    results: dict[str, tuple[str, str]] = {}
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in names:
        kind = tests._facts(name) if name not in PLAIN else SimpleNamespace()
        reason = tests._why_not(kind)
        if reason is not None:
            results[name] = CANNOT, reason
        else:
            groups[tuple(getattr(kind, "NEEDS", ()))].append(name)
    for needs, alike in groups.items():
        paths = [os.environ.get("PYTHONPATH", ""), *map(str, tests._places(SimpleNamespace(NEEDS=needs)))]
        imported = ",".join(tests.IMPORTED_AS[each] for each in needs if each in tests.IMPORTED_AS)
        pairs = []
        for number, name in enumerate(alike):
            folder = place / f"{'-'.join(needs) or 'plain'}-{number}" / "model"
            folder.mkdir(parents=True)
            pairs += [name, str(folder)]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [sys.executable, __file__, "--worker", imported, *pairs],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "HF_HUB_OFFLINE": "1"},
                stdin=subprocess.DEVNULL,
                timeout=60 + SECONDS_EACH * len(alike),
                check=False,
            )
        for name, folder_name in zip(pairs[::2], pairs[1::2], strict=True):
            path = Path(folder_name).with_name("result.json")
            results[name] = (
                tuple(json.loads(path.read_text()))
                if path.exists()
                else (NO_RESULT, "it took too long, or its process died")
            )
    return results


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=None, help="these kinds; nothing is kept")
    parser.add_argument("--work", type=Path, default=None, help="where checkpoints stay; gone without it")
    parser.add_argument("--worker", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options.worker[0], options.worker[1:])
    from transformers import __version__

    with tempfile.TemporaryDirectory(prefix="hftrace-kinds-") as temporary:
        results = measure(options.only, options.work or Path(temporary))
    counts = Counter(ended for ended, _ in results.values())
    sys.stdout.write(f"transformers {__version__}: {len(results)} kinds: {dict(counts)}\n")
    if options.only is None:
        kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
        kept[__version__] = results
        RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 1 if counts[DIFFERS] or counts[NO_RESULT] else 0


if __name__ == "__main__":
    sys.exit(main())
