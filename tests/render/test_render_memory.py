"""Memory and post-mortem views, as files that people can read (UPDATE_SNAPSHOTS=1 writes them anew)."""

import dataclasses
import json

import pytest
from rich.cells import cell_len
from test_render_screens import ESCAPE, compare, draw, view_of

import handmade
import handmade_memory
from hftrace.analysis.ending.death_facts import DeathFacts
from hftrace.analysis.ending.postmortem import post_mortem
from hftrace.analysis.memory.composition import peak_composition
from hftrace.render.screen import next_command, screen
from hftrace.render.views import memory, postmortem
from hftrace.render.views.options import ViewOptions
from hftrace.render.views.postmortem import SHORT_LINES, ending
from hftrace.render.views.summary import summary
from hftrace.schema.model import Facts

STATUSES = ("killed", "error", "interrupted", "ok", "unheard-of")


def device_full():
    trace = handmade_memory.on_device(full=True)
    found = post_mortem(trace, DeathFacts(ram_bytes=16_000_000_000))
    return dataclasses.replace(trace, outcome=Facts({**trace.outcome, **found}))


DEATHS = {
    "device": device_full,
    "dead": handmade_memory.dead,
    "old": handmade.killed,
    "failing": handmade.failing,
    "kernel": lambda: handmade_memory.dead(
        killer="kernel-oom",
        evidence=[{"kind": "oom-kills", "group": 1, "machine": 1}],
        limit_kind="cgroup",
        limit_bytes=1_450_000_000,
        stack=None,
    ),
    "exception": lambda: handmade_memory.dead(
        status="error",
        signal=None,
        exit_code=1,
        killer="out-of-memory",
        error={
            "type": "RuntimeError",
            "message": "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate "
            "memory: you tried to allocate 262144000 bytes. Error code 12 (Cannot allocate memory)",
            "traceback": "Traceback (most recent call last):\n"
            '  File "/opt/python/lib/python3.11/site-packages/transformers/modeling_utils.py", line 4012\n'
            "RuntimeError: [enforce fail at alloc_cpu.cpp:127]",
        },
    ),
    "stalled": lambda: handmade_memory.dead(
        killer="timeout",
        evidence=[{"kind": "timeout", "seconds": 90}],
        stalls=[
            {
                "time_ns": 61_000_000_000,
                "silent_ns": 60_000_000_000,
                "phase": "weights",
                "stack": handmade_memory.STACKS,
            },
            {"time_ns": 85_000_000_000, "silent_ns": 20_000_000_000, "phase": None, "stack": None},
        ],
    ),
}
EVERY = {
    **handmade.ALL,
    "hostile": handmade.hostile,
    "deep": handmade.deep,
    "empty": handmade.empty,
    **handmade_memory.LOADS,
    **DEATHS,
    **{
        f"hostile-{status}": lambda status=status: handmade_memory.hostile_outcome(status)
        for status in STATUSES
    },
}


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("name", handmade_memory.LOADS)
def test_memory_views(name, width):
    view = view_of(handmade_memory.LOADS[name](), "memory")
    compare(f"view-memory-{name}-{width}", draw(view, width))


def test_memory_view_of_a_device_and_in_ascii():
    compare("view-memory-offloaded-80", draw(view_of(handmade.offloaded(), "memory"), 80))
    text = draw(view_of(handmade_memory.upcast(between=True, limit=2_000_000_000), "memory"), 80, "ascii")
    assert text.isascii()
    compare("view-memory-80-ascii", text)


def test_memory_view_in_forty_columns():
    compare("view-memory-upcast-40", draw(view_of(handmade_memory.upcast(), "memory"), 40))


@pytest.mark.parametrize("name", DEATHS)
def test_post_mortems(name):
    trace = DEATHS[name]()
    compare(
        f"view-postmortem-{name}-80", draw(summary(trace), 80) + "\n" + draw(view_of(trace, "postmortem"), 80)
    )


def test_a_post_mortem_on_a_wide_screen():
    trace = handmade_memory.dead()
    compare(
        "view-postmortem-dead-140",
        draw(screen(trace, "t.json"), 140) + draw(view_of(trace, "postmortem"), 140),
    )


