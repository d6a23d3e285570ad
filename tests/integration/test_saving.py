"""Saving is told with what it wrote, held against the folder itself."""

from __future__ import annotations

import pytest
import small_llama

import hftrace

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("saving") / "model"
    small_llama.write(path)
    return path


def saved(trace):
    return [span for span in trace.spans if span.phase == "save"]


def sizes(folder):
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def test_a_model_is_saved_in_one_span_with_its_configs(tmp_path, model):
    target = tmp_path / "saved"
    with hftrace.trace(sample_hz=0) as recorded:
        loaded = transformers.AutoModelForCausalLM.from_pretrained(model)
        loaded.save_pretrained(target, max_shard_size="60KB")
        files = sizes(target)
        loaded.config.save_pretrained(target / "config alone")
    whole, config = saved(recorded.trace)
    assert (whole.name, whole.status, whole.parent) == ("LlamaForCausalLM.save_pretrained", "ok", None)
    assert whole.attributes["folder"] == str(target)
    assert (whole.attributes["files"], whole.attributes["bytes"]) == (len(files), sum(files.values()))
    assert len(files) > 4  # shards, their index, two configs
    assert whole.attributes["caller"].startswith(__file__)
    assert (config.name, config.attributes["files"]) == ("LlamaConfig.save_pretrained", 1)
    assert config.attributes["bytes"] == sum(sizes(target / "config alone").values())
    assert len(recorded.trace.loads) == 1


def test_what_was_there_before_was_not_written(tmp_path, model):
    (tmp_path / "README.md").write_text("mine")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words(), clean_up_tokenization_spaces=True
    )
    with hftrace.trace(sample_hz=0) as recorded:
        tokenizer.save_pretrained(tmp_path)
    (span,) = saved(recorded.trace)
    own = {name: size for name, size in sizes(tmp_path).items() if name != "README.md"}
    assert (span.attributes["files"], span.attributes["bytes"]) == (len(own), sum(own.values()))


def words():
    from tokenizers import Tokenizer, models

    return Tokenizer(models.WordLevel({"[UNK]": 0, "hello": 1}, unk_token="[UNK]"))


def test_a_save_that_fails_says_so(tmp_path, model):
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model)
    (tmp_path / "file").write_text("no folder")
    with hftrace.trace(sample_hz=0) as recorded, pytest.raises(OSError, match="file"):
        loaded.save_pretrained(tmp_path / "file" / "below")
    (span,) = saved(recorded.trace)
    assert span.status == "error"
    assert "files" not in span.attributes


def test_what_is_pushed_is_saved_inside_of_it(model, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model)
    # Models, configs and tokenizers have a copy each of what the others inherit.
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words(), clean_up_tokenization_spaces=True
    )
    for pushed in (loaded, loaded.config, loaded.generation_config, tokenizer):
        with hftrace.trace(sample_hz=0) as recorded, pytest.raises(Exception, match=r"(?i)offline"):
            pushed.push_to_hub("somebody/something")
        first, *inside = saved(recorded.trace)
        assert first.name == f"{type(pushed).__name__}.push_to_hub"
        assert (first.status, first.attributes["repo"]) == ("error", "somebody/something")
        assert all(span.parent == first.id and not span.name.endswith("push_to_hub") for span in inside)
