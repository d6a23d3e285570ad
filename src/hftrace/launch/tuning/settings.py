"""What can be set of a load, for which versions it means something, and what it changes of the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hftrace.analysis.compare.equality import ATTENTION, DEVICE, DTYPE
from hftrace.launch.preparation import cached_snapshot
from hftrace.launch.request import LoadSpec
from hftrace.launch.variants.specs import DTYPE_KEYWORDS, VariantSpec
from hftrace.record.child.collector import FREEZE, OFF
from hftrace.record.device import NOT_USED
from hftrace.schema.trace import Trace

TIME, MEMORY = "time", "memory"
BOTH = frozenset({TIME, MEMORY})
CHANGED_BY = {
    **dict.fromkeys(DTYPE_KEYWORDS, DTYPE),
    "quantization_config": DTYPE,
    "load_in_4bit": DTYPE,
    "load_in_8bit": DTYPE,
    "attn_implementation": ATTENTION,
    "device_map": DEVICE,
    "max_memory": DEVICE,
    **dict.fromkeys(("tp_plan", "tp_size", "fsdp_size", "distributed_config"), DEVICE),
}
"""What keywords change of a model."""
CPU = "cpu"
WORKERS = "4"
"""Readers of shards: twice the cores of a small machine; more of them only wait for each other there."""


@dataclass(frozen=True)
class Situation:
    """What a load is like that is to be made better.

    Args:
        version: Of transformers, as numbers: (4, 57); empty where it is not known.
        keywords: Of the call as it is.
        formats: Of the weight files that were read.
        safetensors: Whether there are safetensors files beside what was read.
        shards: How many weight files were read.
        cast: Whether any tensor was stored in another dtype than it is loaded in.
        stored: The dtypes that tensors of floats are stored in.
        accelerators: Whether there is any.
        imported: Top-level packages that took time to import.
    """

    version: tuple[int, ...]
    keywords: Mapping[str, Any]
    formats: frozenset[str]
    safetensors: bool
    shards: int
    cast: bool
    stored: frozenset[str]
    accelerators: bool
    imported: frozenset[str]


@dataclass(frozen=True)
class Setting:
    """One thing that can be set.

    Args:
        name: What it is called.
        keywords: Of ``from_pretrained``.
        environment: Variables of its process.
        without: Keywords that it takes away.
        collector: What Python's collector of cycles does.
        changes: What it may change of the model: see :mod:`hftrace.analysis.compare.equality`.
        serves: What it may make better.
        since: The first version for which it means something.
        until: The first version for which it no longer does.
        applies: Whether it can make a difference to a load.
        origin: The rule of the finding that it comes from; None for one of the table.
    """

    name: str
    keywords: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    without: frozenset[str] = frozenset()
    collector: str | None = None
    changes: frozenset[str] = frozenset()
    serves: frozenset[str] = BOTH
    since: tuple[int, ...] = (4, 36)
    until: tuple[int, ...] | None = None
    applies: Callable[[Situation], bool] = lambda situation: True
    origin: str | None = None

    def fits(self, situation: Situation, objective: str) -> bool:
        """Says whether it means something for a load, and for what is to become better."""
        version = situation.version
        known = not version or (version >= self.since and (self.until is None or version < self.until))
        given = situation.keywords
        news = any(key not in given or given[key] != value for key, value in self.keywords.items())
        news = news or bool(self.without & given.keys() or self.environment or self.collector)
        return known and news and objective in self.serves and self.applies(situation)


def _falsy(key: str) -> Callable[[Situation], bool]:
    return lambda situation: situation.keywords.get(key) is False


def _imports(*packages: str) -> Callable[[Situation], bool]:
    return lambda situation: not situation.imported.isdisjoint(packages)


_DTYPE, _ATTENTION, _DEVICE = frozenset({DTYPE}), frozenset({ATTENTION}), frozenset({DEVICE})
TABLE: tuple[Setting, ...] = (
    Setting(
        "use_safetensors=True",
        {"use_safetensors": True},
        applies=lambda situation: situation.safetensors and situation.formats != {"safetensors"},
    ),
    Setting("fast init", without=frozenset({"_fast_init"}), until=(4, 51), applies=_falsy("_fast_init")),
    Setting(
        "dtype=auto",
        {"dtype": "auto"},
        without=DTYPE_KEYWORDS,
        changes=_DTYPE,
        applies=lambda situation: situation.cast,
    ),
    Setting(
        "dtype=bfloat16",
        {"dtype": "bfloat16"},
        without=DTYPE_KEYWORDS,
        changes=_DTYPE,
        applies=lambda situation: situation.stored != {"bfloat16"},
    ),
    Setting("low_cpu_mem_usage=True", {"low_cpu_mem_usage": True}, until=(4, 51)),
    Setting(
        "device_map=cpu",
        {"device_map": CPU},
        # Where nothing is moved by it, it still takes another way through the loader.
        applies=lambda situation: situation.keywords.get("device_map") is None,
    ),
    Setting(
        "device_map=auto",
        {"device_map": "auto"},
        changes=_DEVICE,
        applies=lambda situation: situation.accelerators,
    ),
    Setting("attn_implementation=sdpa", {"attn_implementation": "sdpa"}, changes=_ATTENTION),
    Setting("attn_implementation=eager", {"attn_implementation": "eager"}, changes=_ATTENTION),
    Setting("no asynchronous reads", environment={"HF_DEACTIVATE_ASYNC_LOAD": "1"}, since=(5,)),
    Setting(
        "parallel shards",
        environment={"HF_ENABLE_PARALLEL_LOADING": "1", "HF_PARALLEL_LOADING_WORKERS": WORKERS},
        since=(4, 53),
        until=(5,),
        applies=lambda situation: situation.shards > 1,
    ),
    Setting(
        "disable_mmap=True",
        {"disable_mmap": True},
        since=(5, 8),
        applies=lambda situation: "safetensors" in situation.formats,
    ),
    Setting(
        "offload_state_dict=True",
        {"offload_state_dict": True},
        until=(4, 57),
        serves=frozenset({MEMORY}),
        applies=lambda situation: situation.keywords.get("device_map") is not None,
    ),
    Setting(
        "offload_state_dict=False",
        {"offload_state_dict": False},
        until=(4, 57),
        serves=frozenset({TIME}),
        applies=lambda situation: situation.keywords.get("offload_state_dict") is True,
    ),
    Setting("collector off", collector=OFF, serves=frozenset({TIME})),
    Setting("collector frozen", collector=FREEZE, serves=frozenset({TIME})),
    Setting("USE_TF=0", environment={"USE_TF": "0"}, until=(5,), applies=_imports("tensorflow", "keras")),
    Setting("USE_JAX=0", environment={"USE_JAX": "0"}, until=(5,), applies=_imports("jax", "flax")),
)
"""Settings in the order in which they are tried; what helps most where it helps comes first."""


def situation_of(trace: Trace, load: LoadSpec) -> Situation:
    """Returns what a traced load is like."""
    read = [row for row in trace.files if row.opened and row.shard is not None]
    weights = read or [row for row in trace.files if row.opened and row.format in ("safetensors", "bin")]
    pairs = set(zip(trace.tensors.column("stored_dtype"), trace.tensors.column("dtype"), strict=True))
    floats = {(stored, dtype) for stored, dtype in pairs if stored and dtype and "float" in stored}
    devices, memory = trace.environment.get("devices"), trace.environment.get("device_memory")
    idle = isinstance(memory, dict) and memory.get("reason") == NOT_USED  # by a load onto the CPU
    return Situation(
        version=_version(trace.environment.get("transformers")),
        keywords=load.keywords,
        formats=frozenset(str(row.format) for row in weights if row.format),
        safetensors=_has_safetensors(load),
        shards=len(weights),
        cast=any(stored != dtype for stored, dtype in floats),
        stored=frozenset(stored for stored, _ in floats),
        accelerators=bool(devices) or idle,
        imported=_imported(trace),
    )


def from_findings(found: Sequence[Any]) -> list[Setting]:
    """Returns settings that findings recommend, as far as they name keywords or variables."""
    made = []
    for finding in found:
        fix = getattr(finding, "fix", None)
        part = fix.get if isinstance(fix, Mapping) else lambda name, fix=fix: getattr(fix, name, None)
        keywords, environment = (part(name) or {} for name in ("keywords", "environment"))
        if not isinstance(keywords, Mapping) or not isinstance(environment, Mapping):
            continue
        if not keywords and not environment:
            continue
        given = {key: value for key, value in keywords.items() if value is not None}
        items = [f"{key}={value}" for key, value in {**keywords, **environment}.items()]
        changes = frozenset(CHANGED_BY[key] for key in keywords if key in CHANGED_BY)
        # Two names of one keyword: given both, transformers would refuse the load.
        without = (DTYPE_KEYWORDS if DTYPE in changes else frozenset()) | (keywords.keys() - given.keys())
        variables = {str(key): str(value) for key, value in environment.items()}
        made.append(
            Setting(
                ", ".join(items), given, variables, frozenset(without), changes=changes, origin=finding.rule
            )
        )
    return made


def distinct(settings: Sequence[Setting]) -> list[Setting]:
    """Returns settings without those that say what an earlier one does."""
    kept: list[Setting] = []
    for setting in settings:
        same = [
            other
            for other in kept
            if (other.keywords, other.environment, other.collector)
            == (setting.keywords, setting.environment, setting.collector)
            and other.without - DTYPE_KEYWORDS == setting.without - DTYPE_KEYWORDS
        ]
        if not same and setting.name not in {other.name for other in kept}:
            kept.append(setting)
    return kept


def variant(name: str, settings: Sequence[Setting]) -> VariantSpec:
    """Returns the variant that has several settings at once."""
    keywords: dict[str, Any] = {}
    environment: dict[str, str] = {}
    for setting in settings:
        keywords |= setting.keywords
        environment |= setting.environment
    without = frozenset().union(*(setting.without for setting in settings))
    collector = next((setting.collector for setting in settings if setting.collector), None)
    return VariantSpec(name, keywords, environment, None, without, collector)


def conflict(first: Setting, second: Setting) -> bool:
    """Says whether two settings cannot both be had."""
    ours = first.keywords.keys() | first.without
    theirs = second.keywords.keys() | second.without
    return bool(
        ours & theirs
        or first.environment.keys() & second.environment.keys()
        or (first.collector and second.collector)
    )


def _version(text: Any) -> tuple[int, ...]:
    numbers = []
    for part in str(text or "").split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _has_safetensors(load: LoadSpec) -> bool:
    folder = Path(load.model).expanduser()
    place = folder if folder.is_dir() else cached_snapshot(load.model, load.keywords)
    if place is None:
        return False
    place /= str(load.keywords.get("subfolder") or "")
    variant = f".{load.keywords['variant']}" if load.keywords.get("variant") else ""
    names = (f"model{variant}.safetensors", f"model.safetensors.index{variant}.json")
    return any((place / name).is_file() for name in names)


def _imported(trace: Trace) -> frozenset[str]:
    """Returns the packages that imports of a trace name as those that cost most."""
    found = set()
    for attributes in trace.spans.column("attributes"):
        packages = attributes.get("packages") if isinstance(attributes, Mapping) else None
        for row in packages if isinstance(packages, list) else ():
            if isinstance(row, list) and row and isinstance(row[0], str):
                found.add(row[0].partition(".")[0])
    return frozenset(found)
