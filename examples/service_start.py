"""A service that loads its model at start, and says what that cost.

    python examples/service_start.py ./my-model

Without a model it makes a small one with random weights. The trace goes to
service-start.json; look at it with `hftrace show service-start.json`.
"""

from __future__ import annotations

import sys
from typing import Any

import hftrace


class Service:
    """What serves requests once its model is there.

    Args:
        model: A directory or a Hub id.
    """

    def __init__(self, model: str) -> None:
        # A part of the start, and so of the trace.
        from transformers import AutoModelForCausalLM

        self.model: Any = AutoModelForCausalLM.from_pretrained(model, dtype="auto")

    def parameters(self) -> int:
        """Returns how many parameters the model has."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def small_model() -> str:
    """Returns the directory of a Llama of 5 MB with random weights, made once and kept in the cache."""
    import json
    import subprocess

    made = subprocess.run(
        [sys.executable, "-m", "hftrace", "synth", "llama-2-7b", "--size", "5MB", "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    return str(json.loads(made.stdout)["directory"])


def main() -> None:
    """Starts the service under a trace, and prints one line for the log."""
    model = sys.argv[1] if len(sys.argv) > 1 else small_model()
    # The trace of the start before this one is overwritten; "start-{pid}.json" would keep them all.
    with hftrace.trace("service-start.json", force=True) as recorded:
        service = Service(model)
    trace = recorded.trace
    load = trace.loads[0]
    peak = max((span.rss_peak_bytes or 0 for span in trace.spans), default=0)
    strangers = [row.name for row in trace.tensors if row.provenance == "initialized"]
    print(
        f"started: {service.parameters():,} parameters, load {load.duration_ns / 1e9:.2f} s, "
        f"peak {peak / 1e6:,.0f} MB, {len(strangers)} not from the checkpoint"
    )
    if strangers:
        raise SystemExit(f"weights are missing: {', '.join(map(str, strangers[:3]))}")


if __name__ == "__main__":
    main()
