"""What is made of the lines of a load that still runs: phases, bytes of shards, tensors, memory, hosts."""

from __future__ import annotations

import json
import time

import pytest

from hftrace.analysis.live import LastTime, LiveLimit, remaining_seconds, seconds_to_return
from hftrace.launch.progress import JournalFollower, limit_of
from hftrace.launch.tail import JournalTail
from hftrace.schema import journal, lines
from hftrace.schema.encoding import to_line

EDGE = lines.Edge(100, 20, 0, 120, None, 0)
MS = 1_000_000
SIZES = {"a.safetensors": {"m.one": 400, "m.two": 600}, "b.safetensors": {"m.three": 1000}}


class Run:
    """A run's directory, whose journals this test writes."""

    def __init__(self, path, tensors=True):
        self.path = path
        self.follower = JournalFollower(path, JournalTail(path), tensors=tensors)

    def write(self, *what, pid=1, rank=0):
        with open(journal.journal_path(self.path, pid, rank), "a") as handle:
            handle.writelines(json.dumps(to_line(line)) + "\n" for line in what)

    def sample(self, anonymous, file, pid=1, storage=0):
        path = journal.samples_path(self.path, pid)
        with open(path, "a") as handle:
            handle.write(json.dumps(["sample", 1, anonymous, file, 0, 0, storage, 0]) + "\n")

    def poll(self):
        return self.follower.poll()


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def begin(span, phase, at, parent=None, hook=None, thread=1, name=None, **attributes):
    return lines.Begin(span, parent, phase, name or f"name {span}", hook, thread, at * MS, EDGE, attributes)


def end(span, at, status="ok"):
    return lines.End(span, at * MS, EDGE, status, {})


def placed(*names, at=0):
    items = [item for name in names for item in (name, at * MS, at * MS + 5)]
    return lines.Events(journal.PLACES, 1, items)


def read(*slices, at=0):
    return lines.Events(
        journal.READS, 2, [item for each in slices for item in (each, at * MS, (at + 1) * MS)]
    )


def modules(*prefixes, at=0):
    items = [item for prefix in prefixes for item in (prefix, at * MS, (at + 1) * MS)]
    return lines.Events(journal.MODULES, 1, items)


@pytest.fixture
def checkpoint(tmp_path):
    """Writes the files of a checkpoint by hand, and returns the line that names them."""
    paths = []
    for name, sizes in SIZES.items():
        header, at = {}, 0
        for key, size in sizes.items():
            header[key] = {"dtype": "U8", "shape": [size], "data_offsets": [at, at + size]}
            at += size
        text = json.dumps(header).encode()
        path = tmp_path / name
        path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(at))
        paths.append(str(path))
    identities = [lines.Identity(5000, 1), lines.Identity(5000, 1)]
    return lines.Checkpoint(1, paths, [1.0, 1.0], identities)


def test_a_load_before_anything_is_known(run):
    state = run.poll()
    assert (state.first.phase, state.first.name, state.first.shards) == ("start", "Python", [])
    assert (state.first.memory, state.first.tensors_total) == (None, None)
    assert not run.follower.is_loading


def test_each_phase_has_the_time_that_it_took_by_itself(run):
    hook = lines.Hook(7, "t", "f", "s", "weights", "instantiate", "finalize")
    run.write(hook, begin(1, "import", 0), end(1, 100))
    run.write(begin(2, "load", 150, hook=7), begin(3, "config", 150, 2), begin(4, "import", 160, 3))
    run.write(begin(90, "shard", 161, 4, thread=2), end(90, 169), end(4, 170), end(3, 180))
    run.write(begin(5, "weights", 230, 2, hook=7), end(5, 330), end(2, 345))
    process = run.poll().first
    # Of the load itself: 50 ms before the call whose hook says what they are, 15 ms after the last one.
    assert process.phases == {
        "import": 110 * MS,
        "config": 20 * MS,
        "instantiate": 50 * MS,
        "weights": 100 * MS,
        "finalize": 15 * MS,
    }
    assert (process.phase, process.name, process.loads) == ("after", "the load", 1)


def test_the_open_phase_goes_on(run):
    run.write(begin(1, "load", 0), begin(2, "weights", 0, 1))
    process = run.poll().first
    assert process.phases_now(70 * MS)["weights"] == 70 * MS
    assert run.follower.is_loading


