"""What tracing adds per small tensor, counted in instructions: the same on a busy machine as on a quiet one.

    python tests/benchmarks/instructions.py                      (ten minutes; needs valgrind)
    python tests/benchmarks/instructions.py --source OTHER/src   the same for another hftrace
    python tests/benchmarks/instructions.py --leaving            and what comes after the load
    python tests/benchmarks/instructions.py --no-collections     without garbage collections
    python tests/benchmarks/instructions.py --sizes 500 10500    five times as exact, and half as long again

What an import executes differs by 20 million from run to run, which is 10,000 for each of 2,000 tensors.
Whether one more full collection falls into a load moves the count by tens of thousands for a tensor,
either way. To compare two versions of hftrace, leave collections out and take larger sizes.

Times of loads spread by more than tracing costs. Instructions do not: a load
of the same checkpoint executes the same ones, but for a few in ten thousand.
valgrind's cachegrind counts those of the whole process, in user space, on all
threads, so the journal's thread is in. Two sizes of checkpoint are loaded,
each without and with hooks, and the difference between the sizes is what a
tensor costs: imports, and all else that a process does once, cancel out. With
hooks the load is counted until all of its events are in the journal. What
leaving ``hftrace.trace`` takes after it (stop, replay, write) is a count of its
own, with ``--leaving``.

An instruction is no measure of time: those of tracing are an interpreter's,
as most of a load of small tensors are. And valgrind makes a program some
fifty times slower, so the journal's thread is let sleep that much longer, or
it would wake up fifty times as often as it does.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SIZES = (500, 2_500)
TARGET = 1.01
NO_COLLECTIONS = "HFTRACE_BENCHMARK_NO_COLLECTIONS"
SLOWER = 60
"""How much slower a program is under cachegrind, about."""


def load(arm: str, checkpoint: str, output: str) -> None:
    """One load, in the process that is counted; it ends without letting go of anything."""
    import torch

    torch.set_num_threads(1)
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    import hftrace
    import hftrace.launch.in_process
    from hftrace.record import writer

    try:
        from hftrace.record import reader_clocks
    except ImportError:  # an older hftrace
        reader_clocks = None
    from hftrace.record.tracer import Tracer

    logging.disable_progress_bar()
    writer.FLUSH_SECONDS *= SLOWER
    if reader_clocks is not None:
        reader_clocks.ASK_NS *= SLOWER

    def run() -> None:
        AutoModelForCausalLM.from_pretrained(checkpoint, torch_dtype=torch.float32)

    if os.environ.get(NO_COLLECTIONS):
        gc.disable()
    if arm == "plain":
        run()
    elif arm == "traced":
        tracer = Tracer(Path(output))
        tracer.start()
        run()
        tracer.recorder.writer.flush()
    else:
        with hftrace.trace(Path(output) / "trace.json", sample_hz=0):
            run()
    os._exit(0)


def instructions(arm: str, checkpoint: Path, source: str | None) -> int:
    """Returns the instructions of a whole process that imports, loads and ends."""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "OMP_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",  # or the first process would be the only one that compiles
    }
    if source is not None:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [source, environment.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as output:
        command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
        command += [sys.executable, str(Path(__file__).resolve()), "--load", arm, str(checkpoint), output]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    if done.returncode or found is None:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    return int(found[1].replace(",", ""))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", help="directory of another hftrace to count")
    parser.add_argument("--leaving", action="store_true", help="count what comes after the load, too")
    parser.add_argument("--no-collections", action="store_true", help="collect no garbage in the load")
    parser.add_argument(
        "--sizes", nargs=2, type=int, default=SIZES, metavar="TENSORS", help="of the two checkpoints"
    )
    parser.add_argument("--load", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load:
        load(*arguments.load)
    if arguments.no_collections:
        os.environ[NO_COLLECTIONS] = "1"
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not here: install it")
    from hftrace import synth

    arms = ["plain", "traced", "left"] if arguments.leaving else ["plain", "traced"]
    counted: dict[tuple[str, int], int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in arguments.sizes:
            checkpoint = Path(folder) / str(size)
            synth.write_many(checkpoint, size)
            for arm in arms:
                counted[arm, size] = instructions(arm, checkpoint, arguments.source)
                print(f"{arm:7} {size:6,} tensors  {counted[arm, size]:15,} instructions", flush=True)
    few, many = arguments.sizes
    each = {arm: (counted[arm, many] - counted[arm, few]) / (many - few) for arm in arms}
    added = each["traced"] - each["plain"]
    print(f"per tensor: plain {each['plain']:,.0f}, traced {each['traced']:,.0f}, added {added:,.0f}")
    if arguments.leaving:
        print(f"leaving the block: {each['left'] - each['traced']:,.0f} more per tensor")
    print(f"traced / plain, per tensor: {each['traced'] / each['plain']:.4f}  (target <= {TARGET})")


if __name__ == "__main__":
    main()
