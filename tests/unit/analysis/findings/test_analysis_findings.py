"""Findings: there where they belong, and nowhere else."""

import ast
import re
from pathlib import Path

import pytest

import handmade
from handmade import MS, Builder
from hftrace.analysis.findings import registry
from hftrace.analysis.findings.registry import catalogue, findings
from hftrace.analysis.time.weights import checkpoint_bytes, reader_waiting_ns
from hftrace.schema.model import Facts
from hftrace.schema.trace import Trace


def names(trace):
    return [finding.name for finding in findings(trace)]


def with_facts(trace, **blocks):
    facts = {name: Facts({**getattr(trace, name), **values}) for name, values in blocks.items()}
    values = {name: getattr(trace, name) for name in Trace.__dataclass_fields__}
    return Trace(**{**values, **facts})


def test_a_healthy_load_has_none():
    assert names(handmade.healthy()) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sharded", ["waiting-for-readers", "dtype-widened"]),
        ("lazy", ["not-resident"]),
        ("killed", ["killed-at-limit", "waiting-for-readers", "dtype-widened"]),
        ("failing", []),
        ("pickled", ["missing-weights", "unused-keys", "pickle-checkpoint", "hub-requests"]),
        ("offloaded", ["waiting-for-readers", "offloaded-to-disk"]),
        (
            "generation_a",
            ["ignored-keyword", "init-then-overwrite", "dtype-widened", "lost-events", "hook-errors"],
        ),
        ("empty", []),
    ],
)
def test_what_is_found_and_in_which_order(name, expected):
    assert names(getattr(handmade, name)()) == expected


def test_costs():
    found = {finding.name: finding for finding in findings(handmade.sharded())}
    trace = handmade.sharded()
    assert found["dtype-widened"].cost_bytes == checkpoint_bytes(trace) - 3 * 8192
    assert found["waiting-for-readers"].cost_ns == reader_waiting_ns(trace)


def test_an_asked_dtype_is_named_only_if_it_is_the_reason():
    asked = with_facts(handmade.sharded(), request={"keywords": {"dtype": "torch.float32"}})
    ignored = with_facts(handmade.sharded(), request={"keywords": {"dtype": "bfloat16"}})
    evidence = [
        next(finding.evidence for finding in findings(trace) if finding.name == "dtype-widened")
        for trace in (asked, ignored)
    ]
    assert "as dtype=float32 asked" in evidence[0]
    assert "though dtype=bfloat16 was asked for" in evidence[1]


def test_models_on_meta_are_not_initialised_twice():
    trace = with_facts(handmade.generation_a(), request={"keywords": {"low_cpu_mem_usage": True}})
    assert "init-then-overwrite" not in names(trace)
    assert "init-then-overwrite" not in names(
        with_facts(handmade.generation_a(), environment={"generation": "C"})
    )


def test_imports_that_dominate_name_their_packages():
    made = Builder()
    root = made.span(None, "load", "A", 0, 2000)
    packages = [["transformers", 900 * MS], ["torch", 300 * MS]]
    made.span(root, "import", "x", 0, 1500, attributes={"packages": packages})
    (finding,) = findings(made.trace())
    assert finding.name == "imports-dominate"
    assert "transformers 900 ms, torch 300 ms" in finding.evidence
    assert finding.cost_ns == 1500 * MS


def collected(spans, generation="A", wall_ms=2000.0):
    """A load with garbage collections: ``(parent's function, phase, kind, ms, objects)`` of each."""
    made = Builder()
    made.environment["generation"] = generation
    root = made.span(None, "load", "LlamaForCausalLM", 0, wall_ms, "PreTrainedModel.from_pretrained")
    at = 0.0
    for function, phase, kind, ms, objects in spans:
        name = {"called": "gc.collect", "automatic": "garbage collection"}[kind]
        above = made.span(root, phase, function.rpartition(".")[2], at, at + ms + 1, function)
        noted = {"automatic": kind == "automatic", "collected": objects}
        made.span(above, "collect", name, at + 0.5, at + 0.5 + ms, attributes=noted)
        at += ms + 1
    return made.trace()


SHARD = ("PreTrainedModel._load_pretrained_model", "weights", "called", 180.0, 7)
IMPORT = ("_find_and_load", "import", "automatic", 110.0, 20)


def collections_of(trace):
    return next((finding for finding in findings(trace) if finding.name == "full-collections"), None)


def test_collections_after_every_shard():
    found = collections_of(collected([SHARD] * 9))
    assert (found.rule, found.cost_ns) == ("R09", 9 * 180 * MS)
    assert found.title == "Full garbage collections take 81 % of the load"
    assert found.evidence.startswith("9 calls of gc.collect in _load_pretrained_model, 180 ms each.")
    assert "63 objects" in found.evidence
    assert "upgrade" in found.advice
    assert "max_shard_size" in found.advice
    assert "gc.freeze()" in found.advice
    assert "gc.disable()" not in found.advice, "a call collects all the same"


