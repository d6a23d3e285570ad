"""The loader generations, one row of data each, and which of them is imported.

Adding one is a row here and a table in :mod:`hftrace.record.hooks.tables`.
What the rest of hftrace has to know about a loader stands in its row, and goes
into the trace's environment; no other place compares letters.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from hftrace.record.hooks.lookup import find
from hftrace.record.hooks.points import HookPoint
from hftrace.record.hooks.tables import POINTS

MODELING = "transformers.modeling_utils"
LOADING = "transformers.core_model_loading"
UNRECOGNISED = "unrecognised"


class Generation(NamedTuple):
    """What sets the loader of some releases of transformers apart.

    Args:
        letter: Its name.
        versions: The releases that have it, for the reader.
        recognised_by: Hook points that it has, all of them, and that no other generation has together.
        default_dtype: What weights are loaded in where no dtype is asked for; ``"auto"`` for the stored one.
        dtype_keyword: The keyword of ``from_pretrained`` that all of its releases take for a dtype; the last
            of generation C, 4.56 and 4.57, know the newer one as well, and warn of this.
        always_meta: Whether every model is built on the meta device; only on request otherwise.
        meta_buffers: Whether a model that is built on the meta device has its buffers there too.
        collects_after_shards: Whether it calls ``gc.collect`` after every shard.
        init_weights_always: Whether it calls ``_init_weights`` for every module, though all
            weights are loaded: the calls then change nothing and say nothing.
    """

    letter: str
    versions: str
    recognised_by: tuple[str, ...]
    default_dtype: str
    dtype_keyword: str
    always_meta: bool
    meta_buffers: bool
    collects_after_shards: bool
    init_weights_always: bool


GENERATIONS = (
    Generation(
        letter="A",
        versions="4.36 to 4.49",
        recognised_by=(f"{MODELING}:_load_state_dict_into_model", f"{MODELING}:set_initialized_submodules"),
        default_dtype="float32",
        dtype_keyword="torch_dtype",
        always_meta=False,
        meta_buffers=False,
        collects_after_shards=True,
        init_weights_always=False,
    ),
    Generation(
        letter="B",
        versions="4.50",
        recognised_by=(
            f"{MODELING}:_get_resolved_checkpoint_files",
            f"{MODELING}:check_support_param_buffer_assignment",
        ),
        default_dtype="float32",
        dtype_keyword="torch_dtype",
        always_meta=False,
        meta_buffers=False,
        collects_after_shards=False,
        init_weights_always=False,
    ),
    Generation(
        letter="C",
        versions="4.51 to 4.57",
        recognised_by=(
            f"{MODELING}:_load_parameter_into_model",
            f"{MODELING}:_load_state_dict_into_meta_model",
        ),
        default_dtype="float32",
        dtype_keyword="torch_dtype",
        always_meta=True,
        meta_buffers=False,
        collects_after_shards=False,
        init_weights_always=False,
    ),
    Generation(
        letter="D",
        versions="5.x",
        recognised_by=(
            f"{LOADING}:convert_and_load_state_dict_in_model",
            f"{LOADING}:_materialize_copy",
            f"{LOADING}:set_param_for_module",
        ),
        default_dtype="auto",
        dtype_keyword="dtype",
        always_meta=True,
        meta_buffers=True,
        collects_after_shards=False,
        init_weights_always=True,
    ),
)
"""From the oldest to the newest."""


class Loader(NamedTuple):
    """The loader of the imported transformers.

    Args:
        generation: The row by which it is traced: its own, or the newest.
        recognised: Whether it has all that this generation is recognised by.
    """

    generation: Generation
    recognised: bool

    def facts(self) -> dict[str, Any]:
        """Returns what a trace's environment says of the loader."""
        row = self.generation
        return {
            "generation": row.letter if self.recognised else UNRECOGNISED,
            "loader": {
                "traced_as": row.letter,
                "versions": row.versions,
                "default_dtype": row.default_dtype,
                "dtype_keyword": dtype_keyword(row),
                "always_meta": row.always_meta,
                "meta_buffers": row.meta_buffers,
                "collects_after_shards": row.collects_after_shards,
            },
        }

    def expects(self, point: HookPoint) -> bool:
        """Returns whether a hook point should be there, in whatever version of this generation."""
        return not point.optional and _holds_for(point, self.generation)


def dtype_keyword(row: Generation | None) -> str:
    """Returns the name by which ``from_pretrained`` takes a dtype: ``dtype`` (4.56 on) or ``torch_dtype``."""
    config = getattr(sys.modules.get("transformers.configuration_utils"), "PretrainedConfig", None)
    # The version that renamed the keyword, in the middle of a generation, left a property by the old name.
    if isinstance(getattr(config, "torch_dtype", None), property):
        return "dtype"
    return "torch_dtype" if row is None else row.dtype_keyword


def _holds_for(point: HookPoint, generation: Generation) -> bool:
    """Returns whether a hook point belongs to a generation."""
    letters = [each.letter for each in GENERATIONS]
    first = letters.index(point.since) if point.since else 0
    last = letters.index(point.until) if point.until else len(letters) - 1
    return first <= letters.index(generation.letter) <= last


def installed_loader() -> Loader | None:
    """Returns the loader of the imported transformers, by what is present, never by its version.

    One that fits no row is traced as the newest: releases that hftrace does not know are newer
    than those that it does.

    Returns:
        None while ``transformers.modeling_utils`` has not been imported.
    """
    if MODELING not in sys.modules:
        return None
    points = {point.target: point for point in POINTS}
    for row in reversed(GENERATIONS):
        if all(find(points[target]).present for target in row.recognised_by):
            return Loader(row, recognised=True)
    return Loader(GENERATIONS[-1], recognised=False)


def loader_facts() -> dict[str, Any]:
    """Returns the facts about the loader for a trace's environment; unknown ones where none is imported."""
    loader = installed_loader()
    return {"generation": None} if loader is None else loader.facts()
