"""Parameters that the loader did not find, and whose keys are in the files all the same."""

import pytest

from handmade import Builder
from hftrace.analysis.ledger.in_files import still_in_files

WEIGHT = "layers.0.proj.weight"


def said(evidence, key, lost=(WEIGHT,), without=()):
    made = Builder()
    for name in lost:
        made.tensor(name, [2, 2], provenance="initialized", keys=[])
    made.tensor(None, [2, 2], kind="unused", provenance="unused", keys=[key], evidence=evidence)
    return still_in_files(made.trace(), "parameter", "initialized", without)


@pytest.mark.parametrize("key", [WEIGHT, f"model.{WEIGHT}"])
def test_a_key_that_no_index_names(key):
    words = f" The checkpoint has {WEIGHT}, and the loader did not find it, as where the index of the shards "
    assert said("unlisted", key) == words + "does not name it."


@pytest.mark.parametrize(("evidence", "key"), [(None, WEIGHT), ("ignored", WEIGHT), ("unlisted", "o.weight")])
def test_nothing_is_said_of_others(evidence, key):
    assert said(evidence, key) == ""


def test_of_two_the_one_that_is_there():
    found = said("renamed", "norm.gamma", lost=("norm.beta", "norm.gamma"))
    assert found.startswith(
        " The checkpoint has norm.gamma, and this version of transformers gives it another"
    )
    assert said("renamed", "norm.gamma", lost=("norm.beta", "norm.gamma"), without={1}) == ""