def test_bytes_by_shard_where_lazy_tensors_are_read(run, checkpoint):
    run.write(begin(1, "load", 0), checkpoint, begin(2, "weights", 10, 1, tensors=3))
    process = run.poll().first
    assert [(shard.name, shard.size, shard.done) for shard in process.shards] == [
        ("a.safetensors", 1000, 0),
        ("b.safetensors", 1000, 0),
    ], "of the tensors, and not of the file with its header"
    run.write(lines.Slices(2, [11, "m.one", 12, "m.two", 13, "m.three"]), read(11, at=20), read(13, at=22))
    run.write(placed("m.one"), placed("m.one"))
    process = run.poll().first
    assert [(shard.done, shard.finished) for shard in process.shards] == [(400, False), (1000, True)]
    assert (process.bytes_done, process.bytes_total) == (1400, 2000)
    assert (process.shards[0].start_ns, process.shards[0].end_ns) == (20 * MS, 21 * MS)
    assert (process.tensors_done, process.tensors_total) == (1, 3), "put into the model, each once"


@pytest.mark.parametrize(
    "header", [b"", b"\xff" * 20, b"[1]", b'{"k": 1}', b'{"k": {"data_offsets": ["a", {}]}}']
)
def test_a_file_that_is_damaged_has_no_tensors_yet(run, checkpoint, header):
    with open(checkpoint.paths[0], "wb") as handle:
        handle.write(len(header).to_bytes(8, "little") + header)
    run.write(begin(1, "load", 0), checkpoint, begin(2, "weights", 10, 1))
    process = run.poll().first
    assert [(shard.size, shard.done) for shard in process.shards] == [(5000, 0), (1000, 0)]
    assert process.tensors_total is None, "how many there are is not known"


def test_bytes_by_shard_where_tensors_are_placed_one_by_one(run, checkpoint):
    run.write(begin(1, "load", 0), checkpoint, begin(2, "weights", 10, 1))
    run.write(begin(3, "shard", 11, 2, file="a.safetensors"), placed("m.one", "elsewhere", at=12))
    process = run.poll().first
    assert [shard.done for shard in process.shards] == [400, 0]
    assert process.tensors_total == 3, "as many as the files have"
    run.write(end(3, 30))
    shard = run.poll().first.shards[0]
    assert (shard.done, shard.finished, shard.end_ns) == (1000, True, 30 * MS), "the loader is done with it"


def test_bytes_by_shard_where_modules_copy_a_state_dict(run, checkpoint):
    run.write(begin(1, "load", 0), checkpoint, begin(2, "weights", 10, 1))
    run.write(begin(3, "shard", 11, 2, file="b.safetensors"), modules("", "m.", at=12))
    process = run.poll().first
    assert [shard.done for shard in process.shards] == [0, 1000], "the other file is not open"
    assert process.tensors_done == 1


def test_a_pickle_says_itself_what_is_in_it(run, tmp_path):
    path = str(tmp_path / "pytorch_model.bin")
    run.write(begin(1, "load", 0), lines.Checkpoint(1, [path], [None], [lines.Identity(999, 1)]))
    run.write(begin(2, "weights", 1, 1), begin(3, "shard", 1, 2, file="pytorch_model.bin"))
    assert run.poll().first.shards[0].size == 999
    run.write(lines.Keys(3, path, ["k", "float32", [10], 40]), placed("k"))
    assert (run.poll().first.shards[0].size, run.follower.state.first.bytes_done) == (40, 40)


def test_a_second_load_begins_anew(run, checkpoint):
    run.write(begin(1, "load", 0), checkpoint, begin(2, "weights", 10, 1, tensors=3), placed("m.one"))
    run.write(end(2, 20), end(1, 21), begin(5, "load", 30))
    process = run.poll().first
    assert (process.tensors_done, process.tensors_total, process.shards) == (0, None, [])


def test_bytes_move_where_memory_grows_and_not_where_they_are_mapped(run, checkpoint):
    run.write(begin(1, "load", 0), checkpoint, begin(2, "weights", 10, 1))
    run.write(lines.Slices(2, [11, "m.one", 12, "m.two"]))
    run.sample(5000, 100)
    run.poll()
    run.write(read(11, 12, at=20))
    run.sample(5010, 110)
    assert not run.poll().first.moved, "nothing was touched: a rate would be one of nothing"
    run.sample(5010, 700)
    run.poll()
    run.sample(5010, 100)
    assert run.poll().first.moved, "what was let go of meanwhile has moved all the same"


