"""``hftrace plan``: says what a load will take before it is done, and whether it fits."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from hftrace import units
from hftrace.cli.common.formats import Output, result_options
from hftrace.cli.common.model import ModelOptions, model_options
from hftrace.cli.common.values import parse_option
from hftrace.errors import EXIT_FAILED, EXIT_OK, UsageError

if TYPE_CHECKING:
    from hftrace.analysis.plan.plans import Limits
    from hftrace.launch.request import LoadSpec
    from hftrace.schema.trace import Trace


@click.command("plan", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model")
@model_options()
@click.option("--cpu", metavar="SIZE", help="Memory there is for the process, such as 16GB.")
@click.option("--gpu", metavar="SIZES", help="Memory of each device, such as 24GB,24GB; none need be here.")
@click.option("--context", type=click.IntRange(1), metavar="N", help="Add the cache for N tokens.")
@click.option("--batch", type=click.IntRange(1), metavar="N", help="Sequences in the cache.  [default: 1]")
@click.option("--against", metavar="TRACE", help="Show what a trace of the load has measured beside it.")
@click.option(
    "--python", default=sys.executable, metavar="PATH", help="Plan for its libraries.  [default: this one]"
)
@result_options(quiet="the verdict in one line")
def command(
    model: str,
    chosen: ModelOptions,
    cpu: str | None,
    gpu: str | None,
    context: int | None,
    batch: int | None,
    against: str | None,
    python: str,
    out: Output,
) -> int:
    """Say what a load of MODEL will take, from its config and the headers of its files.

    The installed loader runs, and no weight is read: what it would allocate is added up. --cpu and --gpu are
    limits; where a device map places the weights, they are its max_memory. Leaves with 1 where the load does
    not fit, or no plan can be made of it.
    """
    if batch is not None and context is None:
        raise UsageError("--batch is of the cache, which --context asks for")
    from hftrace.analysis.plan.plans import Limits, plan_facts, shortage
    from hftrace.launch.planning import plan_load

    trace = None if against is None else _trace(against)
    gpus = (
        [parse_option("--gpu", units.parse_size, part.strip()) for part in gpu.split(",")]
        if gpu is not None
        else []
    )
    given = parse_option("--cpu", units.parse_size, cpu) if cpu is not None else None
    chosen.check(model)
    asked = chosen.spec(model)
    gpus = gpus or _devices_of(asked.keywords.get("max_memory"))
    limits = Limits(*_memory(given), gpus)
    spec = _with_limits(asked, given, limits)
    options = {"gpus": gpus, "context": context, "batch": batch or 1}
    plan = plan_facts(plan_load(spec, python, options), limits)
    plan["short_bytes"] = shortage(plan["needs"], limits)
    plan["change"] = _change(plan, spec, python, options, limits) if plan["fits"] is False else None
    if trace is not None:
        from hftrace.analysis.plan.against import against as beside
        from hftrace.analysis.plan.against import differences

        names = [name for name in (spec.asked, spec.model) if name is not None]
        differing = differences(plan, names, spec.keywords, trace)
        plan["against"] = beside(plan, trace)
        plan["against_differs"] = [each._asdict() for each in differing]
    from hftrace.render.plan import plan_block, verdict_words

    out.result(
        facts=lambda: {"model": model, **plan},
        blocks=lambda: [plan_block(plan, model)],
        quiet=lambda: verdict_words(plan),
    )
    return EXIT_FAILED if plan["fits"] is False or not plan["known"] else EXIT_OK


def _trace(path: str) -> Trace:
    """Returns the trace that a plan is held against.

    Raises:
        HftraceError: It cannot be read, or no load in it has succeeded.
    """
    from hftrace.analysis.plan.against import check_trace
    from hftrace.schema.trace import Trace

    trace = Trace.open(path)
    check_trace(trace, path)
    return trace


def _memory(given: int | None) -> tuple[int | None, str]:
    """Returns the memory that a process may take here, and what says so."""
    from hftrace.system import limits

    if given is not None:
        return given, "--cpu"
    group = limits.binding_cgroup_limit_bytes()
    return (group, "the control group") if group is not None else (limits.ram_bytes(), "this machine")


def _devices_of(max_memory: Any) -> list[int]:
    """Returns the sizes of the devices that a ``max_memory`` names: they are as good as ``--gpu``.

    Raises:
        UsageError: A size that is none, or devices that are not numbered from 0.
    """
    if not isinstance(max_memory, Mapping):
        return []
    sizes = {int(str(name)): size for name, size in max_memory.items() if str(name).isdecimal()}
    if sorted(sizes) != list(range(len(sizes))):
        named = ", ".join(map(str, sorted(sizes)))
        raise UsageError(
            f"--max-memory names the devices {named}: begin with 0, and give 0 to one without use"
        )
    return [
        size if type(size) is int else parse_option("--max-memory", units.parse_size, str(size))
        for _, size in sorted(sizes.items())
    ]


def _with_limits(spec: LoadSpec, cpu: int | None, limits: Limits) -> LoadSpec:
    """Returns what to load with the limits as a device map's, where there is one."""
    keywords = dict(spec.keywords)
    if limits.device_bytes:
        keywords.setdefault("device_map", "auto")
    if "device_map" not in keywords or "max_memory" in keywords or not (limits.device_bytes or cpu):
        return replace(spec, keywords=keywords)
    if isinstance(keywords["device_map"], str) and keywords["device_map"] in ("auto", "balanced"):
        memory: dict[str, Any] = {str(index): size for index, size in enumerate(limits.device_bytes)}
        if limits.cpu_bytes is not None:
            memory["cpu"] = limits.cpu_bytes
        keywords["max_memory"] = memory
        keywords.setdefault("offload_folder", "offload")
    return replace(spec, keywords=keywords)


def _change(
    plan: Mapping[str, Any], spec: LoadSpec, python: str, options: Mapping[str, Any], limits: Limits
) -> dict[str, Any] | None:
    """Returns the smallest change that makes a load fit, as another plan has shown; None where none does."""
    from hftrace.analysis.plan.changes import changes
    from hftrace.analysis.plan.plans import plan_facts
    from hftrace.errors import HftraceError
    from hftrace.launch.planning import plan_load

    for change in changes(plan, spec.keywords, limits):
        keywords = {name: value for name, value in spec.keywords.items() if name != "torch_dtype"}
        changed = replace(spec, keywords={**keywords, **change.keywords})
        try:
            found = plan_facts(plan_load(changed, python, options), limits)
        except HftraceError:
            continue  # this version cannot do that
        if found["fits"]:
            return {
                "keywords": dict(change.keywords),
                "words": change.words,
                "changes_results": change.computes,
                "needs": found["needs"],
                "needs_at_most": found["needs_at_most"],
                "bytes_by_device": found["bytes_by_device"],
            }
    return None
