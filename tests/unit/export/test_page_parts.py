"""The report page as a file: what it says is what ``hftrace show`` says, and no name becomes markup."""

import base64
import dataclasses
import hashlib
import html
import io
import itertools
import json
import re
from html.parser import HTMLParser

import pytest

import handmade
import handmade_compare
import handmade_loads
import handmade_memory
from hftrace import units
from hftrace.analysis.compare.comparison import compare
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.model_trees import model_trees
from hftrace.analysis.summary import summary
from hftrace.analysis.time.spans import span_index
from hftrace.errors import UsageError
from hftrace.export import Wish, exporter
from hftrace.export.page import comparison, data, document, lanes, ledger, markup, palette, tree
from hftrace.render.bars import phase_amounts
from hftrace.render.compare.words import figure_of, known_metrics, ratio_of
from hftrace.render.views.summary import labelled_facts
from hftrace.schema.block import Facts
from hftrace.schema.vocabulary import PHASES

EVIL = '</script><script>alert(1)</script><!--<img src=x onerror="alert(1)">&amp;\u2028\u202e'
PLAIN = {"script", "style", "svg", "rect", "title", "meta"}


class Elements(HTMLParser):
    """Collects the elements of a page, and the text of each ``script`` and ``style``."""

    def __init__(self):
        super().__init__()
        self.found, self.raw = [], {"script": [], "style": []}
        self._open = None

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag in self.raw:
            self._open = tag
            self.raw[tag].append("")

    def handle_endtag(self, tag):
        if tag == self._open:
            self._open = None

    def handle_data(self, text):
        if self._open:
            self.raw[self._open][-1] += text


def page(*traces, paths=()):
    stream = io.BytesIO()
    exporter("html").write(traces, stream, Wish(tuple(paths)))
    return stream.getvalue().decode("utf-8")


def elements(text):
    parser = Elements()
    parser.feed(text)
    return parser


def text_of(written):
    return html.unescape(re.sub(r"<[^>]*>", " ", written))


def evil():
    """A trace in which every name is one that would like to be markup."""
    trace = handmade.sharded()
    for table, columns in (
        (trace.spans, ("name", "function", "source")),
        (trace.tensors, ("name", "file", "dtype", "device")),
        (trace.files, ("name", "path")),
    ):
        for name in columns:
            table.columns[name] = [
                each if each is None else f"{each}{EVIL}{row}" for row, each in enumerate(table.column(name))
            ]
    builder = handmade.Builder()
    builder.span(None, "load", EVIL, 0, 100, function=EVIL)
    builder.request.update({"model": EVIL, "class": EVIL, "keywords": {EVIL: EVIL}})
    builder.environment.update({"python": EVIL, EVIL: [EVIL], "variables": {EVIL: EVIL}})
    builder.header["argv"] = ["hftrace", EVIL]
    builder.outcome.update({"status": "error", "error": {"type": EVIL, "message": EVIL, "traceback": EVIL}})
    return trace, builder.trace()


# -- hostile names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1])
def test_no_name_becomes_markup_or_script(which):
    written = page(evil()[which], paths=[f"x{EVIL}.json"])
    plain = elements(page(handmade.sharded()))
    found = elements(written)
    assert len(found.raw["script"]) == 2
    assert {tag for tag, _ in found.found} <= {tag for tag, _ in plain.found} | {"div", "article", "dl"}
    for tag, attributes in found.found:
        assert tag not in ("img", "iframe", "object", "link", "base", "form", "embed")
        assert not any(name.startswith("on") or name in ("src", "style") for name in attributes), tag
        assert attributes.get("href", "#").startswith("#")
    json.loads(found.raw["script"][0])
    assert "alert(1)" in found.raw["script"][0]
    assert "alert(1)" not in found.raw["script"][1]
    assert "\u202e" not in written
    assert "\u2028" not in written


def test_json_for_a_script_has_nothing_that_ends_it():
    written = data.script_json({EVIL: [EVIL, "\ud800"]})
    assert not set("<>&") & set(written)
    assert written.isascii()
    assert json.loads(written) == {EVIL: [EVIL, "\ud800"]}


def test_json_for_a_script_has_no_number_that_a_browser_cannot_read():
    with pytest.raises(ValueError, match="not JSON compliant"):
        data.script_json(float("nan"))
    assert data.number(float("inf")) is None
    assert data.number(2**53) is None
    assert data.number(True) is None
    assert data.numbers([1, None, 2**60]) == [1, None, None]


def test_what_is_put_into_the_template_is_never_filled_in_itself():
    written = document.document("%%data%%", [("a", "%%script%%", markup.text("%%style%%"))], {}, "%%data%%")
    assert written.count("%%style%%") == 1
    assert written.count("%%script%%") == 1
    assert written.count("%%data%%") == 2


