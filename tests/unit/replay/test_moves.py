"""What offloaded models have moved, as it comes out of the journals of several processes."""

from __future__ import annotations

from types import SimpleNamespace

from hftrace.replay.session import moves_facts


def fact(number, passes, load):
    return {"number": number, "class": "Model", "load": load, "passes": passes, "modules": []}


def test_the_last_line_of_each_model_counts():
    written = [fact(0, 1, 4), fact(1, 1, None), fact(0, 8, 4)]
    process = SimpleNamespace(pid=7, rank=1, facts={"moves": written})
    found = moves_facts(process, 100)
    assert [(each["number"], each["passes"], each["load"]) for each in found] == [(0, 8, 104), (1, 1, None)]
    assert {(each["pid"], each["rank"]) for each in found} == {(7, 1)}
    assert written[0]["load"] == 4  # as it stands in the journal


def test_a_process_without_any():
    assert moves_facts(SimpleNamespace(pid=7, rank=0, facts={}), 3) == []
