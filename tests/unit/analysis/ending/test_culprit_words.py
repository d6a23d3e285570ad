"""What is said of a culprit, in one sentence."""

from __future__ import annotations

import pytest

from hftrace.analysis.ending.words import not_there_sentence


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("/models/llama", "check the path"),
        ("/models/llama/model.safetensors", "name the folder that holds the weight file, and not the file"),
        ("./pytorch_model.bin", "name the folder that holds the weight file, and not the file"),
    ],
)
def test_a_folder_that_is_not_there(name, advice):
    sentence = not_there_sentence({"what": "folder", "name": name, "where": None})
    assert sentence == f"there is no folder {name}: {advice}"
