"""``--stats``: statistics of a loaded model's tensors, against torch's of the same values."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
import transformers
from truth import model_tensors, randomize

from hftrace.analysis.findings.registry import findings
from hftrace.schema.trace import Trace

pytestmark = [pytest.mark.integration, pytest.mark.once, pytest.mark.process]


CLASS = """
import torch
import transformers


class WithZeros(transformers.LlamaForSequenceClassification):
    def _init_weights(self, module):
        super()._init_weights(module)
        if getattr(module, "out_features", None) == 3:
            with torch.no_grad():
                module.weight.zero_()


class WithNan(WithZeros):
    def _init_weights(self, module):
        super()._init_weights(module)
        if getattr(module, "out_features", None) == 3:
            with torch.no_grad():
                module.weight[0, :2] = float("nan")
                module.weight[1, 0] = float("inf")
"""


def hftrace(folder, *words):
    """Runs the command there, and returns what it prints."""
    command = [sys.executable, "-m", "hftrace", *map(str, words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Returns the rows of a classifier whose new head is all zeros, and the model itself, loaded untraced."""
    made = tmp_path_factory.mktemp("statistics")
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_labels=3,
        pad_token_id=0,
    )
    model = transformers.LlamaForCausalLM(config)
    randomize(model)
    with torch.no_grad():
        model.model.norm.weight[:4] = 0.0
        model.model.norm.weight[5] = torch.nan
    model.to(torch.bfloat16).save_pretrained(made / "m", max_shard_size="30KB")
    (made / "zeros.py").write_text(CLASS)
    wanted = ["--class", "zeros:WithZeros", "--dtype", "float32", "--stats"]
    hftrace(made, "load", made / "m", *wanted, "-q", "-o", made / "x.json")
    untraced = transformers.LlamaForSequenceClassification.from_pretrained(made / "m", dtype=torch.float32)
    with torch.no_grad():
        untraced.score.weight.zero_()
    view = ["show", made / "x.json", "--view", "tensors", "--stats"]
    return (
        json.loads(hftrace(made, *view, "--json")),
        untraced,
        hftrace(made, *view, "--filter", "norm|score"),
    )


@pytest.fixture(scope="module")
def with_nan(shown, tmp_path_factory):
    """Returns the findings of the same model with a head that holds values that are no numbers."""
    made = next(tmp_path_factory.getbasetemp().glob("statistics*"))
    hftrace(made, "load", made / "m", "--class", "zeros:WithNan", "--stats", "-q", "-o", made / "nan.json")
    return findings(Trace.open(made / "nan.json")), findings(Trace.open(made / "x.json"))


def test_each_tensor_of_the_model(shown):
    rows, model, _ = shown
    tensors = {name: tensor for name, (_, tensor, _) in model_tensors(model).items()}
    found = {row["name"]: row for row in rows if row["kind"] != "unused"}
    assert found.keys() == tensors.keys()
    for name, row in found.items():
        # Every value of a bfloat16 is one of float32, so the cast has changed none.
        values = tensors[name].detach().double()
        finite = values[values.isfinite()]
        assert row["mean"] == pytest.approx(finite.mean().item(), rel=1e-6, abs=1e-9), name
        assert row["std"] == pytest.approx(finite.std().item(), rel=1e-6, abs=1e-9), name
        assert row["zeros"] == int((values == 0).sum()), name
        assert (row["nans"], row["infs"]) == (int(values.isnan().sum()), 0), name
        assert row["unmeasured"] is None
        assert row["measured_in"] == ("file" if row["keys"] else "model"), name
    assert found["score.weight"]["zeros"] == 96
    assert found["model.norm.weight"]["nans"] == 1


def test_keys_that_went_nowhere_have_values_too(shown):
    rows, _, _ = shown
    (unused,) = (row for row in rows if row["kind"] == "unused")
    assert unused["keys"] == ["lm_head.weight"]
    assert (unused["measured_in"], unused["unmeasured"]) == ("file", None)
    assert unused["std"] > 0


def test_the_screen_says_what_is_no_number(shown):
    _, _, text = shown
    (norm,) = (line for line in text.splitlines() if line.startswith("model.norm.weight"))
    assert norm.split()[-3:] == ["%", "1", "file"]
    (head,) = (line for line in text.splitlines() if line.startswith("score.weight"))
    assert head.split()[-3:] == ["100", "%", "model"]


def test_a_new_head_of_no_numbers_is_a_finding(with_nan):
    found, healthy = with_nan
    (head,) = [each for each in found if each.name == "not-finite"]
    assert "score.weight (initialized): 2 NaN and 1 infinite of 96 values" in head.evidence
    # One in the file is the file's own.
    assert "norm" not in head.evidence
    assert "not-finite" not in [each.name for each in healthy]


def test_a_new_head_of_one_value_is_a_finding(with_nan):
    found, zeros = with_nan
    (head,) = [each for each in zeros if each.rule == "R46"]
    assert (head.name, head.severity) == ("constant-values", "warning")
    assert "score.weight (initialized): all values are 0" in head.evidence
    # A vector of ones, such as a norm's, is how it should begin.
    assert "norm" not in head.evidence
    assert "constant-values" not in [each.name for each in found]
