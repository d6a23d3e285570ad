"""Folders of adapters: which model they are for, and what is said where it is not there."""

from __future__ import annotations

import importlib.util
import json
import types

import pytest

from hftrace.record.child.adapters import AdapterError, adapter_config, base_of, class_for


@pytest.fixture
def peft(monkeypatch):
    """Says whether peft is installed."""

    def installed(there):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if there else None)

    installed(True)
    return installed


def test_a_folder_of_an_adapter_and_one_of_a_model(tmp_path):
    assert adapter_config(str(tmp_path)) is None
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    assert adapter_config(str(tmp_path)) == {"peft_type": "LORA"}
    # A model with an adapter inside is loaded as the model that it is.
    (tmp_path / "config.json").write_text("{}")
    assert adapter_config(str(tmp_path)) is None


def test_a_damaged_config_is_left_to_the_load(tmp_path):
    (tmp_path / "adapter_config.json").write_text("[")
    assert adapter_config(str(tmp_path)) is None


@pytest.mark.parametrize("base", ["org/name", "gpt2"])
def test_a_base_on_the_hub_is_not_looked_for(peft, base):
    assert base_of("a", {"base_model_name_or_path": base}) == base


def test_a_base_that_is_there(peft, tmp_path):
    assert base_of("a", {"base_model_name_or_path": str(tmp_path)}) == str(tmp_path)


@pytest.mark.parametrize(
    ("config", "there", "words"),
    [
        (
            {"peft_type": "LORA", "base_model_name_or_path": "/gone/base"},
            True,
            "for /gone/base, which is not",
        ),
        ({"base_model_name_or_path": None}, True, "does not say for which model"),
        ({"base_model_name_or_path": "gpt2"}, False, "install peft"),
    ],
)
def test_what_is_missing_is_said(peft, config, there, words):
    peft(there)
    with pytest.raises(AdapterError, match=words):
        base_of("a", config)


def test_an_adapter_that_brings_its_head_along():
    transformers = types.SimpleNamespace(AutoModelForSequenceClassification=object)
    assert class_for({"task_type": "SEQ_CLS"}, transformers) == "AutoModelForSequenceClassification"
    assert class_for({"task_type": "CAUSAL_LM"}, transformers) is None
    assert class_for({}, transformers) is None
