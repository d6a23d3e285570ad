"""``hftrace doctor``: says what hftrace finds and misses here."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from hftrace import units
from hftrace._version import __version__
from hftrace.cli.common.formats import Output, result_options
from hftrace.errors import EXIT_FAILED, EXIT_OK

if TYPE_CHECKING:
    from hftrace.render.text import Block, Line

PACKAGES = {"yaml": "pyyaml", "PIL": "pillow", "google": "protobuf", "sklearn": "scikit-learn"}
"""Modules whose package is called otherwise."""
UNRECOGNISED = "unrecognised"
COUNTERS = {
    "rss": ("resident memory of the process", "/proc/self/status cannot be read: no CPU memory figures"),
    "watermark_reset": (
        "exact peaks (clear_refs)",
        "/proc/self/clear_refs cannot be written: peaks come from samples",
    ),
    "io": ("bytes read from storage", "/proc/self/io cannot be read"),
    "page_cache": (
        "page cache residency (cachestat)",
        "cold and warm cannot be told apart: Linux 6.5 or later is needed",
    ),
    "pressure": ("memory pressure (PSI)", "/proc/pressure is not there"),
}


@click.command("doctor", context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--python",
    default=sys.executable,
    metavar="PATH",
    help="The interpreter to ask about.  [default: this one]",
)
@click.option("--all", "show_all", is_flag=True, help="List every hook point, the found ones too.")
@result_options(quiet="ok, or what is missing, one a line")
def command(python: str, show_all: bool, out: Output) -> int:
    """Say what hftrace finds and misses here: versions, hook points, devices, counters.

    Leaves with 1 if something is missing without which a load cannot be traced.
    """
    from hftrace.launch.variants.interpreters import inspect_python

    found = inspect_python(python)
    verdict = problems(found)
    out.result(
        facts=lambda: {"hftrace": __version__, **found, "essential": verdict},
        blocks=lambda: _blocks(report(found, show_all), verdict),
        quiet=lambda: verdict or "ok",
    )
    return EXIT_FAILED if verdict else EXIT_OK


def _blocks(lines: list[tuple[str | None, str]], verdict: list[str]) -> list[Block]:
    """Returns the report as views: a line that is too long goes on below itself."""
    from hftrace.render.text import Block

    essential: list[tuple[str | None, str]] = [("bold red", f"essential: {problem}") for problem in verdict]
    return [
        Block(lambda width, part=part: _wrapped(part, width), cropped=False)  # type: ignore[misc]
        for part in (lines, essential)
        if part
    ]


def _wrapped(lines: list[tuple[str | None, str]], width: int) -> Iterable[Line]:
    import textwrap

    from hftrace.render.text import PLAIN, clean

    for style, text in lines:
        text = clean(text)
        below = " " * (len(text) - len(text.lstrip()) + 2)
        parts = textwrap.wrap(text, width, subsequent_indent=below, break_on_hyphens=False) or [""]
        yield from ([(part, style or PLAIN)] for part in parts)


def problems(found: dict[str, Any]) -> list[str]:
    """Returns what makes tracing impossible, as sentences; empty where all is well."""
    result = [
        f"{name} cannot be imported ({why}): {_remedy(name, str(why))}"
        for name, why in found["problems"].items()
    ]
    missing = [row["target"] for row in found["hooks"] if row["status"] == "missing"]
    entry = [target for target in missing if target.endswith((".from_pretrained", "._load_pretrained_model"))]
    result += [
        f"hook point {target} is not there: this transformers is too new or too old" for target in entry
    ]
    if not found["counters"]["rss"] and sys.platform.startswith("linux"):
        result.append("/proc is not mounted: no memory can be read")
    return result


def _remedy(name: str, why: str) -> str:
    """Returns what to install where a module cannot be imported: packages, and never a module in one."""
    library = name.partition(".")[0]
    missing = re.search(r"No module named '(\w+)", why)
    if missing and missing[1] != library:
        return f"pip install {PACKAGES.get(missing[1], missing[1])}"
    if missing and name == library and f"'{library}'" in why:
        return f"pip install {library}"
    return f"pip check says what does not fit, and pip install --force-reinstall {library} mends it"


def report(found: dict[str, Any], show_all: bool) -> list[tuple[str | None, str]]:
    """Returns the lines of the report, each with its style."""
    lines: list[tuple[str | None, str]] = [("bold", f"hftrace {__version__} on Python {found['python']}")]
    lines.append((None, f"  {found['executable']}"))
    lines.append((None, ""))
    lines.append(("bold", "Libraries"))
    for name, version in found["versions"].items():
        if version is not None:
            lines.append((None, f"  ✓ {name:<18} {version}"))
        elif name in found["problems"]:
            lines.append(("red", f"  ✗ {name:<18} {found['problems'][name]}"))
        elif name in found["absent"]:
            lines.append(("dim", f"  - {name:<18} not installed"))
    generation = found["generation"]
    lines.append((None, ""))
    if generation:
        lines += _loader(generation, found["loader"])
        counts: dict[str, Counter[str]] = {}
        for row in found["hooks"]:
            counts.setdefault(row["library"], Counter())[row["status"]] += 1
        for library, counter in counts.items():
            expected = counter["found"] + counter["missing"]
            mark = "✗" if counter["missing"] else "✓" if counter["found"] else "-"
            style = "red" if counter["missing"] else None if counter["found"] else "dim"
            other = counter["not in this version"] + counter["builtin"]
            note = f", {other} not in this version" if other else ""
            lines.append(
                (style, f"  {mark} {library:<18} {counter['found']} of {expected} hook points found{note}")
            )
        for row in found["hooks"]:
            if row["status"] == "missing" or show_all:
                mark = {"found": "✓", "missing": "✗"}.get(row["status"], "-")
                style = {"found": None, "missing": "red"}.get(row["status"], "dim")
                lines.append((style, f"      {mark} {row['phase']:<17} {row['target']} ({row['status']})"))
                if "stand_in" in row:
                    lines.append((None, f"        traced in its place: {row['stand_in']}"))
        if not show_all:
            lines.append(("dim", "  --all lists every hook point"))
    else:
        lines.append(("red", "No loader generation: transformers.modeling_utils cannot be imported"))
    lines.append((None, ""))
    lines.append(("bold", "Counters"))
    for name, (label, otherwise) in COUNTERS.items():
        works = found["counters"].get(name)
        lines.append(
            (None if works else "yellow", f"  {'✓' if works else '✗'} {label if works else otherwise}")
        )
    lines.append((None, ""))
    lines.append(("bold", "Machine"))
    lines.append(
        (None, f"  memory {_memory(found['ram_bytes'])}, limit {_memory(found['cgroup_limit_bytes'])}")
    )
    if found["devices"]:
        lines += [
            (
                None,
                f"  {' '.join([device['device'], *filter(None, [device.get('name')])])}, "
                f"{_memory(device.get('memory_bytes'))}",
            )
            for device in found["devices"]
        ]
    else:
        lines.append(("dim", "  no accelerator that torch can use"))
    for name, value in found["variables"].items():
        lines.append((None, f"  {name}={value}"))
    return lines


def _loader(generation: str, loader: dict[str, Any]) -> list[tuple[str | None, str]]:
    """Returns the lines that say which loader generation is installed."""
    if generation != UNRECOGNISED:
        return [("bold", f"Loader generation {generation} (transformers {loader['versions']})")]
    return [
        (
            "bold yellow",
            "Loader unrecognised: this transformers fits none of the generations that hftrace knows",
        ),
        (
            "yellow",
            f"  traced as {loader['traced_as']} (transformers {loader['versions']}), the newest: "
            "what hook points that are missing would show stays unknown",
        ),
    ]


def _memory(value: int | None) -> str:
    return "none known" if value is None else units.byte_count(value)
