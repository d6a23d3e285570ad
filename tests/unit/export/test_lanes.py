"""Slices on tracks: what nests, what is cut, and what goes elsewhere."""

import itertools
import random

import handmade
from hftrace.export import lanes
from hftrace.export.lanes import Slice, pack, read_tracks, span_tracks


def tracks_of(*spans):
    """Tracks of spans ``(parent, start, end)``, in ns."""
    made = handmade.Builder()
    for parent, start, end in spans:
        made.span(parent, "load", "x", start / handmade.MS, end / handmade.MS)
    return span_tracks(made.trace())


def test_spans_of_a_thread_nest():
    (tracks,) = tracks_of((None, 0, 100), (1, 0, 40), (2, 10, 40), (1, 40, 100), (None, 100, 120))
    assert tracks.own == [
        Slice(0, 0, 100, 0),
        Slice(1, 0, 40, 1),
        Slice(2, 10, 40, 2),
        Slice(3, 40, 100, 1),
        Slice(4, 100, 120, 0),
    ]
    assert (tracks.crossing, tracks.cut, tracks.cut_ns) == ([], 0, 0)


def test_a_clock_that_was_read_late_is_cut_and_counted():
    (tracks,) = tracks_of((None, 0, 10_000), (1, 100, 10_001), (2, 200, 10_002), (None, 9_500, 20_000))
    assert tracks.own == [
        Slice(0, 0, 10_000, 0),
        Slice(1, 100, 10_000, 1),
        Slice(2, 200, 10_000, 2),
        Slice(3, 10_000, 20_000, 0),
    ]
    assert (tracks.crossing, tracks.cut, tracks.cut_ns) == ([], 3, 503)


def test_what_truly_crosses_keeps_its_times_and_what_lies_in_it():
    (tracks,) = tracks_of((None, 0, 10_000), (1, 0, 5_000), (1, 2_000, 90_000), (3, 3_000, 80_000))
    assert [each.row for each in tracks.own] == [0, 1]
    assert tracks.crossing == [[Slice(2, 2_000, 90_000, 0), Slice(3, 3_000, 80_000, 1)]]
    assert tracks.cut == 0


def test_what_lies_deeper_than_viewers_keep_begins_anew(monkeypatch):
    monkeypatch.setattr(lanes, "MOST_LEVELS", 3)
    (tracks,) = span_tracks_of_chain(8)
    assert [each.row for each in tracks.own] == [0, 1, 2]
    assert [[each.row for each in track] for track in tracks.crossing] == [[3, 4, 5], [6, 7]]
    assert {each.level for track in tracks.crossing for each in track} == {0, 1, 2}


def span_tracks_of_chain(length):
    return tracks_of(*((place or None, place, 100 - place) for place in range(length)))


def test_any_spans_are_all_there_once_and_nest():
    draw = random.Random(7)
    for _ in range(200):
        spans = []
        for number in range(draw.randint(1, 30)):
            start = draw.randint(0, 5_000)
            parent = draw.choice([None, *range(1, number + 1)])
            spans.append((parent, start, start + draw.choice([0, 1, 700, 2_000, 9_000])))
        (tracks,) = tracks_of(*spans)
        placed = [each for track in (tracks.own, *tracks.crossing) for each in track]
        assert sorted(each.row for each in placed) == list(range(len(spans)))
        short = 0
        for each in placed:
            _, start, end = spans[each.row]
            assert start <= each.start_ns <= each.end_ns <= end
            cut = (end - start) - (each.end_ns - each.start_ns)
            assert cut <= lanes.SLACK_NS
            short += cut
        assert tracks.cut_ns == short
        for track in (tracks.own, *tracks.crossing):
            open_slices = []
            for each in track:
                del open_slices[each.level :]
                assert len(open_slices) == each.level
                if open_slices:
                    above = open_slices[-1]
                    assert above.start_ns <= each.start_ns
                    assert each.end_ns <= above.end_ns
                open_slices.append(each)
            for level in range(len(spans)):
                ends = [(each.start_ns, each.end_ns) for each in track if each.level == level]
                assert all(first[1] <= second[0] for first, second in itertools.pairwise(ends))


def test_packing_takes_as_few_tracks_as_overlap():
    assert pack([(0, 10, 1), (5, 15, 2), (10, 20, 3), (15, 16, 4), (15, 17, 5)]) == [
        [(0, 10, 1), (10, 20, 3)],
        [(5, 15, 2), (15, 16, 4)],
        [(15, 17, 5)],
    ]
    assert pack([]) == []


def test_reads_are_by_thread_and_rank():
    made = handmade.Builder()
    for name, thread, rank, start, end in (
        ("a", 1, 0, 0, 5),
        ("b", 2, 0, 0, 7),
        ("c", 1, 0, 4, 9),
        ("d", None, 0, 0, 9),
        ("e", 1, 1, 0, 2),
    ):
        made.tensor(name, [1], thread=thread, rank=rank, read_start_ns=start, read_end_ns=end)
    made.tensor("not read", [1])
    span = made.span(None, "load", "child", 0, 1, pid=99)
    made.tensor("in a child", [1], thread=1, span=span, read_start_ns=1, read_end_ns=2)
    tracks = read_tracks(made.trace())
    assert [(each.pid, each.own) for each in tracks if each.pid is not None] == [(99, [(1, 2, 6)])]
    found = {(each.rank, each.thread): (each.own, each.crossing) for each in tracks if each.pid is None}
    assert found == {
        (0, 1): ([(0, 5, 0)], [[(4, 9, 2)]]),
        (0, 2): ([(0, 7, 1)], []),
        (0, None): ([(0, 9, 3)], []),
        (1, 1): ([(0, 2, 4)], []),
    }
