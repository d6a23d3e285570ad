"""Programs of which something was said that was not so, each held against the model that it has made."""

from __future__ import annotations

import pytest
import small_llama
import torch
import transformers
from safetensors.torch import load_file, load_model, save_file

import hftrace
from hftrace.analysis.findings.registry import findings

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]

DTYPE = "torch_dtype" if transformers.__version__ < "4.56" else "dtype"


def traced(load):
    """Returns what a function has made, its trace, and the findings by name."""
    with hftrace.trace(None, sample_hz=0) as recorded:
        result = load()
    assert not recorded.trace.header["errors"]
    return result, recorded.trace, {finding.name: finding for finding in findings(recorded.trace)}


def last_rows(trace):
    """Returns the rows of the last load's model by name."""
    load = max(row.load for row in trace.tensors)
    return {row.name: row for row in trace.tensors if row.load == load and row.kind != "unused"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("small")
    small_llama.write(place, shards="1GB")
    return place


# -- whoever loads by the model's own names tries no prefix -----------------------------------------------


def by_state_dict(model, path):
    model.load_state_dict(load_file(path), strict=False)


def by_load_model(model, path):
    load_model(model, path, strict=False)


def by_accelerate(model, path):
    from accelerate import load_checkpoint_in_model

    load_checkpoint_in_model(model, str(path))


@pytest.mark.parametrize("put", [by_state_dict, by_load_model, by_accelerate])
@pytest.mark.parametrize("too_many", [False, True])
def test_a_file_whose_names_differ_by_the_prefix_of_the_base(tmp_path, put, too_many):
    base, whole = transformers.LlamaModel, transformers.LlamaForCausalLM
    saved, made = (whole, base) if too_many else (base, whole)
    path = tmp_path / "model.safetensors"
    save_file(
        {key: torch.randn_like(value) for key, value in saved(small_llama.config()).state_dict().items()},
        path,
    )
    model = made(small_llama.config())
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    _, trace, said = traced(lambda: put(model, path))
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    rows = last_rows(trace)
    assert rows.keys() >= before.keys()
    assert not any(rows[name].keys or rows[name].provenance == "checkpoint" for name in before)
    assert "prefix" in said["one-prefix"].title


# -- what an optimizer wrote, and what was loaded over that ------------------------------------------------


def trained(model, optimizer=None):
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    model(input_ids=torch.tensor([[1, 2]]), labels=torch.tensor([[1, 2]])).loss.backward()
    optimizer.step()
    return optimizer


def holds(model, state):
    return all(torch.equal(state[name], parameter) for name, parameter in model.named_parameters())


def read(trace):
    return {row.provenance for row in last_rows(trace).values() if row.kind == "parameter"}


@pytest.mark.sparse
def test_a_checkpoint_that_is_loaded_after_training(folder, tmp_path):
    small_llama.write(tmp_path, shards="1GB")
    state = {key: value + 1 for key, value in load_file(tmp_path / "model.safetensors").items()}
    save_file(state, tmp_path / "best.safetensors")

    def load(again):
        model = transformers.LlamaForCausalLM.from_pretrained(folder, **{DTYPE: torch.bfloat16})
        optimizer = trained(model)
        optimizer.step()
        optimizer.step()  # the third is none that is looked at
        model.load_state_dict(load_file(tmp_path / "best.safetensors"))
        if again:
            optimizer.step()
        return model

    model, trace, _ = traced(lambda: load(False))
    assert holds(model, state)
    assert read(trace) == {"checkpoint"}
    model, trace, _ = traced(lambda: load(True))
    assert not holds(model, state)
    assert read(trace) == {"computed"}


@pytest.mark.sparse
def test_training_after_a_state_dict_of_no_file(folder):
    state = {key: value + 1 for key, value in load_file(folder / "model.safetensors").items()}

    def load():
        model = transformers.LlamaForCausalLM.from_pretrained(folder, **{DTYPE: torch.bfloat16})
        model.load_state_dict({key: value.clone() for key, value in state.items()})
        trained(model)
        return model

    _, trace, _ = traced(load)
    rows = [row for row in last_rows(trace).values() if row.kind == "parameter"]
    assert {(row.provenance, row.evidence, tuple(row.keys), row.file) for row in rows} == {
        ("computed", "trained", (), None)
    }


# -- a state dict that has the model's own values ----------------------------------------------------------


@pytest.mark.sparse
@pytest.mark.parametrize("of_a_file", [False, True])
def test_values_that_a_model_is_given_back(folder, tmp_path, of_a_file):
    head = torch.randn(128, 64).bfloat16()
    save_file({"lm_head.weight": head}, tmp_path / "head.safetensors")

    def load():
        model = transformers.LlamaForCausalLM.from_pretrained(folder, **{DTYPE: torch.bfloat16})
        state = model.state_dict()
        state.update(load_file(tmp_path / "head.safetensors") if of_a_file else {"lm_head.weight": head})
        model.load_state_dict(state)
        return model

    model, trace, said = traced(load)
    stored = load_file(folder / "model.safetensors") | {"lm_head.weight": head}
    assert holds(model, stored)
    rows = {row.name: row for row in trace.tensors if row.kind == "parameter"}
    assert rows.pop("lm_head.weight").provenance == ("checkpoint" if of_a_file else "state_dict")
    assert {(row.provenance, row.file) for row in rows.values()} == {("checkpoint", "model.safetensors")}
    assert "loaded-then-replaced" not in said


@pytest.mark.sparse
def test_what_was_written_before_stays_unknown(folder, tmp_path):
    save_file({"lm_head.weight": torch.randn(128, 64).bfloat16()}, tmp_path / "head.safetensors")

    def load():
        model = transformers.LlamaForCausalLM.from_pretrained(folder, **{DTYPE: torch.bfloat16})
        with torch.no_grad():
            model.model.norm.weight.add_(1)
        model.load_state_dict(model.state_dict() | load_file(tmp_path / "head.safetensors"))
        return model

    _, trace, _ = traced(load)
    rows = {row.name: row for row in trace.tensors if row.kind == "parameter"}
    assert rows["model.norm.weight"].provenance == "unknown"
    assert rows["model.embed_tokens.weight"].provenance == "checkpoint"


# -- what mends it ------------------------------------------------------------------------------------------


@pytest.mark.sparse
def test_a_dtype_is_no_keyword_of_load_state_dict(folder):
    def load():
        model = transformers.LlamaForCausalLM(small_llama.config())
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model

    _, _, said = traced(load)
    finding = said["dtype-widened"]
    assert finding.fix is None
    assert "model.to(torch.bfloat16)" in finding.advice
    assert f"{DTYPE}=" not in finding.advice


@pytest.mark.sparse
def test_no_keyword_keeps_two_dtypes(folder, tmp_path):
    state = load_file(folder / "model.safetensors")
    mixed = {key: value.half() if "layers.0" in key else value for key, value in state.items()}
    transformers.LlamaForCausalLM(small_llama.config()).save_pretrained(tmp_path)
    save_file(mixed, tmp_path / "model.safetensors", {"format": "pt"})
    model, _, said = traced(
        lambda: transformers.LlamaForCausalLM.from_pretrained(tmp_path, **{DTYPE: torch.float32})
    )
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    finding = said["dtype-widened"]
    assert finding.title == "bfloat16 and float16 in the file, float32 in memory"
    assert finding.fix is None


@pytest.mark.sparse
def test_the_state_of_an_optimizer_is_no_checkpoint(folder, tmp_path):
    def load():
        model = transformers.LlamaForCausalLM.from_pretrained(folder)
        optimizer = trained(model, torch.optim.SGD(model.parameters(), momentum=0.9, lr=0.1))
        torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
        optimizer.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
        return model

    _, _, said = traced(load)
    assert "pickle-checkpoint" not in said


@pytest.mark.parametrize(("name", "other"), [("model.safetensors", True), ("pytorch_model.bin", False)])
def test_weights_by_the_name_of_another_format(folder, tmp_path, name, other):
    transformers.LlamaForCausalLM(small_llama.config()).config.save_pretrained(tmp_path)
    state = load_file(folder / "model.safetensors")
    if other:
        torch.save(state, tmp_path / name)
    else:
        save_file(state, tmp_path / name, {"format": "pt"})
    with pytest.raises(Exception), hftrace.trace(None, sample_hz=0) as recorded:  # noqa: B017, PT011
        transformers.LlamaForCausalLM.from_pretrained(tmp_path)
    (finding,) = [each for each in findings(recorded.trace) if each.name == "damaged-files"]
    assert finding.title == f"{name} is not what its name says"
    assert f"{name} is a {'file of torch.save' if other else 'safetensors file'}" in finding.evidence
    assert "again" not in finding.advice


# -- where weights are, and what they are one with ---------------------------------------------------------


@pytest.mark.sparse
@pytest.mark.parametrize("where", ["disk", "cpu"])
def test_where_accelerate_keeps_what_it_offloads(folder, tmp_path, where):
    import accelerate

    def load():
        model = transformers.LlamaForCausalLM.from_pretrained(folder)
        if where == "disk":
            accelerate.disk_offload(model, str(tmp_path), execution_device="cpu")
        else:
            accelerate.cpu_offload(model, execution_device="cpu")
        return model

    _, trace, _ = traced(load)
    assert (tmp_path / "index.json").exists() == (where == "disk")
    rows = [row for row in last_rows(trace).values() if row.kind == "parameter"]
    assert {(row.device, row.offload) for row in rows} == {("meta", where)}


@pytest.mark.sparse
def test_a_head_that_is_untied_after_its_load(tmp_path):
    small_llama.write(tmp_path, tie_word_embeddings=True)

    def load():
        model = transformers.LlamaForCausalLM.from_pretrained(tmp_path)
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        return model

    model, trace, _ = traced(load)
    assert model.lm_head.weight is not model.model.embed_tokens.weight
    assert last_rows(trace)["lm_head.weight"].tied_to is None


# -- adapters ---------------------------------------------------------------------------------------------


def adapter(folder, place, layers=2, **options):
    """Saves an adapter for a model of so many layers."""
    peft = pytest.importorskip("peft", exc_type=ImportError)
    base = transformers.LlamaForCausalLM(small_llama.config(num_hidden_layers=layers))
    config = peft.LoraConfig(target_modules=["q_proj"], r=2, init_lora_weights=False, **options)
    peft.get_peft_model(base, config).save_pretrained(place)
    return peft


@pytest.mark.sparse
def test_an_adapter_that_is_made_of_others(folder, tmp_path):
    peft = adapter(folder, tmp_path)

    def load():
        model = peft.PeftModel.from_pretrained(
            transformers.LlamaForCausalLM.from_pretrained(folder), tmp_path, adapter_name="one"
        )
        model.add_weighted_adapter(["one"], [0.5], "other", combination_type="linear")
        return model

    model, trace, _ = traced(load)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    assert torch.any(layer.lora_A["other"].weight != 0)
    made = [row for row in trace.tensors if row.name and ".other." in row.name]
    assert len(made) == 4
    assert {row.provenance for row in made} == {"computed"}


@pytest.mark.sparse
def test_an_adapter_for_another_model(folder, tmp_path):
    peft = adapter(folder, tmp_path, layers=3)
    _, _, said = traced(
        lambda: peft.PeftModel.from_pretrained(
            transformers.LlamaForCausalLM.from_pretrained(folder), tmp_path
        )
    )
    assert "base_model_name_or_path" in said["unused-keys"].advice
    adapter(folder, tmp_path / "one", layers=1)
    config = tmp_path / "one" / "adapter_config.json"
    _, _, said = traced(
        lambda: peft.PeftModel.from_pretrained(
            transformers.LlamaForCausalLM.from_pretrained(folder), config.parent
        )
    )
    assert "base_model_name_or_path" in said["missing-weights"].advice
    assert "architectures" not in said["missing-weights"].advice


@pytest.mark.sparse
def test_an_adapter_of_another_shape_is_told_after_others_changed_the_model(folder, tmp_path):
    peft = pytest.importorskip("peft", exc_type=ImportError)
    wide = transformers.LlamaForCausalLM(small_llama.config(hidden_size=96))
    config = peft.LoraConfig(target_modules=["q_proj"], r=2, modules_to_save=["lm_head"])
    peft.get_peft_model(wide, config).save_pretrained(tmp_path)
    with hftrace.trace(None, sample_hz=0) as recorded:
        base = transformers.LlamaForCausalLM.from_pretrained(folder)
        with pytest.raises(RuntimeError, match="size mismatch"):
            peft.PeftModel.from_pretrained(base, tmp_path)
    (finding,) = [each for each in findings(recorded.trace) if each.name == "mismatched-shapes"]
    assert "base_model_name_or_path" in finding.advice


@pytest.mark.sparse
def test_a_module_that_an_adapter_stands_for(tmp_path):
    peft = pytest.importorskip("peft", exc_type=ImportError)
    config = transformers.BertConfig(
        vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "base")
    base = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "base")
    wrapped = peft.get_peft_model(base, peft.LoraConfig(target_modules=["query"], task_type="SEQ_CLS"))
    wrapped.save_pretrained(tmp_path / "adapter")
    model, _, said = traced(
        lambda: peft.AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "adapter")
    )
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    head = model.base_model.model.classifier.modules_to_save["default"].weight
    assert torch.equal(head, saved["base_model.model.classifier.weight"])
    assert "missing-weights" not in said


# -- keys that a program leaves out -------------------------------------------------------------------------


@pytest.mark.sparse
def test_a_key_that_is_not_handed_over_was_not_refused(folder):
    def load():
        model = transformers.LlamaForCausalLM(small_llama.config())
        state = load_file(folder / "model.safetensors")
        del state["lm_head.weight"]
        state["of.nothing"] = state.pop("model.norm.weight")
        return model, model.load_state_dict(state, strict=False)

    (_, keys), trace, said = traced(load)
    assert keys.unexpected_keys == ["of.nothing"]
    assert [row.keys for row in trace.tensors if row.kind == "unused"] == [["model.norm.weight"]]
    assert said["unused-keys"].numbers["keys"] == 1
