"""Do the verdicts of ``hftrace compare`` hold on this machine? Real loads, compared again and again.

    python tests/benchmarks/verdicts.py same --times 20      a load against itself: no difference is the truth
    python tests/benchmarks/verdicts.py delay --times 3      5 % of the load, slept away in one phase
    python tests/benchmarks/verdicts.py fast-init --times 3  on 4.48.3: the same verdicts each time?
    python tests/benchmarks/verdicts.py versions --other /env48/bin/python --other /env57/bin/python

Each comparison is the command itself, in fresh processes. Nothing here is a
test with a limit: what is printed is how often each verdict was given.

A delay is a variant whose PYTHONPATH begins with a directory with a
``sitecustomize.py``, which makes a function of transformers sleep. Nothing of
hftrace knows of it.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

DELAYED = {
    # What sleeps, and the phase that its time belongs to; all of them are called once a load in 4.51 to 5.x.
    "tie": ("transformers.modeling_utils", "PreTrainedModel.tie_weights"),
    "generation_config": ("transformers.generation.configuration_utils", "GenerationConfig.from_pretrained"),
    "resolve": ("transformers.modeling_utils", "_get_resolved_checkpoint_files"),
}
SLEEPER = '''
import functools, importlib.abc, importlib.machinery, os, sys, time

MODULE, NAME, SECONDS = os.environ["SLEEPER"].split(":")


class Finder(importlib.abc.MetaPathFinder):
    """Wraps the function as soon as its module has run."""

    def find_spec(self, name, path=None, target=None):
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            *owners, name = NAME.split(".")
            owner = module
            for each in owners:
                owner = getattr(owner, each)
            raw = vars(owner)[name]
            function = raw.__func__ if isinstance(raw, classmethod) else raw

            @functools.wraps(function)
            def sleepy(*args, **kwargs):
                global SECONDS
                seconds, SECONDS = float(SECONDS), 0
                time.sleep(seconds)
                return function(*args, **kwargs)

            setattr(owner, name, classmethod(sleepy) if isinstance(raw, classmethod) else sleepy)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())
'''


def compare(model: Path, variants: list[str], folder: Path, options: list[str]) -> dict[str, Any]:
    """Runs one comparison, and returns its facts."""
    words = [word for variant in variants for word in ("--variant", variant)]
    command = [sys.executable, "-m", "hftrace", "compare", str(model), *words, *options]
    done = subprocess.run(
        [*command, "--json", "-o", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def verdicts(facts: dict[str, Any], name: str) -> dict[str, str]:
    """Returns the verdict of each metric that the variant has."""
    metrics = facts["variants"][name]["metrics"]
    return {key: each["verdict"] for key, each in metrics.items() if each["median"] is not None}


def sure(facts: dict[str, Any], name: str) -> dict[str, float]:
    """Returns the phases that differ for certain, with the difference in ms."""
    found = facts["variants"][name]["phase_verdicts"]
    return {
        phase: round(each["difference_ns"] / 1e6, 1)
        for phase, each in found.items()
        if each["verdict"] in ("better", "worse")
    }


def say(text: str) -> None:
    print(text, flush=True)


def same(model: Path, times: int, options: list[str], folder: Path) -> None:
    wrong: collections.Counter[str] = collections.Counter()
    clean = 0
    for number in range(times):
        facts = compare(model, ["one: dtype=float32", "two: dtype=float32"], folder / str(number), options)
        given = {
            key: verdict for key, verdict in verdicts(facts, "two").items() if verdict != "no_difference"
        }
        given |= {f"phase {phase}": "different" for phase in sure(facts, "two")}
        wrong.update(given.keys())
        clean += not given
        ratio = facts["variants"]["two"]["metrics"]["returned_ns"]["ratio"]
        say(f"{number + 1:3}  returned x{ratio:.3f}  {given or 'no difference in any metric or phase'}")
    say(f"no difference at all: {clean} of {times}; otherwise: {dict(wrong) or 'nothing'}")
    at_returned = times - wrong["returned_ns"]
    say(f"no difference of returned: {at_returned} of {times}")


def delay(model: Path, times: int, options: list[str], folder: Path, share: float) -> None:
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(textwrap.dedent(SLEEPER))
    first = compare(model, ["one: dtype=float32", "two: dtype=float32"], folder / "first", options)
    load = first["variants"]["one"]["metrics"]["returned_ns"]["median"] / 1e9
    say(f"the load takes {load:.3f} s; the delay is {load * share:.3f} s")
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    for phase, (module, name) in DELAYED.items():
        slept = f"{module}:{name}:{load * share:.4f}"
        late = f"late: dtype=float32, env.SLEEPER={slept}, env.PYTHONPATH={path}"
        found = 0
        for number in range(times):
            facts = compare(model, ["plain: dtype=float32", late], folder / f"{phase}-{number}", options)
            phases = sure(facts, "late")
            found += list(phases) == [phase]
            metric = facts["variants"]["late"]["metrics"]["returned_ns"]
            whole = f"returned x{metric['ratio']:.3f} {metric['verdict']}"
            say(f"{phase:18} {number + 1}  {whole}; surely {phases}")
        say(f"{phase}: found, and nothing else, {found} of {times}")


def several(model: Path, times: int, options: list[str], folder: Path, variants: list[str]) -> None:
    for number in range(times):
        facts = compare(model, variants, folder / str(number), options)
        say(f"-- {number + 1}: baseline {facts['baseline']}")
        for name, entry in facts["variants"].items():
            metrics = entry["metrics"]
            words = [f"{metrics['returned_ns']['median'] / 1e9:.3f} s"]
            words += [f"peak {metrics['rss_peak_bytes']['median'] / 1e6:.0f} MB"]
            if name != facts["baseline"]:
                words += [f"{key} {verdict}" for key, verdict in verdicts(facts, name).items()]
                words.append(f"surely {sure(facts, name)}")
            say(f"   {name}: {'; '.join(words)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["same", "delay", "fast-init", "versions"])
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--size", default="1GB", help="of the llama-2-7b that is loaded (default 1GB)")
    parser.add_argument("--share", type=float, default=0.05, help="of the load that is slept (default 0.05)")
    parser.add_argument("--other", action="append", default=[], help="an interpreter, for versions")
    arguments = parser.parse_args()
    from hftrace import synth

    model = synth.cached("llama-2-7b", arguments.size, "bfloat16")
    options = ["--repeat", str(arguments.repeat), "--warm"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if arguments.what == "same":
            same(model, arguments.times, options, folder)
        elif arguments.what == "delay":
            delay(model, arguments.times, options, folder, arguments.share)
        elif arguments.what == "fast-init":
            names = ["fast-init", "no-fast-init", "low-cpu-mem", "device-map=cpu"]
            several(model, arguments.times, options, folder, names)
        else:
            others = [f"other{at}: bf16, python={path}" for at, path in enumerate(arguments.other)]
            several(model, arguments.times, options, folder, ["this: bf16", *others])


if __name__ == "__main__":
    main()
