"""Culprits in sentences, without a full stop: for the line on stderr, the findings and the evidence alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hftrace.analysis.values import natural, text
from hftrace.units import count, duration

WEIGHT_FILES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".index.json")
"""How the names of weight files end, which are taken for models now and then."""


def mismatch_sentence(facts: Mapping[str, Any]) -> str:
    """Returns in one sentence that a tensor does not fit; see evidence of the kind ``mismatched-tensor``."""
    name, file = text(facts.get("name")) or "a tensor", text(facts.get("file"))
    where = f"in {file}" if file else "in the checkpoint"
    return f"{name} has the shape {facts.get('stored_shape')} {where} and {facts.get('shape')} in the model"


def not_there_sentence(facts: Mapping[str, Any]) -> str:
    """Returns in one sentence what was asked for and is not there; see ``not-there``."""
    what, name, where = (text(facts.get(key)) for key in ("what", "name", "where"))
    if what == "folder":
        if name is not None and name.endswith(WEIGHT_FILES):
            return f"there is no folder {name}: name the folder that holds the weight file, and not the file"
        return f"there is no folder {name}: check the path"
    if what == "repository":
        return f"there is no repository {name}, or it is private: check the id, or set HF_TOKEN"
    if what == "revision":
        return (
            f"{where} has no revision {name or 'of this name'}: check the name of the branch, tag or commit"
        )
    if what == "variant":
        return f"{where} has no weights of the variant {name}: check its files, or leave variant out"
    return f"{what or 'something'} {name or ''} is not there".replace("  ", " ")


def no_answer_sentence(facts: Mapping[str, Any]) -> str:
    """Returns in one sentence that a host gave no answer that is of use; see ``no-answer``."""
    host, reason = text(facts.get("host")) or "a host that is not known", text(facts.get("reason"))
    failed, lost = natural(facts.get("failed")), natural(facts.get("lost_ns"))
    how = "said to try again" if (reason or "").startswith("status ") else "did not answer"
    many = f", {count(failed, 'request')} in {duration(lost)}" if failed and lost else ""
    return f"{host} {how}" + (f" ({reason}{many})" if reason else "")
