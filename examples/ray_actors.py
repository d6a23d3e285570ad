"""Actors of Ray that load a model each, every one with a trace of its own.

    pip install ray
    python examples/ray_actors.py MODEL

Ray hands the variable HFTRACE to its workers and kills them at its end, so their traces are made afterwards.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ACTORS = 2


class Chat:
    """What each actor holds: its own copy of the model."""

    def __init__(self, model: str) -> None:
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(model)

    def parameters(self) -> int:
        """Returns how many parameters the actor has loaded."""
        return sum(each.numel() for each in self.model.parameters())


def main(model: str, traces: Path) -> None:
    """Starts the actors, and makes their traces when Ray has ended."""
    import ray  # type: ignore[import-not-found]

    traces.mkdir(exist_ok=True)
    # {pid} is the number of the worker's process. An absolute path: workers have a directory of their own.
    ray.init(runtime_env={"env_vars": {"HFTRACE": f"{traces.resolve()}/{{pid}}.json"}})
    try:
        actor = ray.remote(Chat)
        actors = [actor.remote(str(Path(model).resolve())) for _ in range(ACTORS)]
        print(ray.get([each.parameters.remote() for each in actors]))
    finally:
        ray.shutdown()
    subprocess.run([sys.executable, "-m", "hftrace", "recover", "--all", traces], check=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} MODEL")
    main(sys.argv[1], Path("traces"))
