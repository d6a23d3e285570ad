"""What there is of a comparison that was cut off, and what is said of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import handmade
from hftrace.cli.measure import _kept_words, groups_of
from hftrace.errors import UsageError
from hftrace.launch.variants.rounds import Rounds
from hftrace.schema.model import Facts


def write(folder, file, variant, number, status="ok"):
    made = handmade.healthy()
    header = Facts({**made.header, "variant": {"name": variant, "round": number}})
    outcome = Facts({**made.outcome, "status": status})
    dataclasses.replace(made, header=header, outcome=outcome).save(folder / file)


def test_a_directory_without_its_file_is_read_by_the_traces_in_it(tmp_path):
    write(tmp_path, "slow-10.json", "slow", 10)
    write(tmp_path, "slow-2.json", "slow", 2)
    write(tmp_path, "fast-0.json", "fast", 0, "error")
    write(tmp_path, "interrupted-fast-3.json", "fast", 3, "interrupted")
    handmade.healthy().save(tmp_path / "another.json")
    (tmp_path / "damaged.json").write_text("{")
    assert groups_of(tmp_path) == [
        ("fast", [str(tmp_path / "fast-0.json")]),
        ("slow", [str(tmp_path / "slow-2.json"), str(tmp_path / "slow-10.json")]),
    ]


def test_a_directory_of_other_traces(tmp_path):
    handmade.healthy().save(tmp_path / "another.json")
    with pytest.raises(UsageError, match=r"holds no comparison\.json"):
        groups_of(tmp_path)


@pytest.mark.parametrize(
    ("groups", "cut_off", "words"),
    [
        ([], None, "interrupted before a run was finished that counts"),
        (
            [("a", ["my out/a-1.json"])],
            None,
            "interrupted; 1 trace in my out (a 1): hftrace show 'my out/a-1.json'",
        ),
        (
            [("a", ["my out/a-1.json", "my out/a-2.json"]), ("b", ["my out/b-1.json"])],
            "interrupted-b-2.json",
            "interrupted; 3 traces in my out (a 2, b 1): hftrace compare 'my out'; "
            "the trace of the run that was cut off is my out/interrupted-b-2.json",
        ),
    ],
)
def test_what_is_kept_is_said(groups, cut_off, words):
    directory = Path("my out")
    rounds = Rounds({}, interrupted="SIGINT", cut_off=directory / cut_off if cut_off else None)
    assert _kept_words(groups, directory, rounds) == words
