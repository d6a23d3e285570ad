"""Adapters, what was done to them, and a model's own code, in words; and nothing in a file is trusted."""

from __future__ import annotations

import pytest

from handmade import Builder
from hftrace.analysis.findings.registry import findings
from hftrace.render.adapters import change_lines, describe_adapters
from hftrace.render.own_code import describe_code
from hftrace.render.text import TIMES
from hftrace.render.views.options import ViewOptions
from hftrace.render.views.tree import draw

COMMIT = "d0d8f75b9fa9980cfddf7e6ca5c170cc71bfeac8"
ADAPTER = {
    "name": "default",
    "type": "LORA",
    "modules": 6,
    "targets": {"q_proj": 3, "v_proj": 3},
    "whole": ["lm_head"],
    "layers": [2, 3, 5],
    "parameters": 1536,
    "bytes": 6144,
    "trainable": 1536,
    "settings": {"r": 4, "use_dora": False, "init_lora_weights": "gaussian"},
    "base": "org/base",
    "base_revision": None,
}


def loaded(*, got=None, **attributes):
    made = Builder()
    request = {"class": "AutoModel", "model": "org/model", "keywords": {"trust_remote_code": True}}
    noted = {"request": request, "got": {"class": "ToyModel", **(got or {})}, **attributes}
    made.span(None, "load", "AutoModel", 0, 1000, attributes=noted)
    return made.trace()


def test_an_adapter_of_a_load_and_a_fresh_one():
    trace = loaded(got={"adapters": [ADAPTER], "trainable": {"parameters": 1536, "all": 76_800}})
    assert describe_adapters(trace) == (
        f"LORA default: 6 modules (q_proj {TIMES} 3, v_proj {TIMES} 3), lm_head as a whole, layers 2, 3, 5, "
        "1,536 parameters, 6.14 kB, r=4, for org/base, no revision named; "
        "1,536 of 76,800 parameters trainable (2 %)"
    )
    fresh, trainable = change_lines({"adapters": [ADAPTER], "trainable": {"parameters": 0, "all": 10}})
    assert fresh.endswith("6.14 kB, r=4, init_lora_weights=gaussian")
    assert trainable == "0 of 10 parameters trainable"
    assert describe_adapters(loaded()) == ""


def test_what_was_done():
    done = {"adapters": ["a"], "modules": 4, "tensors": 4, "bytes": 4096}
    assert list(change_lines({"merged": done})) == ["adapter a merged into 4 weights, 4.10 kB"]
    assert list(change_lines({"merged": {**done, "adapters": [], "tensors": 0, "bytes": 0}})) == [
        "no adapter merged into 0 weights, 0 B"
    ]
    assert list(change_lines({"unloaded": done})) == ["adapter a taken out of 4 modules, merged into none"]
    cast = {"from": "bfloat16", "to": "float32", "tensors": 3, "bytes_before": 100, "bytes": 200}
    names = ["model.norm.weight", "model.layers.0.0.norm.weight", "model.head.weight"]
    assert list(change_lines({"casts": [{**cast, "names": names}], "frozen": 3})) == [
        f"3 tensors bfloat16 → float32, 100 B → 200 B: norm {TIMES} 2, head"
    ]
    assert list(change_lines({"casts": []})) == ["nothing cast"]


def test_code_and_where_it_is_from():
    file = {"file": "modeling_toy.py", "path": "/c/m.py", "sha256": "ab" * 32, "classes": ["ToyModel"]}
    code = [{**file, "repo": "org/model", "commit": COMMIT, "revision": "main"}]
    assert describe_code(loaded(code=code)) == (
        "org/model at commit d0d8f75b9fa9, asked for as main: modeling_toy.py (ToyModel, sha256 abababababab)"
    )
    (said,) = [finding for finding in findings(loaded(code=code)) if finding.rule == "R52"]
    assert f'revision="{COMMIT}"' in said.advice
    for pinned in ({"revision": COMMIT}, {"commit": None, "revision": None}):
        trace = loaded(code=[{**code[0], **pinned}])
        assert not [finding for finding in findings(trace) if finding.rule == "R52"]


@pytest.mark.parametrize("junk", [[], "x", 3, None, {"": []}, {"a": {"b": 1}}, [{}], [[1]], True, [None]])
def test_nothing_in_a_file_is_trusted(junk):
    names = ("adapters", "trainable", "merged", "unmerged", "unloaded", "casts", "frozen", "code")
    inside = {**ADAPTER, **dict.fromkeys(ADAPTER, junk)}
    for value in (junk, [inside], [dict.fromkeys(("names", "from", "bytes", "file"), junk)]):
        trace = loaded(got=dict.fromkeys(names, value), **dict.fromkeys(names, value))
        describe_adapters(trace)
        describe_code(trace)
        findings(trace)
        list(change_lines(dict.fromkeys(names, value)))
        made = Builder()
        made.span(None, "surgery", "x", 0, 1000, attributes=dict.fromkeys(names, value))
        for block in draw(made.trace(), ViewOptions()):
            assert block.text(80)
