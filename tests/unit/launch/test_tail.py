"""One reader of a growing journal, and what the live view makes of its lines."""

from __future__ import annotations

import json

import pytest

from hftrace.launch import tail as tail_module
from hftrace.launch.progress import JournalFollower
from hftrace.launch.tail import JournalTail, last_line
from hftrace.schema import journal, lines
from hftrace.schema.encoding import to_line

EDGE = lines.Edge(1, 2, 3, 4, None, 5)


@pytest.fixture
def write(tmp_path):
    """Appends to the journal of a process."""

    def append(*what, pid=1):
        with open(journal.journal_path(tmp_path, pid, 0), "a") as handle:
            for item in what:
                text = item if isinstance(item, str) else json.dumps(to_line(item)) + "\n"
                handle.write(text)

    return append


def begin(span, phase="weights", **attributes):
    return lines.Begin(span, None, phase, f"name {span}", None, 1, 5, EDGE, attributes)


def end(span):
    return lines.End(span, 9, EDGE, "ok", {})


def placed(*names):
    return lines.Events(journal.PLACES, 1, [item for name in names for item in (name, 5, 6)])


def test_every_line_is_handed_on_once_to_all(tmp_path, write):
    tail, seen, also = JournalTail(tmp_path), [], []
    tail.listen(seen.append)
    assert not tail.poll(), "there is no journal yet"
    write('["a",1]\n["b",2]\n["c"')
    assert tail.poll()
    assert seen == [b'["a",1]', b'["b",2]']
    tail.listen(also.append)
    write(",3]\n")
    write('["d"]\n', pid=2)
    assert tail.poll()
    assert sorted(also) == [b'["c",3]', b'["d"]']
    assert len(seen) == 4
    assert not tail.poll()


def test_a_long_journal_is_read_in_pieces_and_a_long_line_whole(tmp_path, write, monkeypatch):
    monkeypatch.setattr(tail_module, "MAX_READ_BYTES", 10)
    tail, seen = JournalTail(tmp_path), []
    tail.listen(seen.append)
    long = json.dumps(["x" * 95])
    write('["a"]\n["b"]\n["c"]\n' + long + "\n")
    assert tail.poll()
    assert seen == [b'["a"]'], "no more than it may read"
    tail.catch_up()
    assert seen == [b'["a"]', b'["b"]', b'["c"]', long.encode()]


def test_the_last_whole_line(tmp_path):
    path = tmp_path / "samples"
    assert last_line(path) is None
    path.write_text("half")
    assert last_line(path) is None
    path.write_text("x" * 2000 + "\n[1]\n[2]\nhalf")
    assert last_line(path) == b"[2]"


@pytest.mark.parametrize(
    "damaged",
    [
        '["begin",1]\n',
        '["begin",[],null,"p","n",null,1,5,[1,2,3,4,null],{}]\n',
        '["begin",1,null,"p","n",null,1,5,[1,2,3,4,null],7]\n',
        '["places",1,7]\n',
        '["places"]\n',
        '["end",9,1,null,"ok",{}]\n',
        "[[[[\n",
        "\n",
        '["unheard of",1]\n',
    ],
)
def test_a_damaged_line_does_not_end_the_view(tmp_path, write, damaged):
    follower = JournalFollower(tmp_path, JournalTail(tmp_path))
    write(damaged, begin(5, "tie"))
    assert follower.poll().first.phase == "tie"
