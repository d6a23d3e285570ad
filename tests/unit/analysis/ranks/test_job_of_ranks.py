"""What is said of the ranks of a job: parts, bytes read, waiting, the slowest one, and what is found."""

from __future__ import annotations

import dataclasses

import pytest

from hftrace.analysis.findings.registry import findings
from hftrace.analysis.ranks.job import job_of
from hftrace.analysis.time.imports import collections_ns, import_rows, imports_ns
from hftrace.analysis.time.timeline import timeline
from hftrace.analysis.time.tree import build
from hftrace.export.page.single import page
from hftrace.render.ranks import endings_words, of_some_ranks, ranks_words, slowest_words
from hftrace.render.views import files as files_view
from hftrace.render.views import imports as imports_view
from hftrace.render.views import ranks as ranks_view
from hftrace.render.views import timeline as timeline_view
from hftrace.render.views import tree as tree_view
from hftrace.render.views.options import ViewOptions
from hftrace.schema.model import Facts, File, Import, Sample, Span, Table, Tensor
from hftrace.schema.trace import Trace

MB, MS = 10**6, 10**6
WHOLE = 1000 * MB


def span(identity, parent, rank, phase, start, end, **columns):
    values = {"function": None, "source": None, "status": "ok", "attributes": {}, "thread": 1}
    return Span(
        identity, parent, phase, f"{phase} {identity}", start_ns=start * MS, end_ns=end * MS,
        pid=100 + rank, rank=rank, **{**values, **columns},
    )  # fmt: skip