def test_text_is_escaped_and_elements_are_not():
    made = markup.tag("a", "<b>", markup.tag("br"), title='"', class_="x", hidden=False, data_id=3)
    assert made == '<a title="&quot;" class="x" data-id="3">&lt;b&gt;<br></a>'


# -- what the browser may do ---------------------------------------------------------------------------


@pytest.mark.parametrize("traces", [[handmade.sharded], [handmade.sharded, handmade.lazy]])
def test_the_policy_allows_this_script_and_this_style_alone(traces):
    found = elements(page(*(make() for make in traces), paths=["a.json", "b.json"]))
    (policy,) = [each["content"] for tag, each in found.found if tag == "meta" and "http-equiv" in each]
    assert policy.startswith("default-src 'none';")
    for kind, text in (("script", found.raw["script"][1]), ("style", found.raw["style"][0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "http" not in "".join(found.raw["style"])
    assert not re.search(
        r"https?://|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", found.raw["script"][1]
    )


# -- the same words and figures as the terminal --------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        handmade.sharded,
        handmade.lazy,
        handmade.killed,
        handmade.failing,
        handmade.offloaded,
        handmade.empty,
        handmade.generation_a,
        handmade_loads.service,
        handmade_memory.two_ranks,
        handmade_memory.upcast,
    ],
)
def test_the_page_says_what_show_says_without_any_script(make):
    trace = make()
    written = page(trace, paths=["trace.json"])
    said = " ".join(text_of(written.partition("<main>")[2].partition("<footer>")[0]).split())
    for label, value in labelled_facts(trace):
        assert label == "loads" or f"{label} {' '.join(value.split())}" in said, label
    for phase, spent in phase_amounts(trace):
        assert re.search(rf"{phase} +{re.escape(units.duration(spent))} ", said), phase
    for finding in findings(trace):
        assert " ".join(finding.title.split()) in said
        assert " ".join(finding.evidence.split()) in said
        assert " ".join(finding.advice.split()) in said
    told = summary(trace)
    if told["rss_peak_bytes"] is not None:
        assert f"CPU memory, peak {units.byte_count(told['rss_peak_bytes'])}" in said


def test_figures_of_several_loads_are_not_added_up():
    said = text_of(page(handmade_loads.service()).partition("</header>")[0])
    assert re.search(r"Loads\s+5", said)
    assert "Tensors" not in said.partition("Wall time")[2]


# -- what the script draws -----------------------------------------------------------------------------


def test_every_phase_has_a_colour_that_the_style_knows():
    style = document._assets(document.STYLES)
    assert {phase for phases in palette.FAMILIES.values() for phase in phases} >= set(PHASES)
    for family in palette.FAMILIES:
        assert f".f-{family} " in style
        assert style.count(f"--{family}: ") == 2, "one for light, one for dark"
    assert palette.family("made up") == "other"


def test_packed_names_come_back():
    names = ["a.b.c", "a.b.d", "", "\U0001f600x", "\U0001f600y", "a.b.d", "a.b.d"]
    made = data.packed(names)
    before, found = "", []
    for same, rest in zip(made["same"], made["rest"], strict=True):
        before = before[:same] + rest
        found.append(before)
    assert found == names
    assert made["rest"][1] == "d"


def test_spans_of_a_lane_nest_and_are_those_of_the_trace():
    trace = handmade.sharded()
    made = lanes.timeline_data(trace)
    spans, index = made["spans"], span_index(trace)
    assert sorted(spans["id"]) == sorted(index.ids)
    for at, identity in enumerate(spans["id"]):
        start, end = index.bounds(index.row_of[identity])
        assert (spans["start"][at], spans["end"][at]) == (start - made["zero_ns"], end - made["zero_ns"])
    rows = {}
    for at in range(len(spans["id"])):
        rows.setdefault((spans["lane"][at], spans["depth"][at]), []).append(
            (spans["start"][at], spans["end"][at])
        )
    for boxes in rows.values():
        boxes.sort()
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(boxes))


def test_reads_are_those_of_the_ledger():
    trace = handmade.sharded()
    made = lanes.timeline_data(trace, has_ledger=True)
    start = row = 0
    seen = 0
    for at, step in enumerate(made["reads"]["start"]):
        start, row = start + step, row + made["reads"]["row"][at]
        tensor = trace.tensors[row]
        assert start + made["zero_ns"] == tensor.read_start_ns
        assert made["reads"]["took"][at] == tensor.read_end_ns - tensor.read_start_ns
        seen += 1
    assert seen == sum(each.read_start_ns is not None for each in trace.tensors)


