"""What is advised about parameters that the checkpoint does not have."""

import pytest

from handmade import Builder
from hftrace.analysis.findings.registry import findings


def advice(**keywords):
    """Returns the advice about a missing head of a load with these keywords, each with where it went."""
    asked = {name: value for name, (value, _) in keywords.items()}
    uses = {name: use for name, (_, use) in keywords.items()}
    request = {"class": "A", "model": "m", "keywords": asked, "uses": uses}
    made = Builder()
    load = made.span(None, "load", "A", 0, 1, attributes={"request": request})
    made.tensor("embed", [2], load=load)
    made.tensor("lm_head.weight", [2, 2], keys=[], provenance="initialized", stored_dtype=None, load=load)
    (found,) = (each for each in findings(made.trace()) if each.name == "missing-weights")
    return found.advice


def test_a_keyword_that_changes_the_config_may_be_why():
    assert "for tie_word_embeddings=False that the model has them, leave that out" in advice(
        tie_word_embeddings=(False, "config")
    )


@pytest.mark.parametrize(
    ("name", "value", "use"),
    [
        ("num_labels", 3, "config"),  # a head is missing with any number
        ("output_attentions", True, "config"),
        ("attn_implementation", "eager", "config"),
        ("low_cpu_mem_usage", True, "loader"),
        ("add_pooling_layer", True, "unknown"),
    ],
)
def test_others_are_not(name, value, use):
    assert advice(**{name: (value, use)}).endswith("architectures in its config.json.")
