"""What ``hftrace doctor`` asks of an interpreter: versions, hook points, counters. Prints one JSON object.

Run through :mod:`hftrace.record.child.bootstrap`'s way of loading, in the
interpreter that is asked about.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import platform
import sys
from typing import Any

from hftrace.record import environment
from hftrace.record.hooks.generations import installed_loader, loader_facts
from hftrace.record.hooks.lookup import STAND_IN, find
from hftrace.record.hooks.tables import POINTS
from hftrace.record.hooks.tables.entry import AUTO_MODULE
from hftrace.system import limits
from hftrace.system.memory import HostMemory
from hftrace.system.page_cache import resident_share

ESSENTIAL = ("torch", "transformers", "safetensors")
SLOW = ("diffusers", "open_clip", "sentence_transformers", "timm")
"""Not imported to see its hook points: seconds, and several more libraries."""
OPTIONAL = ("accelerate", "huggingface_hub", "tokenizers", "peft", "bitsandbytes", "gguf")


def _import(name: str) -> str | None:
    """Imports a library; returns what went wrong, or None."""
    try:
        importlib.import_module(name)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
    return None


def _hook_points() -> list[dict[str, Any]]:
    loader = installed_loader()
    rows = []
    for point in POINTS:
        module = point.module
        if module not in sys.modules and point.library in SLOW:
            continue
        if module not in sys.modules and importlib.util.find_spec(module.partition(".")[0]) is not None:
            _import(module)
        found = find(point)
        if found.present:
            status = found.state
        else:
            status = "missing" if loader and loader.expects(point) else "not in this version"
        row = {"target": point.target, "library": point.library, "phase": point.phase, "status": status}
        if found.state == STAND_IN:
            row["stand_in"] = found.target
        rows.append(row)
    return rows


def _counters() -> dict[str, Any]:
    memory = HostMemory()
    reading = memory.read()
    memory.close()
    return {
        "rss": reading.rss_anon is not None,
        "watermark_reset": memory.exact,
        "io": os.access("/proc/self/io", os.R_OK),
        "page_cache": resident_share(os.path.abspath(__file__)) is not None,
        "pressure": os.access("/proc/pressure/memory", os.R_OK),
    }


def inspect_interpreter() -> dict[str, Any]:
    """Returns all that doctor shows about this interpreter."""
    problems = {name: problem for name in ESSENTIAL if (problem := _import(name)) is not None}
    absent = {name: problem for name in OPTIONAL if (problem := _import(name)) is not None}
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "executable": sys.executable,
        "problems": problems,
        "absent": absent,
        "hooks": [],
        "generation": None,
        "loader": None,
        "devices": [],
        "accelerator": None,
    }
    if not problems:
        problem = _import("transformers.modeling_utils")
        if problem is None:
            _import(AUTO_MODULE)
            found |= loader_facts()
            found["hooks"] = _hook_points()
        else:
            problems["transformers.modeling_utils"] = problem
        torch = sys.modules["torch"]
        found["accelerator"] = bool(torch.cuda.is_available())
        if found["accelerator"]:
            torch.cuda.init()
        found["devices"] = environment.devices()
    found["versions"] = environment.library_versions()
    found["counters"] = _counters()
    found["ram_bytes"] = limits.ram_bytes()
    found["cgroup_limit_bytes"] = limits.binding_cgroup_limit_bytes()
    found["variables"] = environment.relevant_variables()
    return found


def main() -> int:
    """Prints the findings on stdout, whatever the imports print elsewhere."""
    # Libraries may print while they are imported; the one line of JSON must stay alone.
    out = os.dup(1)
    os.dup2(2, 1)
    text = json.dumps(inspect_interpreter())
    os.write(out, text.encode() + b"\n")
    return 0