@pytest.mark.parametrize("width", [40, 61, 80, 109, 110, 140, 300])
@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_wider_than_the_screen(name, width):
    trace = EVERY[name]()
    for view in (view_of(trace, "memory"), view_of(trace, "postmortem"), summary(trace)):
        for line in draw(view, width).splitlines():
            assert cell_len(line) <= width
            assert line == line.rstrip()
    assert len(ending(trace, width)) <= SHORT_LINES


@pytest.mark.parametrize("name", [name for name in EVERY if name not in handmade.ALL])
def test_the_first_screen_fits(name):
    assert len(draw(summary(EVERY[name]()), 80).splitlines()) <= 23


@pytest.mark.parametrize("name", EVERY)
def test_facts_are_finite_json_and_text_is_clean(name):
    trace = EVERY[name]()
    json.dumps([memory.facts(trace, ViewOptions()), postmortem.facts(trace, ViewOptions())], allow_nan=False)
    for view in (view_of(trace, "memory"), view_of(trace, "postmortem"), screen(trace, "x.json")):
        text = draw(view, 80)
        for evil in ("\x1b", "\x9b", "\u202e", "\x07", "\r"):
            assert evil not in text


def test_colours_add_nothing_but_colours():
    for view in (
        view_of(handmade_memory.upcast(), "memory"),
        view_of(DEATHS["stalled"](), "postmortem"),
    ):
        colored = draw(view, 80, colors="standard")
        assert ESCAPE.search(colored)
        assert ESCAPE.sub("", colored) == draw(view, 80)


def test_layers_are_told_apart_without_colours():
    text = draw(view_of(handmade_memory.upcast(shared=200_000_000), "memory"), 80)
    assert "█ anonymous  ▒ file-backed  ░ shared" in text
    for glyph in "█▒░":
        assert text.count(glyph) > 20


def test_a_peak_between_samples_says_so_and_is_drawn():
    text = draw(view_of(handmade_memory.upcast(between=True, after=False), "memory"), 80)
    assert "peak between samples (the largest shows 1.26 GB)" in " ".join(text.split())
    column = next(line for line in text.splitlines() if "↓" in line).index("↓")
    assert text.splitlines()[3][column] == "│"


def test_the_figures_of_a_dense_load():
    text = draw(view_of(handmade_memory.upcast(), "memory"), 80)
    rows = {line[:22].strip(): line[22:].split() for line in text.splitlines() if "B  " in line}
    assert rows["at the start, absolute"] == ["400", "MB", "300", "MB", "100", "MB"]
    assert rows["returned"] == ["+860", "MB", "+850", "MB", "+10.0", "MB"]
    assert rows["after forward"] == ["+940", "MB", "+890", "MB", "+50.0", "MB"]
    assert rows["peak"] == ["+1.30", "GB", "+850", "MB", "+450", "MB"]


def test_the_load_gets_most_of_the_width_whatever_imports_took():
    trace = handmade_memory.upcast(imports_ms=60_000)
    lane = draw(view_of(trace, "memory"), 80).splitlines()[1]
    assert "imports: 5.00 s" in draw(view_of(trace, "memory"), 80)
    assert lane.index("│") - 17 <= (80 - 17) / 3


def test_the_first_screen_says_what_the_load_added():
    text = " ".join(draw(summary(handmade_memory.upcast()), 80).split())
    assert "peak 1.70 GB, 1.30 GB above the start of the load; returned +860 MB (anonymous +850 MB)" in text
    assert "anonymous alone, peak" in text
    assert "at the peak 841 MB parameters + 421 MB mapped sources" in text
    assert "of the load, in _load_pretrained_model" in text


def test_a_peak_after_the_load_is_not_the_load_s():
    trace = handmade_memory.upcast()
    trace.spans.columns["rss_peak_bytes"][-2] = 2_500_000_000
    text = " ".join(draw(summary(trace), 80).split())
    assert "peak 2.50 GB; of the load 1.70 GB, 1.30 GB above its start" in text
    assert "peak afterwards" in draw(view_of(trace, "memory"), 80)


