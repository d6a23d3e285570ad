"""Rules on real loads that trigger them, and on loads near these that do not."""

from __future__ import annotations

import shutil
import time

import pytest
import small_llama
from safetensors.torch import load_file, save_file

import hftrace
from hftrace.analysis.findings.registry import findings

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]

DTYPE = "torch_dtype" if transformers.__version__ < "4.56" else "dtype"
SLEEP = 1.3


class SlowAtTheEnd(transformers.LlamaForCausalLM):
    """Its ``eval``, which from_pretrained calls when all weights are there, takes its time."""

    def eval(self):
        time.sleep(SLEEP)
        return super().eval()


class SlowAtTheBeginning(transformers.LlamaForCausalLM):
    """Takes the same time before its first tensor."""

    def __init__(self, config):
        time.sleep(SLEEP)
        super().__init__(config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("small")
    small_llama.write(place, shards="1GB")
    return place


def found(load):
    with hftrace.trace(None) as recorded:
        model = load()  # kept until the end, when its tensors are looked at once more
    assert model is not None
    return {finding.name: finding for finding in findings(recorded.trace)}


def test_a_load_that_goes_on_after_its_last_tensor(folder):
    finding = found(lambda: SlowAtTheEnd.from_pretrained(folder))["silent-tail"]
    assert SLEEP * 1e9 <= finding.numbers["tail_ns"] <= finding.numbers["load_ns"]
    assert (finding.rule, finding.severity) == ("R57", "warning")


def test_a_load_that_is_slow_before_its_first_tensor(folder):
    assert "silent-tail" not in found(lambda: SlowAtTheBeginning.from_pretrained(folder))


def test_the_same_weights_twice(folder, tmp_path):
    finding = found(lambda: [SlowAtTheEnd.from_pretrained(folder) for _ in range(2)])["loaded-twice"]
    assert (finding.rule, finding.severity) == ("R23", "info")
    assert finding.numbers["loads"] == len(finding.where.spans) == 2
    # What it would spare is the second load alone.
    assert SLEEP * 1e9 <= finding.numbers["spent_ns"] < 2 * SLEEP * 1e9
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    assert "loaded-twice" not in found(
        lambda: [SlowAtTheEnd.from_pretrained(place) for place in (folder, tmp_path)]
    )


def many(folder, layers):
    config = small_llama.config(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=layers,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


@pytest.mark.sparse
def test_very_many_tensors(tmp_path):
    many(tmp_path, 1_200)
    said = found(lambda: transformers.LlamaForCausalLM.from_pretrained(tmp_path, **{DTYPE: torch.bfloat16}))
    finding = said.get("many-tiny-tensors")
    if finding is None:
        pytest.skip("this machine reads 10,000 tensors in less than a second")
    # Embedding, norm and head, and nine a layer.
    assert finding.numbers["keys"] == 3 + 9 * 1_200
    assert "cast-in-flight" not in said  # what it cast is two megabytes


def test_a_state_dict_that_replaces_what_was_loaded(folder):
    def load(part):
        model = transformers.LlamaForCausalLM.from_pretrained(folder)
        ours = {name: value.clone() for name, value in model.state_dict().items() if part in name}
        model.load_state_dict(ours, strict=False)
        return model

    finding = found(lambda: load(""))["loaded-then-replaced"]
    assert finding.severity == "info"  # it took no time to speak of
    assert "loaded-then-replaced" not in found(lambda: load("norm"))


@pytest.mark.sparse
def test_a_cast_that_gains_nothing(tmp_path):
    """A dtype of the same size, of 330 MB: how long that takes is the machine's affair."""
    config = small_llama.config(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=8, vocab_size=16_000
    )
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path)
    stored = found(lambda: transformers.LlamaForCausalLM.from_pretrained(tmp_path, **{DTYPE: torch.bfloat16}))
    assert "cast-in-flight" not in stored
    cast = found(lambda: transformers.LlamaForCausalLM.from_pretrained(tmp_path, **{DTYPE: torch.float16}))
    finding = cast.get("cast-in-flight")
    if finding is None:
        pytest.skip("this machine casts 330 MB in less than half a second")
    assert finding.numbers["cast_bytes"] == finding.numbers["stored_bytes"]
    assert (finding.severity, finding.fix.keywords) == ("info", {DTYPE: "auto"})


def test_a_head_whose_norm_has_its_old_names(tmp_path):
    """gamma and beta, which the loader renames before it calls them unexpected: they are left out as well."""
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=32
    )
    transformers.BertForPreTraining(config).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    old = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for key, value in load_file(path).items()
    }
    save_file(old, path, metadata={"format": "pt"})
    for name, severity in (("BertForSequenceClassification", "warning"), ("BertModel", "info")):
        with hftrace.trace(tmp_path / f"{name}.json") as recording:
            getattr(transformers, name).from_pretrained(tmp_path)
        unused = {row.keys[0]: row.evidence for row in recording.trace.tensors if row.kind == "unused"}
        assert set(unused) == {key for key in old if key.startswith("cls.")}
        assert unused["cls.predictions.transform.LayerNorm.gamma"] in ("renamed", None)
        (said,) = (each for each in findings(recording.trace) if each.name == "unused-keys")
        assert said.title == f"{len(unused)} checkpoint keys went nowhere"
        assert said.severity == severity