def test_one_collection_is_no_several():
    found = collections_of(collected([("_load", "weights", "automatic", 450.0, 60)]))
    assert found.title.startswith("A full garbage collection takes ")
    assert found.evidence == (
        "1 collection that Python began by itself in _load, 450 ms. "
        "It walked all objects of the process and freed 60 objects."
    )


def test_collections_that_python_began():
    found = collections_of(collected([IMPORT] * 3, "D"))
    assert found.evidence.startswith("3 collections that Python began by itself in imports, 110 ms each.")
    assert "gc.disable() before the load and gc.enable() after" in found.advice
    assert "upgrade" not in found.advice


def test_collections_of_the_models_own_code_are_not_the_loaders():
    other = ("Model.__init__", "instantiate", "called", 400.0, 1)
    found = collections_of(collected([other, IMPORT, SHARD], "D"))
    assert "1 call of gc.collect in __init__, 400 ms;" in found.evidence
    assert "upgrade" not in found.advice
    many = [("Model.f" + str(number), "convert", "called", 100.0 + number, 0) for number in range(5)]
    assert "2 more elsewhere" in collections_of(collected(many, "D")).evidence


@pytest.mark.parametrize(
    "trace",
    [
        collected([IMPORT], wall_ms=3000),  # under 5 %
        collected([("f", "weights", "called", 45.0, 0)], wall_ms=100),  # under 50 ms
        collected([]),
    ],
)
def test_few_or_quick_collections_are_no_finding(trace):
    assert collections_of(trace) is None


def test_parameters_without_data():
    made = Builder()
    made.span(None, "load", "A", 0, 100)
    made.tensor("a", [4], device="meta", provenance="meta")
    assert names(made.trace()) == ["left-on-meta"]


def test_trouble_of_our_own_comes_last_and_costs_nothing():
    own = [finding for finding in findings(handmade.generation_a()) if finding.internal]
    assert own == findings(handmade.generation_a())[-len(own) :]
    slow = with_facts(handmade.healthy(), header={"sampling": {"rate_asked_hz": 100, "rate_reached_hz": 12}})
    assert names(slow) == ["slow-sampling"]


KILLED = {"how": "killed", "signal": "SIGKILL", "time_ns": 2_000_000_000, "replaced_by": "supervisor"}


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (KILLED, "It was killed by SIGKILL 2.00 s into the session. The supervisor took its place"),
        ({"how": "silent"}, "It stood still. There are no readings after it"),
        ({"how": "exited", "exit_code": 1}, "It exited with 1."),
        ({"how": "not-started", "reason": "No room"}, "It could not be started (No room)."),
        ({"how": ["?"], "time_ns": "soon"}, "It ended."),
    ],
)
def test_a_sampler_that_ended(ended, said):
    trace = with_facts(handmade.healthy(), header={"sampling": {"ended": [ended]}})
    (found,) = [each for each in findings(trace) if each.rule == "H05"]
    assert said in found.evidence


@pytest.mark.parametrize("ended", [None, [], ["killed"], 3])
def test_no_sampler_that_ended(ended):
    trace = with_facts(handmade.healthy(), header={"sampling": {"ended": ended}})
    assert names(trace) == names(handmade.healthy())


LOADER = {"traced_as": "D", "versions": "5.x", "default_dtype": "auto", "always_meta": True}
GONE = "transformers.core_model_loading:set_param_for_module"


def of_the_loader(trace):
    (found,) = [finding for finding in findings(trace) if finding.rule == "H04"]
    assert found.internal
    return found


@pytest.mark.parametrize("missing", [[], [GONE]])
def test_a_loader_that_fits_no_generation(missing):
    hooks = {"found": 31, "missing": missing, "stand_ins": {}}
    trace = with_facts(
        handmade.healthy(),
        environment={"generation": "unrecognised", "loader": LOADER, "hooks": hooks},
    )
    found = of_the_loader(trace)
    assert found.title == "hftrace does not know this loader"
    assert "it was traced as D (5.x), the newest" in found.evidence
    assert (f"Not there: {GONE}." in found.evidence) == bool(missing)


def test_hook_points_that_are_missing_are_named():
    other = "transformers.core_model_loading:_read"
    hooks = {"found": 31, "missing": [GONE, "x:y"], "stand_ins": {GONE: other}}
    found = of_the_loader(with_facts(handmade.healthy(), environment={"hooks": hooks}))
    assert found.title == "2 hook points are missing"
    assert found.evidence == (
        f"Not there: {GONE} (traced in its place, as it takes the same parameters: {other}), x:y."
    )


def test_rules_go_by_the_facts_that_a_trace_states():
    """A trace of a generation that this reader has never heard of."""
    new = {"generation": "K", "loader": {**LOADER, "traced_as": "K", "always_meta": False}}
    trace = with_facts(handmade.generation_a(), environment=new)
    assert "init-then-overwrite" in names(trace)
    meta = with_facts(trace, environment={"loader": {**LOADER, "always_meta": True}})
    assert "init-then-overwrite" not in names(meta)
    unknown = with_facts(trace, environment={"loader": None})
    assert "init-then-overwrite" not in names(unknown)