def test_the_next_command_follows_from_the_first_finding_and_the_peak(monkeypatch):
    def last(trace):
        return draw(screen(trace, "t.json"), 80).splitlines()[-1]

    assert last(handmade.sharded()).endswith("--view spans"), "reading is slow"
    assert last(handmade.lazy()).endswith("--view memory"), "weights are not resident"
    assert last(handmade.pickled()).endswith("--view tensors"), "weights are missing"
    assert last(handmade_memory.upcast()).endswith("--view tree"), (
        "imports dominate: the tree has them by package"
    )
    assert last(handmade_memory.dead()).endswith("--view postmortem")
    monkeypatch.setattr("hftrace.render.screen.findings", lambda trace: [])
    assert last(handmade_memory.upcast()) == "next: hftrace show t.json --view memory"
    assert last(handmade.sharded()).endswith("--view tensors")


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ({}, "hftrace, at the --memory-limit"),
        ({"killer": "timeout"}, "hftrace, after the --timeout"),
        ({"killer": "limit-unwatched"}, "nobody could watch the --memory-limit any more"),
        (
            {"evidence": [{"kind": "limit-unwatched", "limit_bytes": 2_000_000, "reason": "No room"}]},
            "The --memory-limit of 2.00 MB could not be watched any more (No room)",
        ),
        ({"killer": "kernel-oom", "evidence": []}, "the kernel's OOM killer (SIGKILL), likely"),
        (
            {"killer": "kernel-oom", "evidence": ["The kernel says: Out of memory: Killed process 7"]},
            "the kernel's OOM killer (SIGKILL)\n",
        ),
        ({"killer": "crash", "signal": "SIGBUS"}, "a crash of its own: SIGBUS"),
        ({"killer": "exit", "exit_code": 3}, "nobody: it exited by itself, with 3"),
        ({"killer": "unknown", "signal": "SIGTERM"}, "SIGTERM; who sent it is not known"),
        ({"killer": None, "limit_bytes": None}, "SIGKILL; who sent it is not known"),
        ({"killer": None, "limit_kind": None}, "A guess, from how full memory was"),
        ({"status": "interrupted", "killer": None}, "by the user"),
    ],
)
def test_what_killed_it_and_how_sure(outcome, words):
    assert words in draw(view_of(handmade_memory.dead(**outcome), "postmortem"), 80)


def test_a_load_that_ended_well_needs_no_post_mortem():
    text = draw(view_of(handmade.sharded(), "postmortem"), 80)
    assert text.splitlines()[1:] == ["This load ended well: there is nothing to explain."]
    assert ending(handmade.sharded(), 80) == []


def test_stalls_of_a_load_that_ended_well_are_shown():
    trace = handmade_memory.dead(
        status="ok", stalls=[{"time_ns": 5, "silent_ns": 61_000_000_000, "phase": "weights"}]
    )
    text = draw(view_of(trace, "postmortem"), 80)
    assert "Stall: silent for 1 min 1 s in weights" in text


def test_the_thread_that_mattered_comes_first_in_a_stack():
    text = draw(view_of(handmade_memory.dead(), "postmortem"), 80)
    stack = text[text.index("Stacks") :].splitlines()
    assert stack[1].startswith("  Current thread")
    assert stack[2] == '    File "safetensors/torch.py", line 313 in load_file'
    assert "frozen importlib" not in text


def test_a_very_long_stack_is_cut_and_says_so():
    lines = "\n".join(f'  File "a.py", line {number} in f' for number in range(5_000))
    text = draw(view_of(handmade_memory.dead(stack=lines), "postmortem"), 80)
    assert len(text.splitlines()) < 70
    assert "+ 4960 lines more: --view postmortem --json" in text.replace(",", "")


def test_the_next_command_for_failed_requests_shows_requests(monkeypatch):
    class Found:
        view = "requests"
        load = None

    trace = handmade.failing()
    assert draw(screen(trace, "t.json"), 80).splitlines()[-1].endswith("--view files")
    monkeypatch.setattr("hftrace.render.screen.findings", lambda trace: [Found()])
    assert next_command(trace, "t.json").endswith("--view requests")


@pytest.mark.parametrize("name", handmade_memory.LOADS)
def test_the_place_of_the_peak_is_one(name):
    trace = handmade_memory.LOADS[name]()
    made = peak_composition(trace)
    facts = memory.facts(trace, ViewOptions())
    for process in facts["processes"]:
        peak = process.get("peak")
        if peak and made is not None and made.span is not None and peak["bytes"] == made.peak_bytes:
            assert peak["span"] == facts["composition"]["span"]
