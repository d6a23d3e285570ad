"""What the facts about the ranks of a job have to be, where a trace has them."""

from __future__ import annotations

from hftrace.schema.shapes import AMOUNT, ANY, FLAG, INTEGER, TEXT, Shape

OF_JOB: dict[str, Shape] = {
    "job": {
        **dict.fromkeys(("name", "address", "port", "key"), TEXT),
        **dict.fromkeys(("node", "local_rank", "local_ranks", "restart"), AMOUNT),
    },
    "machine": {"host": TEXT, "clock": TEXT, "wall_offset_ns": INTEGER},
    "argv": [TEXT],
    "pid_there": INTEGER,
}
"""Of a process: the job that it is a rank of, and where it ran. ``pid_there`` is its number on its machine,
where another machine of the job has a process of the same number."""

ENDING_OF_RANK: dict[str, Shape] = {
    **dict.fromkeys(("status", "signal", "killer", "died_in", "last_phase"), TEXT),
    **dict.fromkeys(("error", "message", "open_name", "open_phase"), TEXT),
    "rank": AMOUNT,
    "exit_code": INTEGER,
    "ended_ns": INTEGER,
    "recovered": FLAG,
}
"""How one rank ended; ``open_name`` and ``open_phase`` are of the span that it was in when the first one
failed."""

MERGED_FROM: dict[str, Shape] = {
    "files": AMOUNT,
    "clocks": TEXT,
    "machines": AMOUNT,
    "missing": [AMOUNT],
    "differences": [{"of": TEXT, "by_rank": {"*": ANY}}],
}
"""Of a trace that was put together from several: how many, by what their clocks were brought together
(``monotonic``, ``barrier``, ``wall``), ranks of which there is none, in what their environments differ."""
