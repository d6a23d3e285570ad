"""Speedscope's format: valid by its own schema, every time and every sum of bytes the trace's."""

import io
import json
from pathlib import Path

import jsonschema
import pytest

import handmade
import handmade_memory
import handmade_timelines
from hftrace.export import Wish, exporter
from hftrace.export.lanes import read_tracks, span_tracks

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "data/speedscope/file-format-schema.json").read_text(encoding="utf-8")
)
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)
NAMED = handmade_timelines.traces()


def written(*traces, **wish):
    stream = io.BytesIO()
    exporter("speedscope").write(traces, stream, Wish(**wish))
    return json.loads(stream.getvalue())


def slices_of(profile):
    """The frames of a profile of time with their times: it opens and closes in order, and exactly."""
    found, still_open, before = [], [], profile["startValue"]
    for event in profile["events"]:
        assert before <= event["at"] <= profile["endValue"]
        before = event["at"]
        if event["type"] == "O":
            still_open.append((event["frame"], event["at"]))
        else:
            frame, start = still_open.pop()
            assert frame == event["frame"]
            found.append((start, event["at"]))
    assert still_open == []
    return found


@pytest.fixture(params=NAMED)
def one(request):
    return NAMED[request.param], written(NAMED[request.param])


def test_it_is_valid_by_its_own_schema(one):
    _, file = one
    assert [error.message for error in VALIDATOR.iter_errors(file)] == []


def test_the_schema_would_tell():
    file = written(handmade.sharded())
    file["profiles"][0]["unit"] = "moons"
    assert not VALIDATOR.is_valid(file)


def test_each_span_and_each_read_is_in_a_profile_of_time(one):
    trace, file = one
    times = [profile for profile in file["profiles"] if profile["type"] == "evented"]
    found = [each for profile in times if "imports by" not in profile["name"] for each in slices_of(profile)]
    expected = [
        (each.start_ns, each.end_ns)
        for tracks in span_tracks(trace)
        for track in (tracks.own, *tracks.crossing)
        for each in track
    ]
    expected += [
        (start, end)
        for reads in read_tracks(trace)
        for track in (reads.own, *reads.crossing)
        for start, end, _ in track
    ]
    assert sorted(found) == sorted(expected)
    assert len(expected) == len(trace.spans) + sum(
        each.read_start_ns is not None and each.read_end_ns is not None for each in trace.tensors
    )


def test_bytes_are_those_of_the_ledger(one):
    trace, file = one
    sizes = {profile["name"]: profile for profile in file["profiles"] if profile["type"] == "sampled"}
    for profile in sizes.values():
        assert sum(profile["weights"]) == profile["endValue"]
        assert len(profile["weights"]) == len(profile["samples"])
        assert all(
            0 <= frame < len(file["shared"]["frames"]) for each in profile["samples"] for frame in each
        )

    def total(word):
        return sum(profile["endValue"] for name, profile in sizes.items() if name.endswith(word))

    assert total("in the files") == sum(each.stored_bytes or 0 for each in trace.tensors)
    assert total("in the model") == sum(
        each.bytes or 0
        for each in trace.tensors
        if each.kind != "unused" and each.tied_to is None and each.same_as is None
    )


def test_bytes_lie_in_files_modules_and_tensors():
    made = handmade.Builder()
    made.tensor("model.layers.0.mlp.up.weight", [10], file="a")
    made.tensor("model.layers.1.mlp.up.weight", [20], file="a")
    made.tensor("head", [5], file="b", tied_to="model.layers.0.mlp.up.weight")
    made.tensor("model.layers.2.w", [8], files={"a": 10, "b": 6})
    file = written(made.trace())
    names = [frame["name"] for frame in file["shared"]["frames"]]
    stored, held = (profile for profile in file["profiles"] if profile["type"] == "sampled")
    stacks = [" ".join(names[frame] for frame in stack) for stack in stored["samples"]]
    assert dict(zip(stacks, stored["weights"], strict=True)) == {
        "a model layers[0] mlp up weight": 20,
        "a model layers[1] mlp up weight": 40,
        "b head": 10,
        "a model layers[2] w": 10,
        "b model layers[2] w": 6,
    }
    assert [names[stack[0]] for stack in held["samples"]] == ["cpu"] * 3
    assert held["endValue"] == 2 * (10 + 20 + 8)


def test_several_loads_are_told_apart():
    file = written(NAMED["service"])
    names = [frame["name"] for frame in file["shared"]["frames"]]
    outer = {
        names[stack[0]]
        for profile in file["profiles"]
        if profile["type"] == "sampled"
        for stack in profile["samples"]
    }
    assert outer
    assert all(name.startswith("load ") for name in outer)


def test_ranks_have_profiles_of_their_own():
    file = written(handmade_memory.two_ranks())
    assert [profile["name"] for profile in file["profiles"]] == [
        "rank 0, main thread (200)",
        "rank 1, thread 201",
    ]


def test_functions_have_their_source():
    file = written(handmade.sharded())
    frames = [frame for frame in file["shared"]["frames"] if "line" in frame]
    expected = {span.source for span in handmade.sharded().spans if span.source}
    assert {f"{frame['file']}:{frame['line']}" for frame in frames} == expected


def test_several_traces_are_named_by_their_paths():
    file = written(handmade.sharded(), handmade.killed(), paths=("a.json", "b.json"))
    assert VALIDATOR.is_valid(file)
    assert {profile["name"].partition(": ")[0] for profile in file["profiles"]} == {"a.json", "b.json"}
