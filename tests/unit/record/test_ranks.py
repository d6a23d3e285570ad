"""Which rank this process is, and where it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from hftrace.record.ranks import ALONE, Rank, own_rank


@pytest.mark.parametrize(
    ("asked", "second"),
    [
        ("a/trace.json", "a/trace.rank1.json"),
        ("trace.json.gz", "trace.rank1.json.gz"),
        ("trace", "trace.rank1"),
        ("v1.2.json", "v1.2.rank1.json"),
    ],
)
def test_the_first_rank_keeps_the_name(asked, second):
    assert Rank(0, 2).path(Path(asked)) == Path(asked)
    assert Rank(1, 2).path(Path(asked)) == Path(second)


@pytest.mark.parametrize(
    ("rank", "world", "expected"),
    [("1", "2", Rank(1, 2)), ("0", "1", ALONE), ("", "2", ALONE), ("x", "2", ALONE), ("2", "2", ALONE)],
)
def test_a_launcher_says_it_in_the_environment(monkeypatch, rank, world, expected):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    assert own_rank() == expected


def test_a_process_of_its_own_has_none(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert own_rank() == ALONE
