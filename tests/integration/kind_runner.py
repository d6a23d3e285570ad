"""Loads kinds of checkpoints, each in a process of its own, and holds the ledgers against the models.

    python kind_runner.py PACKAGES KIND FOLDER [KIND FOLDER ...]

PACKAGES are imported first, joined by commas. KIND is a module of ``kinds/``;
what it may define is said in ``test_kinds.py``. Each load is in a fork of the
process that has done the imports, which take longer than all the rest. Its
output goes to FOLDER/output.txt, what was found to FOLDER/result.json.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path

import torch
import transformers
from truth import disagreements, tree_disagreements

import hftrace
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.ledger.verification import Verification, verification

NOTHING = Verification(0, [], {}, 0, None)


def run(name: str, folder: Path) -> dict[str, object]:
    path = Path(__file__).with_name("kinds") / f"{name}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    kind = importlib.util.module_from_spec(spec)
    # Where pickle and transformers look for the classes that it defines.
    sys.modules[path.stem] = kind
    spec.loader.exec_module(kind)
    transformers.logging.set_verbosity_error()
    torch.manual_seed(7)
    kind.make(folder)
    with hftrace.trace(folder / "trace.json", verify=True) as recorded:
        returned = kind.load(folder)
    trace = recorded.trace
    model = returned if isinstance(returned, torch.nn.Module) else returned[0]
    failed = None
    try:
        kind.check(trace, model, folder)  # which puts files back that it took away
    except Exception:
        failed = traceback.format_exc()
    # What nobody could know is no false word, and is to be said.
    may_be = tuple(f"{name}: said to be unknown, " for name in getattr(kind, "UNKNOWN", ()))
    wrong = [each for each in disagreements(model, trace) if not each.startswith(may_be)]
    if getattr(kind, "PRINTED", True):
        wrong += tree_disagreements(model, trace)
    return {
        "wrong": wrong,
        "different": [trace.tensors[row].name for row in (verification(trace) or NOTHING).different],
        "failed": failed,
        "requests": [request.path for request in trace.requests],
        # As it is in the file: a line, or a fact, that was taken for damaged is one whose shape is not known.
        "lost": dict(hftrace.Trace.open(folder / "trace.json").header["lost"]),
        "errors": [dict(error) for error in trace.header["errors"]],
        "findings": [[finding.severity, finding.name, finding.title] for finding in findings(trace)],
    }


def main() -> None:
    packages, *pairs = sys.argv[1:]
    for package in filter(None, packages.split(",")):
        importlib.import_module(package)
    # Every kind needs the modules that these need; each would import them anew.
    _ = transformers.LlamaForCausalLM, transformers.AutoModelForCausalLM
    for name, place in zip(pairs[::2], pairs[1::2], strict=True):
        folder = Path(place)
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            continue
        try:
            os.chdir(folder)
            with open(folder / "output.txt", "wb") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            (folder / "result.json").write_text(json.dumps(run(name, folder)))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)


if __name__ == "__main__":
    main()
