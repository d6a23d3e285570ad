"""The modules of models, as attributes of the spans whose models they are."""

from __future__ import annotations

from hftrace.replay.reader import Process
from hftrace.schema import lines


def note_structures(process: Process) -> None:
    """Puts the modules of each model into its span: as its load left it, and as it was seen last.

    Args:
        process: What the process wrote; its spans are changed.
    """
    found = {line.span: line for line in process.lines_of(lines.Structure)}
    for span, line in found.items():
        if span in process.spans:
            process.spans[span].attributes["structure"] = structure_facts(line)
    for origins in process.lines_of(lines.Origins):
        looked = found.get(origins.look) if origins.look else None
        if looked is not None and origins.span in process.spans:
            process.spans[origins.span].attributes["structure_now"] = structure_facts(looked)


def structure_facts(line: lines.Structure) -> dict[str, object]:
    """Returns a line as facts of the trace."""
    return {"root": line.root, "nodes": line.nodes, "footprint_bytes": line.footprint_bytes}
