"""Loads in words: titles, and where they are from."""

import pytest

from handmade_loads import Session, adapted, service
from hftrace.analysis.time.loads import pick_load
from hftrace.render.loads import describe_earlier, short_source, source_of, title_of
from hftrace.render.text import width_of


def test_models_stand_first_in_a_title():
    assert title_of(service(), 80).startswith("BertModel, LlamaForCausalLM")
    assert title_of(service(), 80).endswith("tokenizer, config")
    # Two models are from two places: the lines below say which.
    assert source_of(service()) == ""


@pytest.mark.parametrize("room", range(12, 80))
def test_a_title_counts_what_does_not_fit(room):
    title = title_of(service(), room)
    assert width_of(title) <= room
    if room >= 22:
        assert title.startswith("BertModel")
        assert title.endswith(("config", "more"))


def test_one_load_goes_by_its_class():
    made = Session()
    made.load("AutoTokenizer", "org/a", "BertTokenizerFast", "tokenizer")
    assert title_of(made.trace(), 40) == "BertTokenizerFast"


def test_a_title_names_the_adapter_and_the_model_below_it():
    assert title_of(adapted(), 60) == "LlamaForCausalLM, adapter checkpoints/lora"
    assert source_of(adapted()) == "checkpoints/llama"


def test_so_it_does_where_one_call_loads_both():
    made = Session()
    root = made.load("AutoModelForCausalLM", "runs/lora", "LlamaForCausalLM", got={})
    attributes = {"model": "org/base", "returned": "LlamaForCausalLM"}
    inner = made.span(root, "load", "LlamaForCausalLM", 15, 90, attributes=attributes)
    made.span(inner, "adapter", "LlamaForCausalLM", 80, 90, attributes={"model": "runs/lora"})
    assert title_of(made.trace(), 60) == "LlamaForCausalLM + adapter runs/lora"
    assert source_of(made.trace()) == "org/base"


@pytest.mark.parametrize(
    ("source", "short"),
    [
        ("./m", "./m"),
        ("meta-llama/Llama-2-7b-hf", "…Llama-2-7b-hf"),
        ("/a/long/path/to/llama/", "…/llama"),
        ("/srv/a-very-long-name-of-a-folder", None),
    ],
)
def test_where_it_is_from_in_few_cells(source, short):
    found = short_source(source)
    assert width_of(found) <= 16
    assert short is None or found.replace("/", "") == short.replace("/", "")


def test_what_was_there_before_a_load():
    text = describe_earlier(pick_load(service(), 5))
    assert text == (
        "still there: load 3 BertModel (2.00 MB), load 4 LlamaForCausalLM (12.5 MB); "
        "+30.0 MB anonymous since the session began"
    )
    assert describe_earlier(service()) == ""


def test_device_memory_is_said_where_there_was_some():
    made = Session()
    made.load("AutoModel", "a", "A")
    made.load("AutoModel", "b", "B", attributes={"device_allocated_start_bytes": {"cuda:0": 7_000_000}})
    assert describe_earlier(pick_load(made.trace(), 2)) == "7.00 MB on cuda:0"


def test_what_failed_stands_last_in_a_title():
    made = Session()
    made.load("AutoModel", "a", "A", status="error")
    made.load("AutoModel", "b", "B")
    made.load("AutoTokenizer", "b", "BTokenizer", "tokenizer")
    assert title_of(made.trace(), 40) == "B, tokenizer, ✗ A"
    assert source_of(made.trace()) == "b"
