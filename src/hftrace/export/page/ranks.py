"""The ranks of a job as a table of the page: what each holds, read and waited for."""

from __future__ import annotations

from hftrace.analysis.ranks.job import job_of
from hftrace.export.page.markup import Markup, remarks, section, table
from hftrace.render.text import clean
from hftrace.render.views.ranks import COLUMNS, rank_remarks, rank_rows
from hftrace.schema.trace import Trace


def ranks_section(trace: Trace) -> Markup | None:
    """Returns a row for each rank, and what is to be said of all; None for one process."""
    job = job_of(trace)
    if job is None:
        return None
    rows = rank_rows(job)
    used = [at for at in range(len(COLUMNS)) if any(row.cells[at] not in ("", "-") for row in rows)]
    return section(
        "ranks",
        "Ranks",
        table(
            [COLUMNS[at].title for at in used],
            [[clean(row.cells[at]) for at in used] for row in rows],
            [COLUMNS[at].right for at in used],
            caption="Each rank of the job",
        ),
        remarks([clean(said) for said in rank_remarks(trace, job)]),
        note=f"{len(job.ranks)} of {job.world_size}",
    )
