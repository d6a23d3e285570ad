"""What a running load looks like, at one moment, as files that people can read, and on every screen."""

from __future__ import annotations

import pytest
from test_render_screens import compare, draw

from hftrace.analysis.live import (
    EndedPhase,
    LastTime,
    LiveLimit,
    LiveMemory,
    LiveProcess,
    LiveShard,
    LiveState,
)
from hftrace.render.live import live_block, plain_line
from hftrace.render.text import width_of

S = 1_000_000_000
GB = 10**9
NOW = 100 * S


LAST = LastTime(60 * S, 3 * S, 13 * GB, {"cuda:0": 24 * GB}, "partly")


class Frozen(LiveState):
    """A state whose clock stands."""

    @property
    def elapsed(self):
        return 42.3


def shard(number, of, size, done=0, began=None, ended=None):
    name = f"model-{number:05}-of-{of:05}.safetensors"
    return LiveShard(name, size, done, began, ended, finished=done == size)


def loading(shards=6, rank=0, **options):
    files = [shard(each, shards, 2 * GB) for each in range(1, shards + 1)]
    files[0] = shard(1, shards, 2 * GB, 2 * GB, 90 * S, 91 * S)
    files[1] = shard(2, shards, 2 * GB, 2 * GB, 91 * S, 92 * S)
    files[2] = shard(3, shards, 2 * GB, GB, 92 * S, 93 * S)
    facts = {
        "rank": rank,
        "pid": 100 + rank,
        "phase": "weights",
        "name": "convert_and_load_state_dict_in_model",
        "phases": {"import": 3 * S, "config": 48_000_000, "resolve": 1_200_000, "instantiate": 6_000_000},
        "since_ns": 90 * S,
        "weights_ns": 90 * S,
        "shards": files,
        "tensors_done": 1204,
        "tensors_total": 3000,
        "memory": LiveMemory(9 * GB, 4 * GB),
        "moved_bytes": 5 * GB,
    }
    return LiveProcess(**{**facts, **options})


def state(*processes, **options):
    return Frozen(processes=list(processes), **{"limit": LiveLimit(24 * GB, "cgroup"), **options})


STATES = {
    "start": lambda: state(LiveProcess()),
    "import": lambda: state(
        LiveProcess(
            phase="import", name="import torch", since_ns=98 * S, memory=LiveMemory(GB // 8, GB // 20)
        )
    ),
    "download": lambda: state(
        LiveProcess(phase="download", name="model.safetensors", since_ns=97 * S, waits_for=["hub.example"])
    ),
    "loading": lambda: state(loading()),
    "mapped": lambda: state(loading(moved_bytes=0)),
    "many": lambda: state(loading(shards=191)),
    "limit": lambda: state(loading(), limit=LiveLimit(96 * GB // 10, "option")),
    "device": lambda: state(loading(device_bytes={"cuda:0": 7 * GB, "cuda:1": 0})),
    "ranks": lambda: state(*(loading(rank=rank) for rank in range(10))),
    "last time": lambda: state(loading(), last_time=LAST),
    "longer than the last time": lambda: state(
        loading(weights_ns=NOW - S // 2), last_time=LastTime(31 * S, None, None)
    ),
    "ending": lambda: state(loading(), ending=True),
}


def drawn(name, width, encoding="utf-8", colors=None, title=""):
    return draw(live_block(STATES[name](), NOW, title), width, encoding, colors)


@pytest.mark.parametrize("width", [80, 140])
def test_what_a_load_looks_like(width):
    text = "".join(f"== {name}\n{drawn(name, width)}" for name in STATES)
    compare(f"live-{width}", text)


@pytest.mark.parametrize("width", [20, 40, 41, 60, 80, 100, 140, 250])
@pytest.mark.parametrize("name", STATES)
def test_no_line_is_wider_than_the_screen(name, width):
    lines = drawn(name, width).splitlines()
    assert max(map(width_of, lines)) <= width
    assert len(lines) <= 14, "a block that scrolls cannot be drawn in its place"


@pytest.mark.parametrize("name", STATES)
def test_other_alphabets_and_no_colours(name):
    assert drawn(name, 80, "ascii").isascii()
    assert "\x1b" not in drawn(name, 80)
    assert "\x1b" in drawn(name, 80, colors="standard")


def test_a_rate_is_one_of_bytes_that_moved():
    assert "/s" in drawn("loading", 80)
    assert "/s" not in drawn("mapped", 80)


def test_what_is_left_is_unknown_until_something_says_it():
    # 5 of 12 GB in ten seconds: the other 7 GB take 14.
    assert "about 14 s of weights left" in drawn("loading", 80)
    early = loading(weights_ns=NOW - S // 2)
    assert "remaining unknown" in draw(live_block(state(early), NOW), 80)
    assert "remaining" not in drawn("import", 80), "of imports nobody says that there is one"


def test_what_is_left_by_the_last_time():
    # 14 s of weights at their pace, and the 3 s that followed them.
    assert "42.3 s, about 17 s left" in drawn("last time", 80)
    assert "last time        returned after 1 min 0 s, partly warm cache, peak 13.0 GB" in drawn(
        "last time", 100
    )
    assert "remaining unknown" in drawn("longer than the last time", 80)


def test_names_from_a_checkpoint_cannot_steer_the_terminal():
    process = loading(name="\x1b[2Jgone\n\u202e", shards=3)
    process.shards[2].name = "\x1b]0;title\x07weights.bin"
    process.waits_for = ["host\r\x1b[1A"]
    last = LastTime(S, S, GB, {"\x1b[2J\u202e\r": GB})
    text = draw(live_block(state(process, last_time=last), NOW), 80)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\r" not in text


def test_one_of_several_runs_says_which():
    assert drawn("loading", 80, title="round 2  bf16").startswith("round 2  bf16  weights")


@pytest.mark.parametrize(
    ("phase", "text"),
    [
        (EndedPhase("weights", "n", 12 * S, LiveMemory(3 * GB, GB // 10)), True),
        (EndedPhase("import", "n", S, None), True),
        (EndedPhase("config", "n", S // 100, None), False),
    ],
)
def test_a_line_of_a_phase_that_has_ended(phase, text):
    line = plain_line(phase)
    assert (line is not None) == text
    if line is not None:
        assert line.startswith(phase.phase)
        assert "\x1b" not in line
        assert line.isascii()


def test_the_line_says_time_and_memory():
    line = plain_line(EndedPhase("weights", "n", 12 * S, LiveMemory(3 * GB, GB // 10)))
    assert line.split() == ["weights", "12.0", "s", "3.00", "GB", "anonymous", "100", "MB", "file-backed"]
