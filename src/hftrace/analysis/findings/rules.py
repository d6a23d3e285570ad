"""What a rule is, and the words that rules share.

A rule is a function marked with :func:`rule`, in one of the modules that the registry lists.
It gets a trace and yields findings; on a healthy load it yields none. Ids are H.. for what is
about hftrace itself, R.. for loads and K.. for what was asked of them; numbers such as R02 are
those of the project's catalogue of cases.
"""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, TypeAlias

from hftrace import units
from hftrace.analysis.ledger.tensors import Total, take, tensor_batches, tensor_sums
from hftrace.schema.trace import Trace

SEVERITIES = ("error", "warning", "info")
"""How much a finding matters, the worst first: the model is not what it should be, or the load failed; time
or memory that can be spared, or a doubt that a person must settle; and what is good to know of a load
that does nothing wrong."""
WORTH_BYTES = 100_000_000
WORTH_NS = 1_000_000_000
"""What costs less is good to know, and no warning: a load of a tiny model does nothing that matters."""
MOST_NAMED = 8
"""Of spans, tensors and files that a finding points at: a view has the rest."""


@dataclass(frozen=True)
class Fix:
    """What mends it, as ``tune`` and ``compare`` can apply it; valid for the versions in the trace."""

    keywords: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of ``from_pretrained``, with JSON values; a dtype goes by torch's name."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of the process, set before it starts."""


@dataclass(frozen=True)
class Where:
    """The rows of the trace that a finding is about, the first few of each."""

    spans: list[int] = field(default_factory=list)
    """By id."""
    tensors: list[str] = field(default_factory=list)
    """By name in the model; by key where they have none."""
    files: list[str] = field(default_factory=list)
    """By the name in the file ledger."""


@dataclass(frozen=True)
class Finding:
    """One diagnosis.

    ``cost_ns`` and ``cost_bytes`` are what the load would be spared, None
    where that is not known; ``internal`` is about hftrace itself.
    """

    rule: str
    name: str
    title: str
    evidence: str
    advice: str
    cost_ns: int | None = None
    cost_bytes: int | None = None
    internal: bool = False
    concerns: str = ""
    """What it is about, one of :data:`CONCERNS`; what its kind was registered with where it says nothing."""
    view: str = ""
    """What follows ``--view`` to see more of it; the view of what it concerns where it says nothing."""
    load: int | None = None
    """The span of the load that it is of; None for one of the whole session."""
    severity: str = ""
    """One of :data:`SEVERITIES`; what its kind was registered with where it says nothing."""
    fix: Fix | None = None
    """None where no one keyword or variable mends it."""
    numbers: Mapping[str, int | float | str | None] = field(default_factory=dict)
    """The evidence as figures, units in their names (``_ns``, ``_bytes``); counts and shares have none."""
    where: Where = field(default_factory=Where)

    def to_json(self) -> dict[str, Any]:
        """Returns the finding as plain JSON values."""
        return asdict(self)


class Concern(NamedTuple):
    """What findings can be about."""

    word: str
    """Stands before the finding wherever it is listed."""
    view: str
    """The view that shows more of it; empty where there is none."""


CONCERNS = {
    "ending": Concern("ended", "postmortem"),
    "asked": Concern("not got", "tensors"),
    "weights": Concern("wrong", "tensors"),
    "keyword": Concern("ignored", ""),
    "time": Concern("slow", "spans"),
    "memory": Concern("large", "memory"),
    "code": Concern("code", "files"),
    "other": Concern("note", "spans"),
    "recorder": Concern("hftrace", ""),
}
"""In the order in which findings are listed, but that time and memory are compared by their cost."""
WRONG = ("ending", "asked", "weights")
"""Concerns of what is wrong, and not only slow or large."""
COMPARED = ("time", "memory")
"""Concerns whose findings stand in one order, by cost."""


def listed_under(finding: Finding) -> str:
    """Returns the concern that a finding is listed under: what is no fault is not among what is wrong."""
    return (
        "other" if finding.severity == "info" and finding.concerns in WRONG else finding.concerns or "other"
    )


class FindingKind(NamedTuple):
    """A kind of finding, as the documentation lists it."""

    id: str
    name: str
    meaning: str
    """In one line."""
    concerns: str = "other"
    """One of :data:`CONCERNS`."""
    severity: str = "warning"
    """One of :data:`SEVERITIES`."""


Rule: TypeAlias = Callable[[Trace], Iterator[Finding]]
RULES: list[Rule] = []
OF_SESSION: set[Rule] = set()
"""Rules that look at the whole session at once; the others look at each of its loads for itself."""
AT_END: set[Rule] = set()
"""Rules that look at the tensors as they were seen last; the others see those that a load left."""
KINDS: list[FindingKind] = []
"""What the rules can find."""