def tensor(rank, name, size, whole=None, device="cpu"):
    shape = [size // 2]
    known = dict.fromkeys(field.name for field in dataclasses.fields(Tensor))
    return Tensor(
        **{
            **known,
            "name": name,
            "kind": "parameter",
            "provenance": "checkpoint",
            "keys": [name],
            "rank": rank,
            "shape": shape,
            "global_shape": [whole // 2] if whole else None,
            "bytes": size,
            "device": device,
            "load": 10 * rank + 1,
            "dtype": "bfloat16",
            "stored_dtype": "bfloat16",
            "file": "model.safetensors",
            "stored_bytes": whole or size,
        }
    )


@pytest.fixture
def job():
    """Makes the trace of two ranks; each gives what its load read, what it grew by, what it holds."""

    def made(*ranks, keywords=None, variables=None, outcome=None, machines=("a", "a")):
        spans, tensors, files, samples = [], [], [], []
        for rank, facts in enumerate(ranks):
            first = 10 * rank + 1
            grown = facts.get("grown", 500 * MB)
            spans += [
                span(first, None, rank, "load", 0, facts.get("took", 1000),
                     rss_anon_start_bytes=10 * MB, rss_anon_bytes=10 * MB + grown,
                     rss_file_start_bytes=0, rss_file_bytes=facts.get("file", 0)),
                span(first + 1, first, rank, "mesh", 0, facts.get("mesh", 100)),
                span(first + 2, first, rank, "weights", facts.get("mesh", 100), facts.get("took", 1000) - 10,
                     storage_read_bytes=facts.get("read", 0)),
                span(first + 3, None, rank, "wait", facts.get("took", 1000), facts.get("until", 1000)),
            ]  # fmt: skip
            for name, size, whole in facts.get("tensors", [("w", 500 * MB, WHOLE)]):
                tensors.append(tensor(rank, name, size, whole, facts.get("device", "cpu")))
            known = dict.fromkeys(field.name for field in dataclasses.fields(File))
            files.append(
                File(**{**known, "name": "model.safetensors", "path": "/m/model.safetensors", "shard": 0,
                        "result": "local", "size_bytes": WHOLE, "asked_by": first, "rank": rank,
                        "touched_bytes": facts.get("touched")})
            )  # fmt: skip
            for time, size in facts.get("samples", []):
                samples.append(Sample(time * MS, size, 70 * MB, 0, *[None] * 6, pid=100 + rank))
        processes = [
            {"pid": 100 + rank, "rank": rank, "machine": {"clock": machines[rank]}}
            for rank in range(len(ranks))
        ]
        header = {"processes": processes, "world_size": len(ranks), "ranks": list(range(len(ranks)))}
        return Trace(
            header=Facts(header),
            environment=Facts({"variables": variables or {}}),
            request=Facts({"keywords": keywords or {}}),
            outcome=Facts(outcome or {"status": "ok"}),
            spans=Table.of(Span, spans),
            tensors=Table.of(Tensor, tensors),
            files=Table.of(File, files),
            samples=Table.of(Sample, samples),
        )

    return made


def found(trace, name):
    return [finding for finding in findings(trace) if finding.name == name]


TP = {"tp_plan": "auto"}


def test_a_healthy_job_is_quiet(job):
    trace = job({"read": WHOLE}, {"read": 0}, keywords=TP)
    facts = job_of(trace)
    assert [rank.held_bytes for rank in facts.ranks] == [500 * MB] * 2
    assert (facts.whole_bytes, facts.share_bytes) == (WHOLE, 500 * MB)
    assert facts.read_amplification == 1.0
    assert facts.slowest is None
    assert not found(trace, "full-copy-per-rank") + found(trace, "read-amplification")


def test_one_process_is_no_job(job):
    assert job_of(job({})) is None
    assert ranks_words(job({})) == ""


def test_what_was_not_seen_is_not_added_up(job):
    assert job_of(job({"read": WHOLE}, {"read": None})).read_amplification is None


def test_the_checkpoint_counts_once(job):
    assert job_of(job({}, {})).checkpoint_bytes == WHOLE


def test_memory_at_one_time_is_added_up_and_pages_of_files_are_not(job):
    # The two peaks are at different times: what both had at once is less than their sum.
    trace = job(
        {"grown": 0, "samples": [(1, 10 * MB), (10, 900 * MB), (20, 100 * MB)]},
        {"grown": 0, "samples": [(1, 10 * MB), (15, 50 * MB), (30, 800 * MB)]},
    )
    (machine,) = job_of(trace).machines
    assert machine.anonymous_peak_bytes == 950 * MB
    assert machine.file_largest_bytes == 70 * MB


def test_the_slowest_is_so_without_its_waiting_and_says_in_what(job):
    facts = job_of(job({"took": 1000, "mesh": 700}, {"took": 1000, "mesh": 100}))
    assert (facts.slowest.rank, facts.slowest.than, facts.slowest.by_ns) == (1, 0, 600 * MS)
    assert (facts.slowest.phase, facts.slowest.phase_by_ns) == ("weights", 600 * MS)
    assert [rank.mesh_ns for rank in facts.ranks] == [700 * MS, 100 * MS]
    waits = job_of(job({"took": 1000, "until": 1500}, {"took": 1490, "until": 1500})).ranks
    assert [rank.wait_ns for rank in waits] == [500 * MS, 10 * MS]


def test_a_whole_copy_on_each_rank_that_was_to_have_a_part(job):
    whole = {"grown": WHOLE, "tensors": [("w", WHOLE, None)]}
    (finding,) = found(job(whole, whole, keywords=TP), "full-copy-per-rank")
    assert finding.numbers["ranks"] == 2
    assert finding.numbers["over_bytes"] == WHOLE // 2
    assert finding.cost_bytes == WHOLE
    # Nobody asked for parts: data parallelism has a replica on each rank.
    assert not found(job(whole, whole), "full-copy-per-rank")
    # Pages of files are shared.
    mapped = {"grown": 0, "file": WHOLE, "tensors": [("w", WHOLE, None)]}
    assert not found(job(mapped, mapped, keywords=TP), "full-copy-per-rank")


def test_a_part_that_took_a_whole_copy_to_make(job):
    committed = {"grown": 900 * MB}
    (finding,) = found(job({}, committed, keywords=TP), "full-copy-per-rank")
    assert (finding.numbers["rank"], finding.numbers["committed_bytes"]) == (1, 900 * MB)


def test_what_a_plan_replicates_is_a_share(job):
    replicated = {"grown": 700 * MB, "tensors": [("w", 300 * MB, 600 * MB), ("embed", 400 * MB, None)]}
    assert not found(job(replicated, replicated, keywords=TP), "full-copy-per-rank")


def test_where_the_first_rank_loads_for_all(job):
    on = {"FSDP_CPU_RAM_EFFICIENT_LOADING": "1", "ACCELERATE_USE_FSDP": "true"}
    whole = {"grown": WHOLE, "tensors": [("w", WHOLE, None)]}
    empty = {"grown": 0, "tensors": [("w", WHOLE, None)]}
    assert not found(job(whole, empty, variables=on), "full-copy-per-rank")
    (finding,) = found(job(whole, whole, variables=on), "full-copy-per-rank")
    assert finding.numbers["ranks"] == 1
    assert "FSDP_CPU_RAM_EFFICIENT_LOADING=1" in finding.evidence


def test_bytes_that_came_more_than_once(job):
    (finding,) = found(job({"read": WHOLE}, {"read": WHOLE}, machines=("a", "b")), "read-amplification")
    assert finding.numbers["amplification"] == 2.0
    assert finding.cost_bytes == WHOLE
    assert not found(job({"read": WHOLE}, {"read": WHOLE // 3}), "read-amplification")


def test_a_machine_that_read_less_than_another(job):
    trace = job({"read": 700 * MB}, {"read": 300 * MB}, machines=("a", "b"))
    (finding,) = found(trace, "read-amplification")
    assert finding.numbers["spread"] == pytest.approx(0.571, abs=0.001)
    assert not found(job({"read": 700 * MB}, {"read": 300 * MB}), "read-amplification")


def test_the_words_of_an_ending(job):
    by_rank = [
        {"rank": 1, "status": "killed", "signal": "SIGKILL"},
        {"rank": 0, "status": "error", "error": "RuntimeError", "open_name": "barrier", "open_phase": "wait"},
    ]
    trace = job({}, {}, outcome={"status": "killed", "by_rank": by_rank})
    assert endings_words(trace) == (
        "rank 1 was killed by SIGKILL first; rank 0 waited in barrier then, and failed with RuntimeError"
    )
    assert endings_words(job({}, {}, outcome={"status": "ok", "by_rank": [{"status": "ok"}] * 2})) == ""


def test_ranks_that_were_in_the_same_are_told_together(job):
    waiting = {"status": "error", "error": "RuntimeError", "open_name": "barrier", "open_phase": "wait"}
    loading = {"status": "killed", "open_name": "convert", "open_phase": "convert"}
    others = [{"rank": rank, **(loading if rank in (3, 5) else waiting)} for rank in range(1, 8)]
    by_rank = [{"rank": 0, "status": "killed"}, *others, {"rank": 8, "status": "killed"}]
    trace = job({}, {}, outcome={"status": "killed", "by_rank": by_rank})
    assert endings_words(trace) == (
        "rank 0 was killed first; ranks 1, 2, 4, 6, 7 waited in barrier then, and failed with RuntimeError; "
        "ranks 3, 5 were in convert then, and were killed; rank 8 was in its own code then, and was killed"
    )


def test_who_was_cut_short_is_not_the_fastest(job):
    trace = job({"took": 1000}, {"took": 400})
    assert job_of(trace).slowest.rank == 0
    rows = [
        dataclasses.replace(row, status="killed") if row.rank == 1 and row.phase == "load" else row
        for row in trace.spans
    ]
    cut = dataclasses.replace(trace, spans=Table.of(Span, rows))
    assert job_of(cut).slowest is None
    assert [rank.cut for rank in job_of(cut).ranks] == [False, True]
    assert drawn(ranks_view, cut).splitlines()[3].split()[8] == "-"


def test_a_phase_in_which_the_slowest_lost_more_than_in_all(job):
    trace = job({"took": 1000, "mesh": 0}, {"took": 900, "mesh": 0})
    assert slowest_words(job_of(trace)) == "rank 0 is the slowest, by 100 ms, 100 ms of it in weights"
    found = job_of(trace)
    more = dataclasses.replace(found, slowest=dataclasses.replace(found.slowest, phase_by_ns=250 * MS))
    assert slowest_words(more) == "rank 0 is the slowest, by 100 ms, in weights by 250 ms"


def test_the_first_screen_has_the_calls_of_few_ranks(job):
    trace = job({}, {}, {"took": 2000}, {}, machines=("a",) * 4)
    assert job_of(trace).slowest.rank == 2
    blocks = tree_view.brief(trace, ViewOptions(), set())
    shown = "\n".join("".join(text for text, _ in line) for block in blocks for line in block.lines(80))
    assert [rank for rank in range(4) if f"rank {rank}" in shown] == [0, 2]
    assert "+ 2 more ranks: --view tree" in shown
    assert all(f"rank {rank}" in drawn(tree_view, trace) for rank in range(4))
    dead = job({}, {}, {}, {}, machines=("a",) * 4, outcome={"by_rank": [{"rank": 3, "status": "killed"}]})
    roots = of_some_ranks(dead, build(dead))
    assert {root.rank for root in roots if root.pid is not None} == {0, 3}
    assert of_some_ranks(job({}, {}), (two := build(job({}, {})))) is two


def test_facts_of_another_type_are_no_trouble(job):
    trace = job({}, {}, outcome={"status": "ok", "by_rank": [3, {"rank": "x", "status": 4}]})
    broken = dataclasses.replace(trace, header=Facts({"processes": 3, "merged": [], "world_size": 2}))
    assert len(job_of(broken).ranks) == 2
    assert ranks_words(broken)


def drawn(view, trace, width=80):
    blocks = view.draw(trace, ViewOptions())
    return "\n".join("".join(text for text, _ in line) for block in blocks for line in block.lines(width))


def test_what_a_rank_has_touched_is_of_each_file_what_its_last_load_says(job):
    trace = job({"touched": 400 * MB}, {})
    assert [rank.touched_bytes for rank in job_of(trace).ranks] == [400 * MB, None]
    again = dataclasses.replace(trace.files[0], touched_bytes=300 * MB, asked_by=2)
    other = dataclasses.replace(trace.files[0], path="/m/other.safetensors", touched_bytes=5 * MB)
    index = dataclasses.replace(trace.files[0], path="/m/config.json", shard=None, touched_bytes=None)
    files = Table.of(File, [*trace.files, again, other, index])
    assert job_of(dataclasses.replace(trace, files=files)).ranks[0].touched_bytes == 305 * MB
    assert "400 MB" in drawn(ranks_view, trace)


def test_how_ranks_ended_is_told_where_one_did_not_end_well(job):
    endings = [{"rank": 1, "status": "killed", "ended_ns": 5}, {"rank": 0, "status": "error", "ended_ns": 6}]
    well = {"status": "ok", "by_rank": [{**each, "status": "ok"} for each in endings]}
    assert "ended" not in drawn(ranks_view, job({}, {}, outcome=well))
    dead = drawn(ranks_view, job({}, {}, outcome={"status": "killed", "by_rank": endings}))
    assert "ended" in dead.splitlines()[1]
    assert [line.split()[-1] for line in dead.splitlines()[2:4]] == ["error", "killed"]


def test_imports_are_told_of_one_rank_whose_phases_are_told(job):
    trace = job({}, {})
    known = dict.fromkeys(field.name for field in dataclasses.fields(Import))
    rows = [
        Import(
            **{**known, "id": 1 + rank, "name": "torch", "package": "torch", "start_ns": 0, "end_ns": 10**9,
               "self_ns": 10**9 * (1 + rank), "collect_ns": 5, "modules": 9, "pid": 100 + rank, "span": 1,
               "where": "installed", "status": "ok"}
        )
        for rank in (0, 1)
    ]  # fmt: skip
    trace = dataclasses.replace(trace, imports=Table.of(Import, rows))
    assert [row.pid for row in import_rows(trace)] == [100]
    assert (imports_ns(trace), collections_ns(trace)) == (10**9 + 5, 5)
    shown = drawn(imports_view, trace)
    assert "rank 0: 9 modules" in shown
    assert shown.count("torch") == 2  # in the tree, and once among the modules
    one = trace.imports[1]
    alone = dataclasses.replace(job({}), imports=Table.of(Import, [one]))
    assert import_rows(alone) == [one]


def test_lanes_of_ranks_have_short_names(job):
    trace = job({}, {})
    threads = [{"thread": 1, "name": "MainThread"}, {"thread": 7, "name": "ThreadPoolExecutor-1_0"}]
    more = [dataclasses.replace(trace.spans[6], id=99, thread=7, parent=None)]
    trace = dataclasses.replace(
        trace,
        header=Facts({**trace.header, "threads": threads}),
        spans=Table.of(Span, [*trace.spans, *more]),
    )
    assert [lane.name for lane in timeline(trace).spans] == ["rank 0", "rank 1", "rank 1 pool-1_0"]
    assert "memory of rank 0" in drawn(timeline_view, trace)
    assert "memory peaks at the left" in drawn(timeline_view, job({}))


def test_files_say_of_which_rank_they_are(job):
    assert "rank" in drawn(files_view, job({}, {})).splitlines()[1]
    assert "rank" not in drawn(files_view, job({})).splitlines()[1]


def test_the_page_has_a_table_of_ranks(job):
    shown = page(job({"touched": 400 * MB}, {}), None)
    assert '<section id="ranks"' in shown
    assert "rank 1" in shown
    assert '<section id="ranks"' not in page(job({}), None)