def test_short_calls_are_folded_and_nothing_is_left_out():
    trace = handmade.sharded()
    made = tree.tree_data(trace, 0)
    assert sorted(span for spans in made["spans"] for span in spans) == sorted(trace.spans.column("id"))
    loads = [at for at, spans in enumerate(made["spans"]) if set(spans) & {load.id for load in trace.loads}]
    assert loads
    assert not any(made["short"][at] for at in loads)
    assert len({len(column) for name, column in made.items() if name != "has_device"}) == 1


@pytest.mark.parametrize("make", [handmade.sharded, handmade_loads.service, handmade.pickled])
def test_bytes_of_modules_are_those_of_the_model_view(make):
    trace = make()
    shown = ledger.module_data(trace)
    sizes = trace.tensors.column("bytes")
    assert len(shown) == len(model_trees(trace))
    for made, of in zip(shown, model_trees(trace), strict=True):
        tensors, totals = made["tensors"], [0] * len(of.modules)
        rows = tensors.get("row")
        module = row = 0
        for at, step in enumerate(tensors["module"]):
            module += step
            row += rows[at] if rows else 0
            held = sizes[row] if rows else tensors["bytes"][at]
            totals[module] += 0 if at in tensors["again"] else held or 0
        for at in range(len(totals) - 1, 0, -1):
            totals[made["parent"][at]] += totals[at]
        for at, size in made["size"]:
            totals[at] = size
        assert totals == [each.bytes() for each in of.modules]


def test_deep_and_empty_traces_have_a_page():
    for trace in (handmade.deep(), handmade.empty(), handmade_memory.hostile_outcome()):
        assert page(trace).startswith("<!doctype html>")


# -- comparison ----------------------------------------------------------------------------------------


def test_traces_go_by_the_names_of_their_files():
    assert comparison.names_of(["a/x.json.gz", "b/x.json", "y.json"], 4) == ["x", "x 2", "y", "trace 4"]


def test_a_comparison_begins_its_loads_at_one_time():
    traces = [handmade.sharded(), handmade.lazy()]
    made = comparison.comparison_data(["a", "b"], traces)["timelines"]
    assert made[0]["loads"][0][0] == made[1]["loads"][0][0]
    said = text_of(page(*traces, paths=["a.json", "b.json"]))
    assert "Comparison of 2 traces" in said
    assert "baseline a" in said


def groups_of_runs():
    """Two groups of five runs, and one of a single run that failed."""
    slow = [handmade_compare.load(factor) for factor in handmade_compare.STEADY]
    fast = [handmade_compare.load(factor, instantiate_ms=200) for factor in handmade_compare.STEADY]
    return [*slow, *fast, handmade.killed()], [("slow", 5), ("fast", 5), ("dead", 1)]


def test_groups_have_the_figures_of_the_terminal():
    traces, groups = groups_of_runs()
    said = text_of(comparison.page(traces, (), groups))
    made = compare([("slow", traces[:5]), ("fast", traces[5:10]), ("dead", traces[10:])])
    assert "Comparison of 3 groups of runs" in said
    assert "slow 5 runs, fast 5 runs, dead 1 run; baseline slow" in said
    for metric in known_metrics(made):
        for variant in made.variants[:2]:
            assert figure_of(variant, metric) in said
    assert "±2 %" in said
    judged = made.differences[0].judgements["returned_ns"]
    assert judged.verdict == "better"
    assert ratio_of(judged, True) in said
    assert "0 of 1" in said
    assert "dead: in no figure 1 run that failed" in said
    data = comparison.comparison_data(["slow"], [made.baseline.typical])
    assert data["timelines"][0]["loads"]


def of_variant(trace, name):
    """Returns a trace that says whose run it is, as compare's own do."""
    return dataclasses.replace(trace, header=Facts({**trace.header, "variant": {"name": name, "round": 1}}))


def test_traces_of_a_comparison_are_of_their_variants():
    plain, _ = groups_of_runs()
    traces = [of_variant(trace, "slow" if at < 5 else "fast") for at, trace in enumerate(plain[:10])]
    found = [(name, len(runs)) for name, runs in comparison.by_header(traces)]
    assert found == [("slow", 5), ("fast", 5)]
    assert "Comparison of 2 groups of runs" in text_of(comparison.page(traces, ()))
    # One that is of none, or one variant alone: each trace is compared with each.
    assert comparison.by_header([*traces, plain[10]]) == []
    assert comparison.by_header(traces[:5]) == []
    assert comparison.by_header([of_variant(plain[0], ["no", "name"]), *traces]) == []


def test_one_group_is_no_comparison():
    traces, _ = groups_of_runs()
    with pytest.raises(UsageError, match="needs two groups"):
        comparison.page(traces[:5], (), [("slow", 5)])