def rule(
    *kinds: tuple[str, str, str] | tuple[str, str, str, str],
    concerns: str = "other",
    severity: str,
    of_session: bool = False,
    at_end: bool = False,
) -> Callable[[Rule], Rule]:
    """Registers a rule.

    Args:
        kinds: Id, name and meaning of each kind of finding that it can yield, and its severity where that is
            another than the rule's.
        concerns: What all of them are about, one of :data:`CONCERNS`.
        severity: How much they matter, one of :data:`SEVERITIES`, where a finding does not say otherwise.
        of_session: Whether it looks at the whole session at once. A rule is asked about each load for
            itself otherwise, and never sees what several of them add up to.
        at_end: Whether it looks at the tensors as they were seen last, and not as their load left them.
    """

    def register(function: Rule) -> Rule:
        KINDS.extend(FindingKind(*kind[:3], concerns, *(kind[3:] or (severity,))) for kind in kinds)
        RULES.append(function)
        if of_session:
            OF_SESSION.add(function)
        if at_end:
            AT_END.add(function)
        return function

    return register


def total_of(trace: Trace, *, without: Container[int] = (), **fields: str | None) -> Total:
    """Returns the sum of all tensors whose class has the values given.

    Args:
        trace: The trace.
        without: Rows of the ledger that do not count.
        **fields: What :class:`TensorClass` has to be.
    """
    total = Total()
    if not without:
        for tensor_class, part in tensor_sums(trace).items():
            if all(getattr(tensor_class, name) == value for name, value in fields.items()):
                total.add(part)
        return total
    sizes, stored = trace.tensors.column("bytes"), trace.tensors.column("stored_bytes")
    for batch in tensor_batches(trace):
        if all(getattr(batch.tensor_class, name) == value for name, value in fields.items()):
            for row in batch.rows:
                if row not in without:
                    total.add(Total(1, sizes[row] or 0, stored[row] or 0))
    return total


def worst_names(
    trace: Trace,
    kind: str,
    limit: int = 3,
    *,
    whole: bool = False,
    without: Container[int] = (),
    **fields: Any,
) -> str:
    """Names the parts of the model with most bytes: ``lm_head, score``.

    Args:
        trace: The trace.
        kind: Of the tensors.
        limit: How many to name.
        whole: Whether to name the tensors, and not the modules that have them.
        without: Rows of the ledger that do not count.
        **fields: What else their class has to be, as for :func:`total_of`; a tuple for one of several.
    """
    sizes: Counter[str] = Counter()
    members: dict[str, list[str]] = {}
    columns = [trace.tensors.column(name) for name in ("name", "keys", "bytes", "stored_bytes")]
    for batch in tensor_batches(trace):
        tensor_class = batch.tensor_class
        if tensor_class.kind == kind and all(
            getattr(tensor_class, field) in (value if isinstance(value, tuple) else (value,))
            for field, value in fields.items()
        ):
            rows = [row for row in batch.rows if row not in without] if without else batch.rows
            for name, keys, size, stored in zip(*(take(column, rows) for column in columns), strict=True):
                full = name or (keys[0] if keys else "(no name)")
                part = full if whole else full.rpartition(".")[0] or full
                sizes[part] += size or stored or 1
                members.setdefault(part, []).append(full)
    # A module is no name for the one tensor of it that is meant, unless that is its weight.
    worst = [
        members[name][0] if len(members[name]) == 1 and not members[name][0].endswith(".weight") else name
        for name, _ in sizes.most_common(limit)
    ]
    rest = len(sizes) - len(worst)
    what = "more" if whole else "more module"
    return ", ".join(worst) + (f" and {units.count(rest, what, what if whole else None)}" if rest > 0 else "")


def first_few(names: Iterable[str | None]) -> list[str]:
    """Returns the first few of some names, each once, for :class:`Where`."""
    return list(dict.fromkeys(name for name in names if name))[:MOST_NAMED]


def tensors_of(trace: Trace, kind: str, *, without: Container[int] = (), **fields: str | None) -> list[str]:
    """Names the first few tensors whose class has the values given, for :class:`Where`."""
    names, keys = trace.tensors.column("name"), trace.tensors.column("keys")
    rows = sorted(
        row
        for batch in tensor_batches(trace)
        if batch.tensor_class.kind == kind
        and all(getattr(batch.tensor_class, name) == value for name, value in fields.items())
        for row in batch.rows
        if row not in without
    )[:MOST_NAMED]
    return first_few(names[row] or (keys[row][0] if keys[row] else None) for row in rows)


def is_number(value: Any) -> bool:
    """Returns whether a value from a file is a number above 0."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
