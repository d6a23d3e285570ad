"""Weight files that a load left alone."""

import pytest

from handmade import Builder
from hftrace.analysis.findings.registry import findings

SHARDS = [[f"model-0000{number}-of-00003.safetensors", 1000] for number in (1, 2, 3)]


def found(loaded, beside, **noted):
    made = Builder()
    request = {"model": "folder", "keywords": {}}
    attributes = {"weight_files": loaded, "beside": beside, "request": request, **noted}
    made.span(None, "load", "A", 0, 1, attributes=attributes)
    return [finding for finding in findings(made.trace()) if finding.rule == "R36"]


def test_an_old_file_beside_new_shards():
    (said,) = found(["model.safetensors"], [*SHARDS, ["optimizer.bin", 5]])
    assert said.title.startswith("3 weight files beside")
    assert "3.00 kB" in said.evidence
    assert (said.concerns, said.view) == ("weights", "files")


def test_shards_of_two_saves():
    (said,) = found([name for name, _ in SHARDS], [["model-00001-of-00002.safetensors", 7]])
    assert "model-00001-of-00002.safetensors" in said.evidence
    assert "and 2 more" in said.evidence


@pytest.mark.parametrize(
    "beside",
    [
        [["pytorch_model.bin", 9], ["tf_model.h5", 9]],  # the same weights in other formats
        [["model.fp16.safetensors", 9]],  # a variant
        [["consolidated.safetensors", 9], ["adapter_model.safetensors", 9]],
        [["training_args.bin", 9], ["optimizer.pt", 9]],
        [],
        None,
        [3, ["x"], [None, 4]],
    ],
)
def test_what_belongs_there(beside):
    assert found(["model.safetensors"], beside) == []


def test_a_shard_of_the_same_save_is_no_other_save():
    (said,) = found([name for name, _ in SHARDS[:2]], SHARDS[2:])
    assert said.title == "1 shard of the same save left out"
    assert "delete" not in said.advice


@pytest.mark.parametrize("what", ["file", "state_dict"])
def test_a_program_that_reads_one_file_after_the_other(what):
    assert found([SHARDS[0][0]], SHARDS[1:], what=what) == []
