"""The lines of what happens once per tensor: written, read back, and read as older versions wrote them."""

import json
from pathlib import Path

import pytest

from hftrace.replay.trace import replay
from hftrace.schema import events, journal

OLD = Path(__file__).resolve().parents[2] / "data" / "journal-1.jsonl"
TIME = 3_173_706_036_411

ROWS = {
    journal.READS: [140_115_245_843_600, TIME, TIME + 9, 7, TIME + 1, TIME + 2],
    journal.CONVERTS: ["a.weight", 0, TIME, TIME + 1, "b.weight", 0, TIME, TIME + 2],
    journal.PLACES: ["a.weight", TIME, TIME + 1, "b.weight", TIME + 2, TIME + 3],
    journal.MODULES: ["", TIME, TIME + 1],
    journal.MOVES: ["a.weight", "cuda:0", TIME, TIME + 1, "b.weight", "cpu", TIME, TIME + 1],
    journal.INITIALIZES: [TIME, TIME + 1],
    journal.COLLECTIONS: [12, 1, TIME, TIME + 1],
    journal.UNPACKS: ["token_embd.weight", "model.embed.weight", TIME, TIME + 1],
}


def written(kind, rows, owner=4711):
    text = events.encode(kind, owner, list(rows))
    assert b"\n" not in text
    assert text.isascii()
    line = json.loads(text)
    assert line[:2] == [kind, owner]
    return line


@pytest.mark.parametrize("kind", ROWS)
def test_what_is_written_is_read_back(kind):
    line = written(kind, ROWS[kind])
    assert not isinstance(line[2], list), "packed"
    assert events.decode(line) == ROWS[kind]
    assert events.count(line) == len(ROWS[kind]) // events.FIELDS[kind].width


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 1000])
def test_any_number_of_rows_is_counted(kind, count):
    row = ROWS[kind][: events.FIELDS[kind].width]
    line = written(kind, row * count)
    assert events.count(line) == count
    assert events.decode(line) == row * count


def test_some_tensors_have_another_name_in_the_checkpoint():
    rows = ["a", 0, TIME, TIME, "b", "old.b", TIME, TIME, "c", 0, TIME, TIME]
    line = written(journal.CONVERTS, rows)
    assert not isinstance(line[2], list), "packed"
    assert events.decode(line) == rows


@pytest.mark.parametrize(
    "name", ["a,b", 'a"b', "a\\b", "a\nb", "a\x00b", "a\x7fb", "schön", "\ud800", None, 7, ["a", "b"]]
)
def test_a_name_that_does_not_fit_is_written_in_plain_json(name):
    rows = ["first", TIME, TIME, name, TIME, TIME]
    line = written(journal.PLACES, rows)
    assert isinstance(line[2], list)
    assert events.decode(line) == rows
    assert events.count(line) == 2


def test_several_sources_are_written_in_plain_json():
    rows = ["a", [["a.0", "a.1"], ["Concatenate"]], TIME, TIME, "b", 0, TIME, TIME]
    assert events.decode(written(journal.CONVERTS, rows)) == rows


@pytest.mark.parametrize("number", [1 << 63, -1 << 80, 1.5, "3"])
def test_a_number_that_does_not_fit_is_written_in_plain_json(number):
    rows = ["a", TIME, number]
    assert events.decode(written(journal.PLACES, rows)) == rows


@pytest.mark.parametrize("number", [0, -1, (1 << 63) - 1, -1 << 63])
def test_every_integer_of_64_bits_fits(number):
    line = written(journal.PLACES, ["a", TIME, number])
    assert not isinstance(line[2], list)
    assert events.decode(line) == ["a", TIME, number]


@pytest.mark.parametrize("names", [["a.weight", "b.weight"], ["a,b", "c"]])
def test_columns_go_where_the_older_encoding_has_them(names):
    slices = json.loads(events.encode_columns(journal.SLICES, 3, [names], [[11, 12]]))
    assert events.decode(slices) == [11, names[0], 12, names[1]]
    assert events.count(slices) == 2
    tensors = json.loads(events.encode_columns(journal.TENSORS, 3, [names], [[0, 2], [5, 6], [11, 12]]))
    assert events.decode(tensors) == [names[0], 0, 5, 11, names[1], 2, 6, 12]
    assert events.count(tensors) == 2


@pytest.mark.parametrize(
    "line",
    [
        [journal.PLACES, 1, "a,b", "AAAA"],
        [journal.PLACES, 1, "a,b", written(journal.PLACES, ["a", 1, 2])[-1]],
        [journal.PLACES, 1, 7, written(journal.PLACES, ["a", 1, 2])[-1]],
        [journal.PLACES, 1, "a", None],
        [journal.PLACES, 1, "a", "no base64"],
        [journal.PLACES, 1, "a", "a", "a", written(journal.PLACES, ["a", 1, 2])[-1]],
        [journal.PLACES, 1, written(journal.PLACES, ["a", 1, 2])[-1]],
        [journal.READS, 1, None],
        [journal.CONVERTS, 1, []],
    ],
)
def test_of_a_damaged_line_nothing_is_read(line):
    assert events.decode(line) == []


def test_only_whole_rows_are_read():
    assert events.decode([journal.PLACES, 1, ["a", 1, 2, "b", 3]]) == ["a", 1, 2]


def test_a_journal_of_version_1_is_read():
    found = {}
    for line in journal.lines(OLD):
        if line[0] in events.FIELDS:
            found.setdefault(line[0], []).extend(events.decode(line))
            # Were it written today, it would be read as the same.
            rows = events.decode(line)
            if events.FIELDS[line[0]].names_first and rows:
                assert events.decode(written(line[0], rows, line[1])) == rows
    assert set(found) == set(events.FIELDS) - {journal.UNPACKS}, "which came with 0.3"
    assert len(found[journal.SLICES]) == 12 * 2
    assert found[journal.SLICES][1::2] == sorted(found[journal.SLICES][1::2])
    assert found[journal.TENSORS][:3] == ["model.embed_tokens.weight", 0, 0]
    assert len(found[journal.TENSORS]) == 14 * 4
    assert set(found[journal.READS][0::3]) == set(found[journal.SLICES][0::2])
    assert found[journal.CONVERTS][0:2] == ["lm_head.weight", 0]
    assert found[journal.CONVERTS][-8:-6] == ["a.qkv", [["a.q", "a.k"], ["Concatenate"]]]
    assert found[journal.CONVERTS][-4:-2] == ["b.new", "b.old"]
    assert found[journal.PLACES][0 : 12 * 3 : 3] == found[journal.CONVERTS][0 : 12 * 4 : 4]


def test_a_journal_of_version_1_is_replayed(tmp_path):
    (tmp_path / f"{journal.JOURNAL_PREFIX}0-29321{journal.SUFFIX}").write_bytes(OLD.read_bytes())
    rows = {row.name: row for row in replay(tmp_path).tensors}
    row = rows["model.layers.0.mlp.down_proj.weight"]
    assert (row.shape, row.dtype) == ([32, 64], "float32")
    assert len(rows) == 14
