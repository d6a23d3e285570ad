"""What a checkpoint of a model holds, by the installed transformers: names, shapes and dtypes, no values.

Run as ``python bootstrap.py load - hftrace.record.child.blueprint`` with a question on standard input. The
model is built on the meta device. Names are those that this version's ``save_pretrained`` would write: what
it converts while it loads is converted back.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from hftrace.record.child.auto_classes import LAST, PREFERRED
from hftrace.record.child.shrinking import Step, more_layers, more_tokens, steps

FLOAT = "float"
"""Stands for every dtype of floats: which one it is stored in is not the model's to say."""

TOLERANCE = 0.1
"""What may be more than was asked for, where what is less would be further from it."""
TRIES = 4
"""How many numbers of layers are tried where those that fit by the first one do not."""


class BlueprintError(Exception):
    """Something that cannot be built, in a sentence."""


def main(directory: str) -> int:
    """Answers the question on standard input with a JSON object; returns the exit code."""
    question = json.load(sys.stdin)
    out, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no part of the answer
    try:
        answer = blueprint(question)
    except BlueprintError as error:
        answer = {"problem": str(error)}
    json.dump(answer, out)
    return 0


def blueprint(question: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a checkpoint holds.

    Args:
        question: ``config`` (the content of a config.json) or ``model_type``; ``kept``: values to set in
            it, which no size changes; and ``most_bytes``: what all floats may take at ``float_bytes`` each,
            None for the size of the config.

    Raises:
        BlueprintError: The model is not known, or cannot be built.
    """
    import transformers

    transformers.utils.logging.set_verbosity_error()
    asked = question.get("config") or _default_config(str(question.get("model_type")))
    kept = _kept(asked, question.get("kept") or {})
    asked = {**asked, **kept}
    most, each = question.get("most_bytes"), int(question.get("float_bytes") or 2)
    sizes = _Sizes(asked, kept, None if most is None else most // each)
    found = sizes.nearest()
    if found is None:
        raise BlueprintError(
            f"transformers {transformers.__version__} cannot build this model ({sizes.problem})"
        )
    return {**found, "asked": asked, "transformers": transformers.__version__}


class _Sizes:
    """A model at several sizes.

    Attributes:
        problem: Why one could not be built, in a sentence.
    """

    def __init__(self, asked: Mapping[str, Any], kept: Mapping[str, Any], most: int | None) -> None:
        # What the caller set is not there for what makes a config smaller, and put back afterwards.
        self._free = {key: value for key, value in asked.items() if key not in kept}
        self._kept = kept
        self._most = most
        self.problem = "nothing about it can be built"

    def nearest(self) -> dict[str, Any] | None:
        """Returns what comes near to the size asked for, else the smallest; None if none can be built."""
        smallest: dict[str, Any] | None = None
        for step in steps(self._free):
            made = self._made(step)
            if made is None:
                continue
            if self._fits(made):
                return made if step == Step() else self._filled(step, made)
            if smallest is None or made["elements"] < smallest["elements"]:
                smallest = made
        return smallest

    def _fits(self, made: Mapping[str, Any]) -> bool:
        return self._most is None or made["elements"] <= self._most

    def _filled(self, step: Step, made: dict[str, Any]) -> dict[str, Any]:
        """Returns the model with what room is left used by more layers, and then by more tokens."""
        most = self._most or 0
        for more in (more_layers, more_tokens):
            count, of = more(step, self._free)
            one = self._made(of(1)) if count else None
            costs = 0 if one is None else one["elements"] - made["elements"]
            room = 0 if costs <= 0 else min(count, round((most - made["elements"]) / costs))
            # Layers need not all be alike: one less, until it fits.
            for wanted in range(room, max(0, room - TRIES), -1):
                found = self._made(of(wanted))
                if found is not None and found["elements"] <= most * (1 + TOLERANCE):
                    step, made = of(wanted), found
                    break
        return made

    def _made(self, step: Step) -> dict[str, Any] | None:
        raw = step.of(self._free)
        if raw is None:
            return None
        try:
            return _built({**raw, **self._kept})
        except BlueprintError:
            raise
        except Exception as error:
            self.problem = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
            return None


def _kept(asked: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the caller set, by the names that the config has for it.

    Raises:
        BlueprintError: The config has no place for it: it would be kept, and mean nothing.
    """
    auto = importlib.import_module("transformers.models.auto.configuration_auto")
    model_type = str(asked.get("model_type"))
    if not given or model_type not in auto.CONFIG_MAPPING_NAMES:
        return {**given}
    owner = auto.CONFIG_MAPPING[model_type]
    others: Mapping[str, str] = getattr(owner, "attribute_map", None) or {}
    kept = {others.get(key, key): value for key, value in given.items()}
    try:
        known = owner.from_dict({**asked})
    except Exception:  # it may lack just what is set
        return kept
    for key in kept:
        if not hasattr(known, key):
            raise BlueprintError(f"a config of {model_type} has no {key!r} that could be set")
    return kept


def _default_config(model_type: str) -> dict[str, Any]:
    """Returns the config that a model type has by itself."""
    auto = importlib.import_module("transformers.models.auto.configuration_auto")
    if model_type not in auto.CONFIG_MAPPING_NAMES:
        raise BlueprintError(f"this transformers knows no model type {model_type!r}")
    try:
        config = auto.CONFIG_MAPPING[model_type]()
    except Exception as error:
        raise BlueprintError(
            f"{model_type} has no config of its own ({type(error).__name__}: {error}): give one with --config"
        ) from None
    found: dict[str, Any] = config.to_dict()
    found["model_type"] = model_type
    return json.loads(json.dumps(found, default=str))  # type: ignore[no-any-return]


def _built(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Builds a model of a config, and returns what it holds."""
    import torch

    auto = importlib.import_module("transformers.models.auto.configuration_auto")
    model_type = str(raw.get("model_type"))
    if model_type not in auto.CONFIG_MAPPING_NAMES:
        raise BlueprintError(f"this transformers knows no model type {model_type!r}")
    config = auto.CONFIG_MAPPING[model_type].from_dict({**raw})
    model: Any = None
    first: Exception | None = None
    for owner in _classes_for(raw, model_type):
        config.architectures = [owner.__name__]
        try:
            with torch.device("meta"):
                model = owner(config)
            break
        except Exception as error:  # one of a part of the model takes the part's config
            first = first or error
    else:
        if first is None:
            raise BlueprintError(f"this transformers has no model class for {model_type}")
        raise first
    model.tie_weights()
    tensors = dict(_as_saved(model))
    rows = [
        [name, list(tensor.shape), FLOAT if tensor.is_floating_point() else str(tensor.dtype)[6:]]
        for name, tensor in tensors.items()
    ]
    parameters = {id(each): each.numel() for each in model.parameters()}
    return {
        "config": _written(config),
        "class": type(model).__name__,
        "tensors": rows,
        "elements": sum(tensor.numel() for tensor in tensors.values() if tensor.is_floating_point()),
        "parameters": sum(parameters.values()),
    }


def _written(config: Any) -> dict[str, Any]:
    """Returns a config as ``save_pretrained`` writes it, or in full where that is read as another one.

    What equals a default is left out; a default that is another value of the config (the width of OPT's
    embeddings) is another one beside values that are smaller.
    """
    short: dict[str, Any] = json.loads(config.to_json_string())
    if type(config).from_dict({**short}).to_dict() == config.to_dict():
        return short
    return json.loads(config.to_json_string(use_diff=False))  # type: ignore[no-any-return]


def _classes_for(raw: Mapping[str, Any], model_type: str) -> Iterator[Any]:
    """Yields the model's classes: what the config names, else those in the tables of the auto classes."""
    import transformers

    named = [getattr(transformers, str(name), None) for name in raw.get("architectures") or []]
    if any(named):
        yield next(filter(None, named))
        return
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    others = [name for name in vars(auto) if name.startswith("AutoModelFor") and name not in PREFERRED]
    seen = set()
    for name in (*PREFERRED, *others, *LAST):
        mapping = getattr(getattr(vars(auto).get(name), "_model_mapping", None), "_model_mapping", None) or {}
        entry = mapping.get(model_type)
        for candidate in entry if isinstance(entry, (tuple, list)) else [entry]:
            owner = getattr(transformers, candidate, None) if candidate else None
            if owner is not None and candidate not in seen:
                seen.add(candidate)
                yield owner


def _as_saved(model: Any) -> Iterator[tuple[str, Any]]:
    """Yields what ``save_pretrained`` would write: tied tensors once, by the names of the checkpoint."""
    state = model.state_dict(keep_vars=True)
    for name in getattr(model, "_keys_to_ignore_on_save", None) or ():
        state.pop(name, None)
    modeling = sys.modules["transformers.modeling_utils"]
    collect = getattr(modeling, "_get_tied_weight_keys", None)
    tied = collect(model) if collect is not None else getattr(model, "_tied_weights_keys", None)
    patterns = list(tied or ())
    groups: dict[int, list[str]] = {}
    for name, tensor in state.items():
        groups.setdefault(id(tensor), []).append(name)
    kept = {}
    for names in groups.values():
        declared = [name for name in names if any(re.search(pattern, name) for pattern in patterns)]
        own = [name for name in names if name not in declared] or names
        kept[own[0]] = state[own[0]].detach()
    core = sys.modules.get("transformers.core_model_loading")
    revert = getattr(core, "revert_weight_conversion", None)
    saved: dict[str, Any] = revert(model, kept) if revert is not None else kept
    yield from saved.items()