@pytest.mark.parametrize("junk", [None, 3, "text", [], {}, [1], [[1, 2, 3]], {"a": "b"}, True])
def test_facts_of_a_wrong_shape_do_no_harm(junk):
    trace = with_facts(
        handmade.killed(),
        header={"lost": junk, "errors": junk, "sampling": junk, "threads": junk},
        request={"ignored": junk, "keywords": junk},
        outcome={"memory_at_death_bytes": junk, "limit_bytes": junk},
        environment={"generation": junk, "cgroup_limit_bytes": junk, "loader": junk, "hooks": junk},
    )
    assert isinstance(findings(trace), list)
    inside = {"loader": dict.fromkeys(LOADER, junk), "hooks": {"missing": junk, "stand_ins": junk}}
    assert isinstance(findings(with_facts(handmade.killed(), environment=inside)), list)
    unknown = with_facts(handmade.killed(), environment={"generation": "unrecognised", **inside})
    assert of_the_loader(unknown).evidence.startswith("The loader of transformers 5.23.0 fits none")


def test_every_rule_says_in_its_docstring_what_it_is_about():
    assert all(rule.__doc__ for rule in registry.rules())
    for name in handmade.ALL:
        for finding in findings(handmade.ALL[name]()):
            assert finding.evidence.endswith((".", "'shape'"))
            assert finding.advice.endswith(".")
            assert len(finding.title) <= 60


def test_pickle_files_that_were_mapped_are_no_finding():
    made = Builder()
    root = made.span(None, "load", "A", 0, 100)
    weights = made.span(root, "weights", "w", 0, 100)
    memory = {"rss_anon_start_bytes": 10**8, "rss_anon_bytes": 10**8 + 5000}
    made.span(weights, "shard", "load_state_dict", 0, 50, attributes={"file": "a.bin"}, **memory)
    made.file("a.bin", size=10**9, shard=0, format="pickle")
    assert names(made.trace()) == []


@pytest.mark.parametrize(
    ("other", "title"),
    [
        ("pickle", "The checkpoint is in pickle files"),
        ("safetensors", "1 weight file of 2 in pickle"),
    ],
)
def test_pickle_files_are_told_from_the_others(other, title):
    """A base in safetensors and an adapter that is pickled: the checkpoint is not."""
    made = Builder()
    root = made.span(None, "load", "A", 0, 100)
    weights = made.span(root, "weights", "w", 0, 100)
    memory = {"rss_anon_start_bytes": 10**8, "rss_anon_bytes": 2 * 10**9}
    made.span(weights, "shard", "load_state_dict", 0, 50, attributes={"file": "a.bin"}, **memory)
    made.file("a.bin", size=10**9, shard=0, format="pickle")
    made.file("b", size=10**9, shard=1, format=other)
    (found,) = (each for each in findings(made.trace()) if each.rule == "R08")
    assert found.title == title


FOLDER = Path(registry.__file__).parent


def test_every_module_with_rules_is_listed():
    with_rules = {path.stem for path in FOLDER.glob("*.py") if "@rule(" in path.read_text("utf-8")}
    assert with_rules - {"registry"} == set(registry.MODULES)


def test_the_catalogue_has_every_finding_that_the_code_names():
    kinds = {(kind.id, kind.name) for kind in catalogue()}
    assert len(kinds) == len(catalogue()) >= 19
    named = set()
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding":
                values = [getattr(each, "value", None) for each in node.args[:2]]
                if all(isinstance(value, str) for value in values):
                    named.add(tuple(values))
    assert len(named) >= 15
    assert named <= kinds
    assert all(kind.meaning.endswith(".") and "\n" not in kind.meaning for kind in catalogue())


@pytest.mark.parametrize("name", handmade.ALL)
def test_what_is_found_is_in_the_catalogue(name):
    kinds = {(kind.id, kind.name) for kind in catalogue()}
    assert {(finding.rule, finding.name) for finding in findings(handmade.ALL[name]())} <= kinds


def test_the_documentation_lists_the_catalogue():
    table = (Path(__file__).parents[4] / "docs" / "findings.md").read_text("utf-8")
    for kind in catalogue():
        assert re.search(rf"^\| {kind.id} \|[^|]*`{kind.name}`[^|]*\| {kind.severity} \|", table, re.M), kind


def test_keys_that_do_not_make_up_one_parameter_are_told_by_it():
    made = Builder()
    load = made.span(None, "load", "A", 0, 1)
    for expert in range(3):
        shape = [3, 8, 4] if expert == 0 else [8, 4]
        made.tensor(
            "experts.up",
            shape,
            keys=[f"experts.{expert}.up.weight"],
            provenance=None,
            evidence="mismatched",
            stored_shape=[8, 4],
            load=load,
        )
    said = {finding.name: finding for finding in findings(made.trace())}["mismatched-shapes"]
    assert said.title == "3 checkpoint keys that do not make up the model's parameters"
    assert "experts.up [3, 8, 4] in the model, which 3 keys of the file do not make up" in said.evidence
    assert "[8, 4]" not in said.evidence
    assert "ignore_mismatched_sizes" not in said.advice
