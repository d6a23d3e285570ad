"""What people see, as files that people can read.

``UPDATE_SNAPSHOTS=1 pytest tests/render`` writes the files anew; the
difference is then read before it is committed.
"""

import difflib
import io
import os
import re
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

import handmade
import handmade_loads
import handmade_models
import handmade_offload
from hftrace.analysis.time.loads import pick_load
from hftrace.render.screen import screen
from hftrace.render.text import TIMES, stack
from hftrace.render.views import load
from hftrace.render.views.options import ViewOptions
from hftrace.render.views.summary import summary
from hftrace.render.views.timeline import timeline_block

SNAPSHOTS = Path(__file__).parent / "snapshots"
EVERY = {**handmade.ALL, "hostile": handmade.hostile, "deep": handmade.deep, "empty": handmade.empty}
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def view_of(trace, name, **options):
    """Returns a view of a trace as one block."""
    return stack(*load(name).draw(trace, ViewOptions(**options)))


def draw(renderable, width, encoding="utf-8", colors=None):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="")
    console = Console(
        file=stream,
        width=width,
        color_system=colors,
        force_terminal=colors is not None,
        legacy_windows=False,
        highlight=False,
        markup=False,
        _environ={},
    )
    console.print(renderable, overflow="ignore", crop=False)
    stream.flush()
    return raw.getvalue().decode(encoding)


def compare(name, text):
    path = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        SNAPSHOTS.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    expected = path.read_text("utf-8") if path.exists() else ""
    if text != expected:
        difference = "\n".join(difflib.unified_diff(expected.splitlines(), text.splitlines(), lineterm=""))
        pytest.fail(f"{path.name} changed; UPDATE_SNAPSHOTS=1 accepts it\n{difference}", pytrace=False)


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("name", handmade.ALL)
def test_default_screen(name, width):
    compare(f"{name}-{width}", draw(screen(handmade.ALL[name](), f"traces/{name}.json"), width))


def test_default_screen_with_a_device():
    compare("healthy-100", draw(screen(handmade.healthy(), "traces/healthy.json"), 100))


@pytest.mark.parametrize("name", ["sharded", "killed", "hostile"])
def test_default_screen_in_ascii(name):
    text = draw(screen(EVERY[name](), f"traces/{name}.json"), 80, "ascii")
    assert text.isascii()
    compare(f"{name}-80-ascii", text)


LEDGERS = {
    "tensors": lambda trace: view_of(trace, "tensors"),
    "model": lambda trace: view_of(trace, "model"),
    "tensors-filtered": lambda trace: view_of(
        trace, "tensors", matches=re.compile("layers.1[01].*proj").search
    ),
    "files": lambda trace: view_of(trace, "files"),
    "spans": lambda trace: view_of(trace, "spans"),
    "samples": lambda trace: view_of(trace, "samples", limit=12),
    "timeline": lambda trace: view_of(trace, "timeline"),
    "tree": lambda trace: view_of(trace, "tree"),
}


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("view", [name for name in LEDGERS if name != "model"])
def test_views(view, width):
    compare(f"view-{view}-{width}", draw(LEDGERS[view](handmade.sharded()), width))


@pytest.mark.parametrize("width", [80, 140])
def test_what_is_offloaded(width):
    model = {"class": "Model", "load": 1, "device": "cuda:0", "passes": 3, "pass_ns": 60_000_000}
    modules = [*handmade_offload.rows(3), ["head", "Linear", 3, 900_000, 90_000, 0, 0, 3, 12_000_000]]
    trace = handmade_offload.spread(moves=[{**model, "modules": modules}])
    compare(f"view-offload-{width}", draw(view_of(trace, "offload"), width))


MODELS = {
    "model": lambda: view_of(handmade_models.llama(), "model"),
    "model-classifier": lambda: view_of(handmade_models.classifier(), "model"),
    "model-filtered": lambda: view_of(
        handmade_models.llama(),
        "model",
        where=(("class", "Linear"),),
        matches=re.compile("layers.1[01]").search,
    ),
    "model-two-levels": lambda: view_of(handmade_models.llama(), "model", depth=2),
    "model-without-classes": lambda: view_of(handmade.sharded(), "model"),
    "model-watched": lambda: view_of(handmade_models.watched(), "model"),
    "tensors-stats": lambda: view_of(handmade_models.classifier(), "tensors", measure=handmade_models.values),
    "model-none": lambda: view_of(handmade.empty(), "model"),
}


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("view", MODELS)
def test_models(view, width):
    compare(f"view-{view}-{width}", draw(MODELS[view](), width))


