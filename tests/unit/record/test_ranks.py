"""Which rank this process is, and where it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from hftrace.record.ranks import ALONE, JOB_VARIABLE, Rank, job_key, local_ranks, own_rank


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


@pytest.mark.parametrize("asked", ["a/trace.json", "x.rank1.json.gz", "trace"])
@pytest.mark.parametrize("rank", [Rank(0, 2), Rank(1, 2), Rank(11, 16)])
def test_the_place_of_a_rank_leads_back_to_what_was_asked(asked, rank):
    assert rank.asked(rank.path(Path(asked))) == Path(asked)


@pytest.fixture
def launched(monkeypatch):
    """Sets what a launcher says; what it does not say is unset."""
    names = ("TORCHELASTIC_ERROR_FILE", "TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", JOB_VARIABLE)
    names += ("LOCAL_RANK", "LOCAL_WORLD_SIZE")

    def set_all(**values):
        for name in names:
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_all


def test_the_ranks_of_an_attempt_have_one_key_and_no_other_job_has_it(launched):
    keys = []
    for path in (
        "/t/none_x/attempt_0/0/e.json",
        "/t/none_x/attempt_0/1/e.json",
        "/t/none_x/attempt_1/0/e.json",
    ):
        launched(TORCHELASTIC_ERROR_FILE=path, MASTER_PORT="29500")
        keys.append(job_key())
    assert keys[0] == keys[1] != keys[2]
    launched(MASTER_PORT="29500")
    of_parent = job_key()
    launched(MASTER_PORT="29501")
    assert len({of_parent, job_key(), *keys}) == 4
    # The process that does a rank's work has another parent, and is told.
    launched(MASTER_PORT="29500", **{JOB_VARIABLE: of_parent})
    assert job_key() == of_parent


@pytest.mark.parametrize(
    ("rank", "own", "count", "ranks"),
    [
        (Rank(1, 2), "1", "2", [0, 1]),
        (Rank(5, 8), "1", "4", [4, 5, 6, 7]),
        (Rank(1, 3), "", "", [0, 1, 2]),
        (Rank(1, 3), "7", "9", [0, 1, 2]),
        (Rank(1, 3), "x", "2", [0, 1, 2]),
    ],
)
def test_the_ranks_of_a_machine(launched, rank, own, count, ranks):
    launched(LOCAL_RANK=own, LOCAL_WORLD_SIZE=count)
    assert local_ranks(rank) == ranks