def test_what_is_left_is_said_by_the_bytes_of_the_weights_alone(run, checkpoint):
    run.write(begin(1, "load", 0), checkpoint, begin(2, "weights", 1000, 1))
    run.write(lines.Slices(2, [11, "m.one", 13, "m.three"]))
    process = run.poll().first
    assert remaining_seconds(process, 9000 * MS) is None, "nothing was read yet"
    run.write(read(13, at=1100))
    process = run.poll().first
    assert remaining_seconds(process, 1500 * MS) is None, "too early to say"
    assert remaining_seconds(process, 5000 * MS) == pytest.approx(4.0)
    run.write(end(2, 6000))
    assert remaining_seconds(run.poll().first, 7000 * MS) is None, "the weights are over"


def test_what_is_left_by_the_last_time(run, checkpoint):
    run.write(begin(1, "load", 0), checkpoint)
    state = run.poll()
    state.started = time.monotonic() - 4
    assert seconds_to_return(state, 4000 * MS) is None, "there was no last time"
    state.last_time = LastTime(10_000 * MS, 3000 * MS, None)
    assert seconds_to_return(state, 4000 * MS) == pytest.approx(6.0, abs=1.0)
    state.last_time = LastTime(2000 * MS, 1000 * MS, None)
    assert seconds_to_return(state, 4000 * MS) is None, "it has taken longer already"
    run.write(begin(2, "weights", 1000, 1), lines.Slices(2, [11, "m.one", 13, "m.three"]), read(13, at=1100))
    state = run.poll()
    # Weights at their pace now, and what followed them last time.
    assert seconds_to_return(state, 5000 * MS) == pytest.approx(4.0 + 1.0)
    run.write(end(2, 6000), end(1, 6100))
    assert seconds_to_return(run.poll(), 7000 * MS) is None, "it has returned"


def test_memory_is_of_the_last_whole_line(run):
    run.write(begin(1, "load", 0))
    run.sample(100, 20)
    with open(journal.samples_path(run.path, 1), "a") as handle:
        handle.write('["sample",2,200')
    memory = run.poll().first.memory
    assert (memory.anonymous, memory.file, memory.shared) == (100, 20, 0)


def test_devices_are_what_the_allocator_last_said(run):
    run.write(begin(1, "load", 0), lines.Device(5, {"cuda:0": lines.AllocatorReading(70, 90)}))
    assert run.poll().first.device_bytes == {"cuda:0": 70}


def test_a_host_that_is_waited_for(run):
    run.write(
        begin(1, "load", 0), begin(2, "download", 1, 1), begin(3, "resolve", 2, 2, host="h", request=True)
    )
    assert run.poll().first.waits_for == ["h"]
    run.write(end(3, 3))
    assert run.follower.poll().first.waits_for == ["h"], "the body is still to come"
    run.write(end(2, 4))
    assert run.poll().first.waits_for == []
    assert run.follower.waiting_for() == []


def test_processes_have_a_journal_each(run):
    run.write(begin(1, "load", 0), begin(2, "weights", 1, 1), pid=7, rank=1)
    run.write(begin(1, "load", 0), begin(2, "config", 1, 1), pid=5, rank=0)
    run.sample(33, 1, pid=7)
    state = run.poll()
    assert [(each.rank, each.pid, each.phase) for each in state.processes] == [
        (0, 5, "config"),
        (1, 7, "weights"),
    ]
    assert state.processes[1].memory.anonymous == 33


def test_phases_that_have_ended_are_kept_for_whoever_prints_them(run):
    run.write(begin(1, "import", 0), end(1, 100), begin(2, "load", 100), begin(3, "weights", 110, 2))
    run.write(begin(4, "convert", 111, 3), end(4, 112), end(3, 150), end(2, 160))
    ended = run.poll().ended
    assert [(each.phase, each.duration_ns, each.memory.anonymous) for each in ended] == [
        ("import", 100 * MS, 100),
        ("weights", 40 * MS, 100),
    ]


def test_the_watchdog_alone_needs_no_tensors(tmp_path, checkpoint):
    run = Run(tmp_path, tensors=False)
    run.write(begin(1, "load", 0), checkpoint, begin(2, "weights", 1, 1), placed("m.one"))
    process = run.poll().first
    assert (process.phase, process.tensors_done, process.bytes_done) == ("weights", 0, 0)


@pytest.mark.parametrize(
    ("asked", "limits", "found"),
    [
        (5, {"cgroup_bytes": 7, "ram_bytes": 9}, LiveLimit(5, "option")),
        (None, {"cgroup_bytes": 7, "ram_bytes": 9}, LiveLimit(7, "cgroup")),
        (None, {"cgroup_bytes": None, "ram_bytes": 9}, LiveLimit(9, "ram")),
        (None, {}, None),
    ],
)
def test_the_limit_that_is_met_first(asked, limits, found):
    assert limit_of(asked, limits) == found
