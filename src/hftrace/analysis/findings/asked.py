"""Rules about what was asked for and not got: dtype, devices, attention, quantisation, class and the like."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from hftrace import units
from hftrace.analysis.findings.rules import Finding, Where, rule
from hftrace.analysis.ledger.dtypes import CAST_DTYPES
from hftrace.analysis.model_loads import ModelLoad, model_loads
from hftrace.analysis.request import SEVERAL, device_of
from hftrace.schema.trace import Trace
from hftrace.schema.vocabulary import ITEM_BYTES
from hftrace.units import byte_count

MAX_NAMES = 3
SINCE_THE_LOAD = frozenset({
    "cast", "cast_through", "changed_after_load", "emptied", "load_state_dict", "merged", "replaced",
    "resized", "verified", "written_in_place",
})  # fmt: skip
"""Evidence of tensors that are not what their load left: it was done to them afterwards."""
_DIGITS = re.compile(r"(?<=\.)\d+(?=\.|$)")


@rule(
    ("R32", "asked-not-got", "Something was asked for, and the finished model has something else."),
    concerns="asked",
    severity="warning",
)
def asked_not_got(trace: Trace) -> Iterator[Finding]:
    """R32: what the caller asked for, held against the finished model."""
    for load in model_loads(trace):
        if not load.got:
            continue  # the load did not finish, or an older hftrace recorded it
        for check in (_dtype, _device_map, _attention, _quantization, _ties, _class, _revision):
            for title, evidence, advice, cost, *meant in check(trace, load):
                yield Finding(
                    "R32",
                    "asked-not-got",
                    title,
                    evidence,
                    advice,
                    cost_bytes=cost or None,
                    severity="info" if meant else "",
                    where=Where(spans=[load.span]),
                )


Answer = tuple[str, str, str, int] | tuple[str, str, str, int, str]
"""Title, evidence, advice, the bytes that it costs, and who means it so where that is no fault."""


class _Parameters:
    """The parameters of one load, for questions about some of them.

    Args:
        trace: The trace.
        load: The load.
    """

    def __init__(self, trace: Trace, load: ModelLoad) -> None:
        tensors = trace.tensors
        self.names: list[str] = tensors.column("name")
        self.dtypes: list[str | None] = tensors.column("dtype")
        self.sizes: list[int | None] = tensors.column("bytes")
        self.devices: list[str | None] = tensors.column("device")
        self.offloads: list[str | None] = tensors.column("offload")
        kinds, provenances = tensors.column("kind"), tensors.column("provenance")
        self.rows = [
            row
            for row in load.rows
            if kinds[row] == "parameter" and self.names[row] and provenances[row] not in (None, "tied")
        ]
        evidence = tensors.column("evidence")
        self.as_loaded = [row for row in self.rows if evidence[row] not in SINCE_THE_LOAD]
        self.tied = [row for row in load.rows if kinds[row] == "parameter" and provenances[row] == "tied"]

    def floating(self, *, quantized: bool) -> list[int]:
        """Returns those that a load casts: neither what a quantiser made, nor what an adapter brought."""
        return [
            row
            for row in self.as_loaded
            if self.dtypes[row] in CAST_DTYPES
            and ".lora_" not in self.names[row]
            and not (quantized and self.names[row].rpartition(".")[2] not in ("weight", "bias"))
        ]

    def size(self, rows: Iterable[int]) -> int:
        """Returns the bytes of some of them."""
        return sum(self.sizes[row] or 0 for row in rows)

    def modules(self, rows: Iterable[int]) -> str:
        """Names the modules of some of them, the numbers of layers left out: ``model.layers.*.mlp.gate``."""
        sizes: Counter[str] = Counter()
        for row in rows:
            module = self.names[row].rpartition(".")[0] or self.names[row]
            sizes[_DIGITS.sub("*", module)] += self.sizes[row] or 1
        worst = [name for name, _ in sizes.most_common(MAX_NAMES)]
        rest = len(sizes) - len(worst)
        return ", ".join(worst) + (f" and {units.count(rest, 'more module')}" if rest > 0 else "")

    def extra(self, rows: Iterable[int], dtype: str) -> int:
        """Returns how many bytes fewer they would take in another dtype; 0 where it would be more."""
        return max(
            0,
            sum(
                size - size // ITEM_BYTES[self.dtypes[row] or dtype] * ITEM_BYTES[dtype]
                for row in rows
                if (size := self.sizes[row]) is not None
            ),
        )


# -- dtype ----------------------------------------------------------------------------------------------


def _dtype(trace: Trace, load: ModelLoad) -> Iterator[Answer]:
    keyword = next((name for name in ("dtype", "torch_dtype") if load.keywords.get(name) is not None), None)
    if keyword is None:
        return
    asked = load.keywords[keyword]
    parameters = _Parameters(trace, load)
    rows = parameters.floating(quantized=bool(load.got.get("quantization")))
    if isinstance(asked, Mapping):
        yield from _dtypes_of_parts(load, parameters, rows, keyword, asked)
        return
    dtype = str(asked).removeprefix("torch.")
    if dtype == "auto":
        # What the checkpoint has; the model says which that was. Of this only what a class keeps is known.
        dtype = str(load.got.get("dtype") or "")
        rows = _kept(load, parameters, rows)
    if dtype in CAST_DTYPES:
        yield from _not_of_dtype(load, parameters, rows, f"{keyword}={asked}", dtype)


def _not_of_dtype(
    load: ModelLoad, parameters: _Parameters, rows: Sequence[int], asked: str, dtype: str, part: str = ""
) -> Iterator[Answer]:
    """Yields what is in another dtype: first what nobody says why, then what the class keeps in float32."""
    wrong = [row for row in rows if parameters.dtypes[row] != dtype]
    kept = _kept(load, parameters, wrong)
    known = set(kept)
    others = [row for row in wrong if row not in known]
    if others:
        got = sorted({str(parameters.dtypes[row]) for row in others})
        whole = len(others) == len(rows)
        share = "All" if whole else f"{len(others):,} of"
        title = (
            f"Asked for {dtype}, got {' and '.join(got)}"
            if whole
            else f"Asked for {dtype}, got {' and '.join(got)} in {units.count(len(others), 'parameter')}"
        )
        yield (
            title + (f" in {part}" if part else ""),
            f"{asked} was asked for{f' {part}' if part else ''}. {share} "
            f"{units.count(len(rows), 'parameter')}, {byte_count(parameters.size(others))}, "
            f"came out as {' and '.join(got)}: "
            f"{parameters.modules(others)}.",
            f"Cast them after the load, model.{part + '.' if part else ''}to(torch.{dtype}), or load the "
            "class that config.json names under architectures.",
            parameters.extra(others, dtype),
        )
    if kept:
        names = ", ".join(_kept_names(load, parameters, kept))
        yield (
            f"Kept in float32, though {dtype} was asked for: {names}",
            f"{asked} was asked for. {units.count(len(kept), 'parameter')} of "
            f"{byte_count(parameters.size(kept))} stayed in float32, as "
            f"{load.got.get('class') or 'the class'} wants it of these modules: {parameters.modules(kept)}.",
            f"Count it in: {byte_count(parameters.extra(kept, dtype))} more than asked for, and casts where "
            f"the two dtypes meet. model.to(torch.{dtype}) after the load casts them too.",
            parameters.extra(kept, dtype),
            "class",
        )


def _dtypes_of_parts(
    load: ModelLoad, parameters: _Parameters, rows: list[int], keyword: str, asked: Mapping[str, Any]
) -> Iterator[Answer]:
    """Yields what is in another dtype than was asked for its part of a composite model."""
    parts = [(f"{part['prefix']}.", part["config"]) for part in _parts(load)]
    known = load.got.get("sub_configs")
    known = [str(name) for name in known] if isinstance(known, list) else []
    for name, value in asked.items():
        dtype = str(value).removeprefix("torch.")
        text = f"{keyword}={{{name!r}: {dtype}}}"
        prefixes = tuple(prefix for prefix, config in parts if config == name)
        if not name:
            everywhere = tuple(prefix for prefix, _ in parts)
            chosen = [row for row in rows if not parameters.names[row].startswith(everywhere)]
            if len(everywhere) < len(known):
                continue  # a part that was not found may be among them
        elif prefixes:
            chosen = [row for row in rows if parameters.names[row].startswith(prefixes)]
        elif name not in known:
            names = ", ".join(known) or "none"
            yield (
                f"{keyword} for {name}: the model has no such part",
                f"{text} was asked for, and the parts of this model are: {names}.",
                "Name the parts as config.json does.",
                0,
            )
            continue
        else:
            continue
        if dtype in CAST_DTYPES:
            part = prefixes[0][:-1] if prefixes else ""
            yield from _not_of_dtype(load, parameters, chosen, text, dtype, part)


def _parts(load: ModelLoad) -> list[Mapping[str, Any]]:
    """Returns the parts of a composite model whose place and config are known."""
    found = load.got.get("parts")
    return [
        part
        for part in (found if isinstance(found, list) else [])
        if isinstance(part, Mapping)
        and isinstance(part.get("prefix"), str)
        and isinstance(part.get("config"), str)
    ]


def _kept(load: ModelLoad, parameters: _Parameters, rows: Iterable[int]) -> list[int]:
    """Returns those that are in float32 in modules that their class keeps so."""
    names = load.got.get("kept_in_float32")
    if not isinstance(names, list) or not names:
        return []
    kept = re.compile(rf"(?:^|\.)(?:{'|'.join(re.escape(str(name)) for name in names)})(?:\.|$)")
    return [row for row in rows if parameters.dtypes[row] == "float32" and kept.search(parameters.names[row])]


def _kept_names(load: ModelLoad, parameters: _Parameters, rows: Sequence[int]) -> list[str]:
    return [
        str(name)
        for name in load.got["kept_in_float32"]
        if any(f".{name}." in f".{parameters.names[row]}." for row in rows)
    ]


# -- devices --------------------------------------------------------------------------------------------


def _device_map(trace: Trace, load: ModelLoad) -> Iterator[Answer]:
    asked = load.keywords.get("device_map")
    if asked is None or asked in SEVERAL:
        return
    places = asked if isinstance(asked, Mapping) else {"": asked}
    parameters = _Parameters(trace, load)
    wrong: dict[tuple[str, str], list[int]] = {}
    for row in parameters.rows:
        place = place_of(parameters.names[row], places)
        wanted = device_of(place)
        device = parameters.devices[row]
        if wanted in (None, "disk", "meta") or device in (None, "meta") or parameters.offloads[row]:
            continue  # what is brought in by a hook is where its map says
        kind, _, index = str(device).partition(":")
        if device != wanted and str(place) not in (kind, index):  # "cuda" is any of them, 0 is of any kind
            wrong.setdefault((str(wanted), str(device)), []).append(row)
    for (wanted, device), rows in wrong.items():
        yield (
            f"Asked for {wanted}, got {device} for {units.count(len(rows), 'parameter')}",
            f"device_map puts {parameters.modules(rows)} on {wanted}; {byte_count(parameters.size(rows))} of "
            f"it came out on {device}.",
            f'Move them after the load, model.to("{wanted}") for the whole, and see hf_device_map for what '
            "transformers made of the map.",
            parameters.size(rows),
        )


def place_of(name: str, places: Mapping[str, Any]) -> Any:
    """Returns where a device map puts a tensor: the longest module name that holds it decides."""
    while name not in places and name:
        name = name.rpartition(".")[0]
    return places.get(name)


# -- the rest -------------------------------------------------------------------------------------------


def _attention(trace: Trace, load: ModelLoad) -> Iterator[Answer]:
    asked = load.keywords.get("attn_implementation")
    if asked is None:
        return
    parts = {part["config"]: part for part in _parts(load)}
    if isinstance(asked, Mapping):
        wanted = {str(name): value for name, value in asked.items()}
    else:
        wanted = {"": asked, **dict.fromkeys(parts, asked)}
    for name, value in wanted.items():
        source = parts.get(name, {}) if name else load.got
        got = source.get("attn_implementation")
        if got is None or got == value or ("flash" in str(value) and "flash" in str(got)):
            continue  # unknown, as asked, or the same attention by a kernel of another package
        of = f" in {source.get('prefix')}" if name else ""
        yield (
            f"Asked for {value} attention, got {got}{of}",
            f"attn_implementation={asked!r} was asked for; the config of the finished model says {got}{of}.",
            "See the warning of the load: the class may not support it, or a package that it needs is not "
            "installed.",
            0,
        )


def _quantization(trace: Trace, load: ModelLoad) -> Iterator[Answer]:
    asked = load.request.get("quantization")
    if asked is None and (load.keywords.get("load_in_8bit") or load.keywords.get("load_in_4bit")):
        asked = "bitsandbytes"
    if asked is None or load.request.get("dequantize"):
        return
    got = load.got.get("quantization")
    got = got if isinstance(got, Mapping) else {}
    if not got.get("quantizer"):
        yield (
            f"Asked for {asked}, got a model that is not quantised",
            f"A quantisation with {asked} was asked for, and the finished model has no quantiser.",
            "Pass a quantization_config to from_pretrained of the model itself.",
            0,
        )
    elif (bits := load.request.get("quantization_bits")) and got.get("bits") not in (None, bits):
        yield (
            f"Asked for {bits} bits, got {got['bits']}",
            f"The checkpoint is quantised to {got['bits']} bits with {got.get('method')}, which wins over "
            f"the {bits} bits that were asked for.",
            "Load a checkpoint that is not quantised, or leave out the quantization_config.",
            0,
        )
    elif got.get("method") not in (None, asked):
        yield (
            f"Asked for {asked}, got {got['method']}",
            f"The checkpoint is quantised with {got['method']}, which wins over {asked}.",
            "Load a checkpoint that is not quantised, or leave out the quantization_config.",
            0,
        )


def _ties(trace: Trace, load: ModelLoad) -> Iterator[Answer]:
    asked = load.keywords.get("tie_word_embeddings")
    if not isinstance(asked, bool) or not load.rows:
        return
    tied = _Parameters(trace, load).tied
    if asked and not tied:
        yield (
            "Asked for tied embeddings, got none",
            "tie_word_embeddings=True was asked for, and no two parameters of the finished model are tied.",
            "Call model.tie_weights() after the load, if the class has an output layer.",
            0,
        )
    elif not asked and load.got.get("tie_word_embeddings"):
        yield (
            "Asked for embeddings that are not tied, got tied ones",
            "tie_word_embeddings=False was asked for, and the config of the finished model says True.",
            "Set it in the config that is handed in: config.tie_word_embeddings = False.",
            0,
        )


def _class(trace: Trace, load: ModelLoad) -> Iterator[Answer]:
    asked, got = load.request.get("class"), load.got.get("class")
    names = load.got.get("classes")
    if not isinstance(asked, str) or not isinstance(got, str) or asked.startswith("Auto"):
        return
    if load.request.get("what", "model") != "model" or "." in asked:
        return  # a pipeline, whatever else a class's own from_pretrained makes, or a function
    if asked not in (got, *(names if isinstance(names, list) else ())) and not got.endswith(asked):
        yield (
            f"Asked for {asked}, got {got}",
            f"{asked}.from_pretrained returned a {got}.",
            f"Load {got} by its own name, or see what replaced the class.",
            0,
        )


def _revision(trace: Trace, load: ModelLoad) -> Iterator[Answer]:
    asked, got = load.request.get("revision"), load.got.get("commit")
    if not isinstance(asked, str) or not isinstance(got, str):
        return
    if re.fullmatch(r"[0-9a-f]{40}", asked) and asked != got:
        yield (
            f"Asked for revision {asked[:12]}, got {got[:12]}",
            f"revision={asked} was asked for; the config of the finished model is of {got}.",
            "Remove the revision from the cache and load again.",
            0,
        )