@pytest.mark.parametrize("width", [40, 61, 80, 109, 110, 140, 300])
@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_wider_than_the_screen(name, width):
    trace = EVERY[name]()
    command = f"hftrace show traces/{name}.json --view"
    for view in (screen(trace, f"traces/{name}.json"), *(make(trace) for make in LEDGERS.values())):
        for line in draw(view, width).splitlines():
            # The command to copy is never cut.
            assert cell_len(line) <= width or line.startswith(command)
            assert line == line.rstrip()


@pytest.mark.parametrize("name", EVERY)
def test_the_summary_fits_the_first_screen(name):
    assert len(draw(summary(EVERY[name]()), 80).splitlines()) <= 23


@pytest.mark.parametrize("name", EVERY)
def test_colours_add_nothing_but_colours(name):
    trace = EVERY[name]()
    view = screen(trace, "traces/x.json")
    colored = draw(view, 80, colors="standard")
    assert ESCAPE.search(colored)
    assert ESCAPE.sub("", colored) == draw(view, 80)


def test_hostile_names_stay_text():
    trace = handmade.hostile()
    for view in (screen(trace, "x\x1b[2J.json"), *(make(trace) for make in LEDGERS.values())):
        text = draw(view, 80)
        assert "\x1b" not in text
        assert "\x9b" not in text
        assert "\u202e" not in text
    assert "[red]evil[/red]" in draw(screen(trace), 80)


def test_the_last_line_is_the_next_command():
    for name, view in {
        "sharded": "spans",
        "pickled": "tensors",
        "lazy": "memory",
        "failing": "files",
        "killed": "postmortem",
        "deep": "spans",
    }.items():
        last = draw(screen(EVERY[name](), "my traces/x.json"), 80).splitlines()[-1]
        assert last == f"next: hftrace show 'my traces/x.json' --view {view}"


def test_deep_trees_are_drawn_whole_when_asked():
    block = view_of(handmade.deep(), "tree", depth=0, min_ns=0)
    assert "function_2999" in draw(block, 80)


def test_a_load_on_several_ranks_names_them():
    made = handmade.Builder()
    for rank in range(2):
        root = made.span(
            None, "load", "Llama", 0, 100 + rank, "Llama.from_pretrained", rank=rank, pid=10 + rank
        )
        made.span(root, "weights", "w", 10, 90, rank=rank, pid=10 + rank)
    text = draw(screen(made.trace()), 100)
    assert "rank 0" in text
    assert "rank 1" in text


@pytest.mark.parametrize("width", [80, 140])
def test_collections_stand_below_what_they_interrupted(width):
    made = handmade.Builder()
    root = made.span(None, "load", "AutoModelForCausalLM", 0, 100, "_BaseAutoModelClass.from_pretrained")
    noted = {"automatic": True, "collected": 1}
    made.span(root, "collect", "garbage collection", 1, 9, attributes=noted)
    inner = made.span(root, "load", "LlamaForCausalLM", 10, 100, "PreTrainedModel.from_pretrained")
    weights = made.span(inner, "weights", "w", 20, 90, "PreTrainedModel._load_pretrained_model")
    for number in range(4):
        noted = {"automatic": False, "collected": 500}
        start = 20 + 16 * number
        made.span(weights, "collect", "gc.collect", start, start + 15, attributes=noted)
    text = draw(screen(made.trace()), width)
    assert re.search(r"[└─] c(?:ollect)? gc\.collect  . 4  2,000 objects freed +60 ms +60 %", text)
    assert re.search(r"[├─] c(?:ollect)? garbage collection  1 object freed +8\.0 ms +8 %", text)
    assert text.startswith("LlamaForCausalLM"), "and not the collection"


@pytest.mark.parametrize("width", [80, 140])
def test_a_session_with_more_than_loads(width):
    trace = handmade.started()
    compare(f"session-{width}", draw(screen(trace, "traces/session.json"), width))
    compare(f"view-timeline-session-{width}", draw(view_of(trace, "timeline"), width))


def test_a_session_in_ascii():
    text = draw(screen(handmade.started(), "traces/session.json"), 80, "ascii")
    compare("session-80-ascii", text)
    assert "?" not in text


def test_imports_that_hide_the_load_are_left_out_of_the_timeline():
    made = handmade.Builder()
    made.span(None, "import", "import torch", 0, 5000)
    root = made.span(None, "load", "Llama", 5000, 5100, "Llama.from_pretrained")
    made.span(root, "weights", "w", 5010, 5090)
    trace = made.trace()
    text = draw(timeline_block(trace), 80)
    assert "+ 5.00 s before the first load: --view timeline" in text
    assert "weights━━━" in text
    assert "import━━━" in draw(timeline_block(trace, whole=True), 80)


