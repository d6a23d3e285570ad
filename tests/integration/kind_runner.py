"""Loads one kind of checkpoint in a process of its own, and holds the ledger against the model.

    python kind_runner.py KIND FOLDER

KIND is a module of ``kinds/``; what it may define is said in ``test_kinds.py``.
Prints one JSON object as the last line of its output.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import traceback
from pathlib import Path

import torch
import transformers
from truth import disagreements

import hftrace
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.ledger.verification import Verification, verification

NOTHING = Verification(0, [], {}, 0, None)


def main() -> None:
    path = Path(__file__).with_name("kinds") / f"{sys.argv[1]}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    kind = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kind)
    folder = Path(sys.argv[2])
    transformers.logging.set_verbosity_error()
    torch.manual_seed(7)
    kind.make(folder)
    with hftrace.trace(folder / "trace.json", verify=True) as recorded:
        returned = kind.load(folder)
    trace = recorded.trace
    model = returned if isinstance(returned, torch.nn.Module) else returned[0]
    failed = None
    try:
        kind.check(trace, model, folder)
    except Exception:
        failed = traceback.format_exc()
    result = {
        "wrong": disagreements(model, trace),
        "different": [trace.tensors[row].name for row in (verification(trace) or NOTHING).different],
        "failed": failed,
        "errors": [dict(error) for error in trace.header["errors"]],
        "findings": [[finding.rule, finding.name, finding.title] for finding in findings(trace)],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
