"""A session cut into its loads: who each was of, and what is its own."""

import dataclasses

import pytest

import handmade
from handmade_loads import Session, adapted, service
from hftrace.analysis.time.load_names import describe_load, load_groups, load_names
from hftrace.analysis.time.loads import (
    ending_load_trace,
    load_traces,
    main_load_trace,
    only_model_trace,
    pick_load,
    taken_over,
    trace_of_row,
)
from hftrace.analysis.time.phases import recorded_wall_ns
from hftrace.analysis.time.spans import span_index
from hftrace.errors import UsageError
from hftrace.schema.model import Facts


def test_who_they_were_of():
    names = load_names(service())
    assert [(name.number, name.what, name.class_name) for name in names] == [
        (1, "tokenizer", "BertTokenizerFast"),
        (2, "config", "LlamaConfig"),
        (3, "model", "BertModel"),
        (4, "model", "LlamaForCausalLM"),
        (5, "model", "LlamaForCausalLM"),
    ]
    assert describe_load(names[4]) == "LlamaForCausalLM of checkpoints/llama"


def test_each_has_its_own_rows_request_and_time():
    trace = service()
    parts = load_traces(trace)
    assert [len(part.tensors) for part in parts] == [0, 0, 1, 19, 19]
    assert sum(len(part.spans) for part in parts) == len(trace.spans)
    assert [dict(part.request["keywords"]) for part in parts] == [{}, {}, {}, {}, {"dtype": "float32"}]
    assert [part.request["class"] for part in parts][:2] == ["AutoTokenizer", "AutoConfig"]
    assert [recorded_wall_ns(part) // handmade.MS for part in parts] == [20, 5, 100, 100, 100]
    assert [part.header["wall_ns"] // handmade.MS for part in parts] == [20, 5, 100, 100, 100]
    assert [file.asked_by for part in parts for file in part.files] == [
        name.span for name in load_names(trace)[2:]
    ]
    # Spans keep their ids, by which the tables of the whole are joined.
    assert pick_load(trace, 4).loads[0].span == load_names(trace)[3].span


def test_one_load_is_the_whole_trace():
    trace = handmade.sharded()
    assert load_traces(trace) == [trace]
    assert main_load_trace(trace) is only_model_trace(trace) is ending_load_trace(trace) is trace
    # Asked for by its number, it is that without the imports before it.
    assert recorded_wall_ns(pick_load(trace, 1)) == 4000 * handmade.MS


@pytest.mark.parametrize(
    ("made", "number", "there"),
    [(service, 6, "loads 1 to 5"), (handmade.sharded, 2, "only load 1"), (handmade.empty, 1, "no load")],
)
def test_a_load_that_is_not_there_is_one_sentence(made, number, there):
    with pytest.raises(UsageError, match=f"there is no load {number} in a.json, which has {there}") as raised:
        pick_load(made(), number, "a.json")
    assert "\n" not in str(raised.value)


def test_a_tensor_that_says_no_load_goes_by_its_span_or_its_time():
    trace = service()
    rows = len(trace.tensors)
    columns = {**trace.tensors.columns, "load": [None] * rows}
    tensors = type(trace.tensors)(trace.tensors.row_type, columns)
    by_span = dataclasses.replace(trace, tensors=tensors)
    assert [len(part.tensors) for part in load_traces(by_span)] == [0, 0, 1, 19, 19]
    columns["span"] = [None] * rows
    by_time = dataclasses.replace(trace, tensors=type(tensors)(tensors.row_type, columns))
    # The encoder's has no time either: two other models might have it.
    assert [len(part.tensors) for part in load_traces(by_time)] == [0, 0, 0, 19, 19]


def test_ranks_that_load_the_same_are_one_load():
    made = Session()
    for rank in (0, 1):
        for start, name in ((0, "AutoConfig"), (100, "AutoModel")):
            root = made.span(None, "load", name, start + rank, start + 50 + rank, rank=rank, pid=10 + rank)
            made.tensor(f"{name}.{rank}", [2], load=root, rank=rank)
    trace = made.trace()
    assert [[trace.spans[row].rank for row in rows] for rows in load_groups(trace)] == [[0, 1], [0, 1]]
    _, second = load_traces(trace)
    assert [row.name for row in second.tensors] == ["AutoModel.0", "AutoModel.1"]
    row = span_index(trace).load_rows[-1]
    assert [tensor.name for tensor in trace_of_row(trace, row).tensors] == ["AutoModel.1"]


def test_ranks_that_load_other_things_have_loads_of_their_own():
    made = Session()
    made.span(None, "load", "AutoModel", 0, 50, rank=0)
    made.span(None, "load", "AutoConfig", 10, 20, rank=1, pid=11)
    assert len(load_groups(made.trace())) == 2


def test_a_failed_load_ends_as_it_did_and_the_others_well():
    made = Session()
    made.load("AutoModel", "a", "A", status="error", attributes={"error": "OSError: a: no such file"})
    made.load("AutoModel", "b", "B")
    trace = made.trace()
    failed, fine = load_traces(trace)
    assert dict(failed.outcome) == {
        "status": "error",
        "error": {"type": "OSError", "message": "a: no such file"},
    }
    assert dict(fine.outcome) == {"status": "ok"}
    ended = dataclasses.replace(trace, outcome=Facts({"status": "error", "limit_kind": "cgroup"}))
    assert ending_load_trace(ended).outcome["limit_kind"] == "cgroup"
    assert ending_load_trace(ended).request["model"] == "a"


def test_tensors_that_an_adapter_took_over_were_read_before():
    trace = adapted()
    base, adapter = load_traces(trace)
    assert (len(base.tensors), len(adapter.tensors)) == (0, 21)
    assert taken_over(trace) == {0: {2: 19}}
    assert only_model_trace(trace) is None
    assert load_names(trace)[1].adapters == ("checkpoints/lora",)


def test_a_file_is_known_by_the_function_that_read_it():
    made = Session()
    asked = {"class": "torch.load", "model": "weights.bin", "what": "file"}
    made.load("torch.load", "weights.bin", "OrderedDict", attributes={"request": asked})
    made.load("AutoModel", "b", "B")
    assert [describe_load(name) for name in load_names(made.trace())] == [
        "torch.load of weights.bin",
        "B of b",
    ]


def test_what_is_made_of_several_is_known_by_its_own_place():
    made = Session()
    for attributes in ({"container": True}, {}):
        load = made.load("DiffusionPipeline", "sd", "StableDiffusionPipeline", attributes=attributes)
        begin = made.clock - 140
        inner = {"model": "sd/unet"}
        made.span(load, "load", "UNet2DConditionModel", begin, begin + 1, attributes=inner)
    assert [name.base for name in load_names(made.trace())] == ["sd", "sd/unet"]


def test_steps_go_with_the_load_before_them():
    made = Session()
    made.load("AutoModel", "a", "A", takes=100)
    made.span(None, "forward", "forward", 115, 125)
    made.load("AutoModel", "b", "B")
    first, second = load_traces(made.trace())
    assert [span.phase for span in first.spans if span.parent is None] == ["load", "forward"]
    assert [span.phase for span in second.spans if span.parent is None] == ["load"]
