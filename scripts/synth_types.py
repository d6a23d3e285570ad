"""Writes a small checkpoint of each model type that the installed transformers knows, and loads it.

    python scripts/synth_types.py [--most N] [--only TYPE ...] [--size 2MB] [-o results.json]

Prints one line for each type that does not load whole: why it cannot be built or written, or which keys are
missing, unexpected or of another shape. All in one process, because each one would import for seconds.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from hftrace.errors import HftraceError
from hftrace.record.child.blueprint import BlueprintError, blueprint
from hftrace.synth.blueprints import plan_blueprint
from hftrace.synth.writer import write
from hftrace.units import byte_count, parse_size

MOST_BYTES = 400_000_000
"""What cannot be made smaller than this is left out: a disk and an afternoon have their limits."""
SECONDS = 120


def tried(name: str, most_bytes: int) -> dict[str, Any]:
    """Returns what came of one model type."""
    import transformers

    try:
        found = blueprint({"model_type": name, "most_bytes": most_bytes, "float_bytes": 2})
        planned = plan_blueprint(found, name=name, size=most_bytes, dtype="bfloat16")
    except (BlueprintError, HftraceError) as error:
        return {"name": name, "result": "not planned", "why": str(getattr(error, "message", error))}
    facts = {"name": name, "class": found["class"], "bytes": planned.data_bytes}
    if planned.data_bytes > MOST_BYTES:
        return {**facts, "result": "too large", "why": byte_count(planned.data_bytes)}
    with tempfile.TemporaryDirectory(prefix="hftrace-types-") as folder:
        write(planned, folder, force=True)
        owner = getattr(transformers, found["class"])
        try:
            _, info = owner.from_pretrained(folder, output_loading_info=True)
        except Exception as error:
            why = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            return {**facts, "result": "not loaded", "why": why}
    wrong = {
        kind: sorted(map(str, info[kind]))
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if info.get(kind)
    }
    if wrong:
        return {
            **facts,
            "result": "not whole",
            "why": "; ".join(f"{k}: {', '.join(v[:3])}" for k, v in wrong.items()),
        }
    return {**facts, "result": "whole"}


def late(number: int, frame: Any) -> None:
    """Ends what takes too long."""
    raise TimeoutError(f"it took more than {SECONDS} s")


def main() -> int:
    """Tries all, or those that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--most", type=int, default=None, help="no more than so many, evenly spread")
    parser.add_argument("--only", nargs="+", default=None, help="these types")
    parser.add_argument("--size", default="2MB")
    parser.add_argument("-o", "--output", type=Path, default=None)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    names = options.only or sorted(CONFIG_MAPPING_NAMES)
    if options.most is not None and options.most < len(names):
        names = [names[at * len(names) // options.most] for at in range(options.most)]
    signal.signal(signal.SIGALRM, late)
    results = []
    for name in names:
        signal.alarm(SECONDS)
        try:
            result = tried(name, parse_size(options.size))
        except Exception as error:
            result = {"name": name, "result": "failed", "why": f"{type(error).__name__}: {error}"[:300]}
        finally:
            signal.alarm(0)
        results.append(result)
        if result["result"] != "whole":
            sys.stdout.write(f"{name}: {result['result']}: {result['why']}\n")
            sys.stdout.flush()
        if options.output is not None:
            options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    counts: dict[str, int] = {}
    for result in results:
        counts[result["result"]] = counts.get(result["result"], 0) + 1
    sys.stdout.write(f"transformers {transformers.__version__}: {len(results)} types: {counts}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
