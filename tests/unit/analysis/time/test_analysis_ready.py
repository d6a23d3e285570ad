"""What follows a load: when the model is ready, and what a release leaves behind."""

import dataclasses
import json

import pytest

import handmade
from hftrace.analysis.compare.variants import Variant
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.summary import summary
from hftrace.render.views.summary import labelled_facts
from hftrace.schema.model import Span, Table

MS = handmade.MS
MB = handmade.MB


def after(*steps):
    """The lazy load of 140 ms, and after it ``(phase, milliseconds, more)``, 10 ms apart."""
    trace = handmade.lazy()
    rows = list(trace.spans)
    clock = rows[0].end_ns
    for number, (phase, milliseconds, more) in enumerate(steps):
        start = clock + 10 * MS
        clock = start + milliseconds * MS
        fields = {"status": "ok", "attributes": {}, **more}
        rows.append(
            Span(
                id=1000 + number,
                parent=None,
                phase=phase,
                name=phase,
                function=None,
                source=None,
                start_ns=start,
                end_ns=clock,
                pid=handmade.PID,
                thread=handmade.MAIN,
                rank=0,
                **fields,
            )
        )
    return dataclasses.replace(trace, spans=Table.of(Span, rows))


def facts(trace):
    return dict(labelled_facts(trace))


def test_ready_is_the_load_and_what_came_after_it():
    trace = after(("touch", 1420, {"storage_read_bytes": 2200 * MB}), ("forward", 750, {}))
    made = json.loads(json.dumps(summary(trace)))
    assert made["returned_ns"] == 140 * MS
    assert made["ready_ns"] == (140 + 1420 + 750) * MS
    assert [(step["phase"], step["storage_read_bytes"]) for step in made["after_load"]] == [
        ("touch", 2200 * MB),
        ("forward", None),
    ]
    assert facts(trace)["ready"] == "2.31 s: returned after 140 ms, touch 1.42 s, forward 750 ms"
    assert facts(trace)["read"].endswith("not touched by the load, cold cache")
    # What came after is no part of the load, and its time has a name.
    assert made["loads_wall_ns"] == 140 * MS
    assert made["wall_ns"] == (140 + 1420 + 750) * MS == sum(made["phases"].values())
    assert made["attributed"] == summary(handmade.lazy())["attributed"]
    (finding,) = [found for found in findings(trace) if found.rule == "R17"]
    assert finding.advice.startswith("Count that in, as was done here: touch took 1.42 s and forward took")


def test_without_touch_and_forward_nothing_is_said_of_it():
    for name, make in handmade.ALL.items():
        made = summary(make())
        assert made["ready_ns"] is None, name
        assert made["after_load"] == [], name
        assert made["release"] is None, name
        assert not {"ready", "release"} & set(facts(make())), name
    assert summary(handmade.empty())["returned_ns"] is None


def test_a_step_that_failed_leaves_the_time_unknown():
    trace = after(("touch", 20, {}), ("forward", 3, {"status": "error", "attributes": {"error": "no"}}))
    made = summary(trace)
    assert made["ready_ns"] is None
    assert made["outcome"]["status"] == "ok"
    assert made["after_load"][1]["error"] == "no"
    assert facts(trace)["ready"] == (
        "not known: returned after 140 ms, touch 20 ms, forward failed after 3.0 ms"
    )


@pytest.mark.parametrize(
    ("attributes", "line"),
    [
        ({"kept_anon_bytes": 12 * MB, "kept_file_bytes": 0}, "80 ms: not given back 12.0 MB anonymous"),
        (
            {"kept_anon_bytes": MB, "kept_file_bytes": 2 * MB, "kept_device_bytes": {"cuda:0": 3 * MB}},
            "80 ms: not given back 1.00 MB anonymous, 2.00 MB file-backed, 3.00 MB cuda:0",
        ),
        ({"kept_anon_bytes": 0, "kept_file_bytes": 0, "freed": True}, "80 ms: all given back"),
        (
            {"kept_anon_bytes": MB, "kept_file_bytes": 0, "freed": False},
            "80 ms: not given back 1.00 MB anonymous; something still refers to the model",
        ),
        ({"kept_anon_bytes": None, "kept_file_bytes": None}, "80 ms: memory not known"),
        ({"kept_anon_bytes": "hostile", "kept_device_bytes": [1]}, "80 ms: memory not known"),
    ],
)
def test_release_says_what_was_not_given_back(attributes, line):
    trace = after(("release", 80, {"attributes": attributes}))
    assert facts(trace)["release"] == line
    assert summary(trace)["ready_ns"] is None
    assert summary(trace)["release"]["duration_ns"] == 80 * MS
    assert facts(trace)["took"].startswith("220 ms")


def test_returned_is_the_time_of_all_loads_wherever_it_is_said():
    trace = after(("load", 500, {}), ("touch", 100, {}))
    assert summary(trace)["returned_ns"] == 640 * MS == Variant("one", [trace]).median("returned_ns")
    assert summary(trace)["ready_ns"] == 740 * MS == Variant("one", [trace]).median("ready_ns")
    assert "returned after 640 ms" in dict(labelled_facts(trace))["ready"]
