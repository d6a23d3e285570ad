"""Findings about imports: what nothing needed, and what has to be compiled each time."""

from __future__ import annotations

from collections.abc import Iterator

from hftrace import units
from hftrace.analysis.findings.rules import WORTH_NS, Finding, Fix, rule
from hftrace.analysis.time.import_switches import switch_words
from hftrace.analysis.time.imports import asker, bytecode
from hftrace.analysis.time.optional_imports import OptionalPackage, optional_packages
from hftrace.analysis.time.session import session_wall_ns
from hftrace.schema.trace import Trace
from hftrace.units import duration

LEAST_NS = 250_000_000
LEAST_SHARE = 0.1
"""What nothing needed is worth a finding where it took so long, and so much of the session."""
LEAST_OF_ONE = 0.02
"""A package is named where it took so much of the session."""
MOST_NAMED = 4
WARNED_NS, WARNED_SHARE = 500_000_000, 0.2
"""And a warning where it is as much as that."""
COMPILED_NS = 200_000_000
"""Compiling the same modules in each process is worth a finding where it took so long."""


def costly_optional_packages(trace: Trace) -> list[OptionalPackage]:
    """Returns the packages that nothing needed, where they took a share of the session that counts."""
    wall = session_wall_ns(trace)
    found = [each for each in optional_packages(trace) if each.spared_ns >= LEAST_OF_ONE * wall][:MOST_NAMED]
    cost = sum(each.spared_ns for each in found)
    return found if cost >= LEAST_NS and cost >= LEAST_SHARE * wall else []


@rule(
    ("R54", "unneeded-imports", "Packages were imported only because they are installed."),
    concerns="time",
    severity="info",
    of_session=True,
)
def unneeded_imports(trace: Trace) -> Iterator[Finding]:
    """R54: packages were imported only because they are installed."""
    packages = costly_optional_packages(trace)
    if not packages:
        return
    cost = sum(each.spared_ns for each in packages)
    names = ", ".join(each.package for each in packages)
    variables = {found.name: found.value for each in packages if (found := each.variable)}
    is_are, it_they = ("is", "it is") if len(packages) == 1 else ("are", "they are")
    said = [
        f"{each.package} took {duration(each.spared_ns)}"
        + (f" with {', '.join(each.brings[:3])}" if each.brings else "")
        + f": {asker(each.guarded)} imports it under {each.guarded.guard}."
        for each in packages
    ]
    yield Finding(
        "R54",
        "unneeded-imports",
        f"{names} {is_are} imported only because {it_they} installed",
        f"{' '.join(said)} Nothing that this load needs requires {'it' if len(packages) == 1 else 'them'}.",
        f"If your program does not need {'it' if len(packages) == 1 else 'them'}: {switch_words(packages)}.",
        cost_ns=cost,
        view="imports",
        severity="warning" if cost >= max(WARNED_NS, WARNED_SHARE * session_wall_ns(trace)) else "",
        fix=Fix(environment=variables) if variables else None,
        numbers={"spared_ns": cost, "session_ns": session_wall_ns(trace), "packages": len(packages)},
    )


@rule(
    ("R55", "no-bytecode", "Modules are compiled anew in each process, because no bytecode is kept."),
    concerns="time",
    severity="info",
    of_session=True,
)
def no_bytecode(trace: Trace) -> Iterator[Finding]:
    """R55: modules are compiled anew in each process, because no bytecode is kept."""
    found = bytecode(trace)
    if found is None or found.unwritten_ns < COMPILED_NS:
        return
    folder = found.folder or "the folder of their sources"
    fix = None
    if found.switched_off:
        fix = Fix(environment={"PYTHONDONTWRITEBYTECODE": ""})
        reason = "PYTHONDONTWRITEBYTECODE is set, or Python was started with -B."
        advice = (
            "Unset PYTHONDONTWRITEBYTECODE and leave -B out, or compile once: python -m compileall on the "
            "folder of the packages."
        )
    elif found.writable is False:
        reason = f"It cannot be written to {folder}."
        advice = "Let PYTHONPYCACHEPREFIX name a folder that can be written to and that is kept."
    else:
        reason = f"Why there is none in {folder} is not known."
        advice = "Compile once: python -m compileall on the folder of the packages."
    yield Finding(
        "R55",
        "no-bytecode",
        f"{units.count(found.unwritten, 'module')} are compiled anew in each process"
        if found.unwritten != 1
        else "A module is compiled anew in each process",
        f"Compiling took {duration(found.unwritten_ns)}, and no bytecode of it was kept. {reason}",
        advice,
        cost_ns=found.unwritten_ns,
        view="imports",
        severity="warning" if found.unwritten_ns >= WORTH_NS else "",
        fix=fix,
        numbers={"compile_ns": found.unwritten_ns, "modules": found.unwritten},
    )
