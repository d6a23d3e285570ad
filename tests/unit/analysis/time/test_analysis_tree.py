"""The folded tree: nothing gets lost on the way to the screen."""

import json

import pytest

import handmade
from handmade import MS, Builder
from hftrace.analysis.time.tree import TreeOptions, build
from hftrace.analysis.time.tree_node import to_json, walk
from hftrace.render.views import load as view
from hftrace.render.views.options import ViewOptions

EVERY = {**handmade.ALL, "hostile": handmade.hostile, "deep": handmade.deep, "empty": handmade.empty}
OPTIONS = [
    TreeOptions(),
    TreeOptions(depth=None, min_ns=0),
    TreeOptions(depth=1),
    TreeOptions(depth=2, min_ns=10**9),
    TreeOptions(everything=True),
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", EVERY)
def test_every_span_stands_in_exactly_one_line(name, options):
    trace = EVERY[name]()
    ids = [identity for _, node in walk(build(trace, options)) for identity in node.spans]
    assert sorted(ids) == sorted(trace.spans.column("id"))


def lines(trace, **options):
    return [(depth, node.kind, node.label) for depth, node in walk(build(trace, TreeOptions(**options)))]


def test_repeated_siblings_and_what_is_below_them_fold():
    made = Builder()
    root = made.span(None, "load", "A", 0, 100)
    for number in range(10):
        tie = made.span(root, "tie", f"layer {number}", number * 10, number * 10 + 8, "tie_weights")
        made.span(tie, "convert", "inner", number * 10 + 1, number * 10 + 3, "inner")
    (top,) = build(made.trace())
    (tie,) = top.children
    assert (tie.count, tie.duration_ns, tie.name) == (10, 80 * handmade.MS, "layer …")
    assert [child.count for child in tie.children] == [10]


def test_collections_fold_and_leave_the_packages_of_an_import():
    made = Builder()
    root = made.span(None, "load", "A", 0, 100)
    weights = made.span(root, "weights", "w", 0, 50, "_load_pretrained_model")
    for number in range(5):
        noted = {"automatic": False, "collected": number}
        made.span(weights, "collect", "gc.collect", 10 * number, 10 * number + 9, attributes=noted)
    loaded = made.span(root, "import", "import a", 60, 90, attributes={"packages": [["a", 30_000_000]]})
    noted = {"automatic": True, "collected": 3}
    made.span(loaded, "collect", "garbage collection", 61, 80, attributes=noted)
    (load,) = build(made.trace())
    (folded,) = load.children[0].children
    assert (folded.label, folded.count, folded.duration_ns) == ("gc.collect", 5, 45_000_000)
    assert folded.attributes == {"automatic": False, "collected": 10}
    assert [node.kind for node in load.children[1].children] == ["packages", "span"]


def test_shards_never_fold():
    trace = handmade.generation_a()
    shards = [node for _, node in walk(build(trace)) if node.phase == "shard"]
    assert [node.count for node in shards] == [1, 1, 1]
    assert all(node.bytes and node.tensors for node in shards)


def test_shards_of_5x_hang_below_weights_with_their_rate():
    nodes = [node for _, node in walk(build(handmade.sharded())) if node.kind == "shard"]
    assert len(nodes) == 3
    assert all(8e8 < node.rate_bytes_per_s < 8.1e8 for node in nodes)
    assert [node.attributes["reading"] for node in nodes] == ["read"] * 3


def test_many_shards_say_how_to_see_the_rest():
    nodes = [node for _, node in walk(build(handmade.sharded(shards=30))) if node.kind == "hidden"]
    assert [(node.label, node.count, node.hint) for node in nodes] == [("more shards", 22, "--view tree")]
    everything = build(handmade.sharded(shards=30), TreeOptions(everything=True))
    assert len([node for _, node in walk(everything) if node.kind == "shard"]) == 30


def test_waiting_and_misses_have_their_lines():
    kinds = {kind: label for _, kind, label in lines(handmade.sharded())}
    assert kinds["wait"] == "waiting"
    assert kinds["file"] == "model.safetensors"


def test_each_load_waits_for_its_own_readers():
    """Two loads, one after the other, with two readers and one: neither has those of both."""
    made = Builder()
    for begin, readers in ((0, (8, 9)), (1000 * MS, (7,))):
        root = made.span(None, "load", "A", begin, begin + 100 * MS)
        weights = made.span(root, "weights", "w", begin, begin + 100 * MS)
        for thread in readers:
            made.tensor(
                f"t{thread}",
                [4],
                file=f"f{thread}",
                span=weights,
                thread=thread,
                read_start_ns=begin,
                read_end_ns=begin + 30 * MS,
                convert_start_ns=begin + 10 * MS,
                convert_end_ns=begin + 40 * MS,
            )
    options = TreeOptions(depth=None, min_ns=0)
    waits = [
        node.attributes["threads"] for _, node in walk(build(made.trace(), options)) if node.kind == "wait"
    ]
    assert waits == [2, 1]


def test_trouble_is_never_hidden():
    shown = lines(handmade.failing(), depth=1, min_ns=10**12)
    assert [label for _, kind, label in shown if kind == "file"] == [
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    ]


def test_who_asks_for_less_of_a_tree_gets_no_misses():
    def drawn(**options):
        blocks = view("tree").draw(handmade.sharded(), ViewOptions(**options))
        return "\n".join("".join(part for part, _ in line) for block in blocks for line in block.lines(80))

    assert "missing" in drawn()
    for options in ({"depth": 1}, {"min_ns": 10**9}, {"depth": 1, "min_ns": 10**9}):
        text = drawn(**options)
        assert "missing" not in text
        assert "shorter call" in text or "deeper call" in text
    # However little was asked for, what failed is there.
    failed = build(handmade.failing(), TreeOptions(depth=1, min_ns=10**12, misses=False))
    assert [node.status for _, node in walk(failed) if node.kind == "span"].count("error") > 1


def test_a_filter_keeps_what_leads_to_a_match():
    shown = lines(handmade.sharded(), matches=lambda text: "tie_weights" in text, min_ns=0)
    assert [label for _, kind, label in shown if kind == "span"] == [
        "AutoModelForCausalLM.from_pretrained",
        "LlamaForCausalLM.from_pretrained",
        "PreTrainedModel.tie_weights",
    ]


@pytest.mark.parametrize("name", handmade.ALL)
def test_json_of_a_tree_is_json(name):
    roots = build(handmade.ALL[name]())
    again = json.loads("".join(to_json(roots)))
    count, stack = 0, list(again)
    while stack:
        node = stack.pop()
        count += 1
        stack.extend(node["children"])
    assert count == len(list(walk(roots)))


def test_json_of_a_deep_tree_does_not_overflow():
    text = "".join(to_json(build(handmade.deep(), TreeOptions(depth=None, min_ns=0))))
    assert text.count('"kind"') == 3001
    assert text.count("[") == text.count("]")