def test_many_threads_say_how_to_see_the_rest():
    made = handmade.Builder()
    root = made.span(None, "load", "Llama", 0, 100, "Llama.from_pretrained")
    for thread in range(20):
        made.span(root, "shard", f"shard {thread}", 10, 90, thread=thread)
    trace = made.trace()
    assert "+ 15 more threads: --view timeline" in draw(timeline_block(trace), 80)
    assert "more threads" not in draw(timeline_block(trace, whole=True), 80)


def test_a_loader_that_fits_no_generation_is_said_on_the_first_screen():
    made = handmade.Builder()
    made.span(None, "load", "Llama", 0, 100, "Llama.from_pretrained")
    made.environment.update(generation="unrecognised", loader={"traced_as": "D\x1b", "versions": "5.x"})
    text = " ".join(draw(screen(made.trace()), 80).split())
    assert "(loader unrecognised, traced as D" in text
    assert "hftrace does not know this loader" in text
    assert "\x1b" not in text
    made.environment.update(generation="D", loader=None)
    assert "(loader D)" in draw(screen(made.trace()), 120)


@pytest.mark.parametrize("name", ["sharded", "killed", "pickled", "generation_a", "lazy"])
def test_no_class_is_cut_from_the_tree(name):
    trace = getattr(handmade, name)()
    text = draw(view_of(trace, "tree", depth=0), 80)
    for span in trace.spans:
        owner = (span.function or "").rpartition(".")[0]
        if owner and span.phase not in ("load", "import"):
            assert f"{owner}." in text or span.function not in draw(view_of(trace, "tree", depth=0), 300)
    if name == "killed":
        assert "killed" in text


@pytest.mark.parametrize("width", [140, 200, 300])
def test_figures_stand_beside_their_names_on_a_wide_screen(width):
    lines = draw(view_of(handmade.lazy(), "tree"), width).splitlines()[1:]
    figures = [line for line in lines if re.search(r"\d m?s +[<>]?\d+ %", line)]
    assert figures
    assert max(map(len, figures)) < 140
    # The longest name has no more than the column of its figure between them.
    assert min(len(re.search(r" {2,}\S+ m?s +[<>]?\d+ %", line)[0]) for line in figures) < 24


def test_the_rate_of_a_gguf_file_says_that_dequantising_is_in_it():
    plain, quantised = handmade.sharded(), handmade.sharded()
    formats = quantised.files.columns["format"]
    formats[:] = ["gguf" if each else each for each in formats]
    assert "729 MB/s, " in draw(summary(plain), 120)
    assert "dequantising" not in draw(summary(plain), 120)
    assert "729 MB/s with dequantising, " in draw(summary(quantised), 120)


def test_what_was_not_touched_is_a_least_figure():
    # The memory view knows what was touched of the maps alone, which is no more than the process grew by.
    assert "at least 2.20 GB of it not touched yet" in draw(summary(handmade.lazy()), 120)


SEVERAL = {
    "service": handmade_loads.service,
    "service-load-5": lambda: pick_load(handmade_loads.service(), 5),
    "adapted": handmade_loads.adapted,
}


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("name", SEVERAL)
def test_screen_of_several_loads(name, width):
    text = draw(screen(SEVERAL[name](), f"traces/{name}.json"), width)
    assert all(cell_len(line) <= width for line in text.splitlines())
    compare(f"{name}-{width}", text)


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("view", ["loads", "tensors", "model"])
@pytest.mark.parametrize("name", SEVERAL)
def test_views_of_several_loads(name, view, width):
    compare(f"view-{view}-{name}-{width}", draw(view_of(SEVERAL[name](), view), width))


@pytest.mark.parametrize("name", SEVERAL)
def test_the_summary_of_several_loads_fits_the_first_screen(name):
    assert len(draw(summary(SEVERAL[name]()), 80).splitlines()) <= 23


def test_many_loads_have_as_many_lines_as_there_is_room_for():
    made = handmade_loads.Session()
    for number in range(40):
        made.load("AutoConfig", f"org/{number}", "LlamaConfig", "config", takes=1)
    made.load("AutoModel", "org/model", "LlamaModel")
    lines = draw(summary(made.trace()), 80).splitlines()
    assert len(lines) <= 23
    assert lines[0].startswith(f"LlamaModel, config {TIMES} 40  org/model")
    assert any("41 LlamaModel" in line for line in lines)
    assert any("+ 36 more: --view loads" in line for line in lines)


def test_what_was_asked_stays_where_took_is_long():
    trace = handmade.generation_a()
    for width in range(60, 100):
        assert any(line.startswith("asked ") for line in draw(summary(trace), width).splitlines())
