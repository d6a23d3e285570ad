"""A service that loads a model for each worker, each load under a trace of its own.

    python examples/async_service.py ./my-model

Without a model it makes a small one with random weights. `start` is a
coroutine, `lifespan` an asynchronous generator, as web frameworks ask for one:
each call is recorded from its first step to its last.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from service_start import small_model

import hftrace

started = hftrace.trace("worker-{call}.json", force=True)
"""The recording of `start`: worker-1.json, worker-2.json, ..."""


@started
async def start(model: str) -> Any:
    """Returns a worker's model; the event loop goes on while it is loaded."""
    from transformers import AutoModelForCausalLM

    return await asyncio.to_thread(AutoModelForCausalLM.from_pretrained, model)


@asynccontextmanager
@hftrace.trace("lifespan.json", force=True)
async def lifespan(model: str) -> AsyncIterator[list[Any]]:
    """Opens the service; beneath @asynccontextmanager, so that its trace ends when the service does."""
    yield [await start(model) for _ in range(2)]


async def main() -> None:
    """Starts the service and closes it, and says what each start took."""
    async with lifespan(sys.argv[1] if len(sys.argv) > 1 else small_model()) as workers:
        print(f"{len(workers)} workers; the last took {started.trace.summary()['loads_wall_ns'] / 1e9:.2f} s")
    whole = hftrace.Trace.open("lifespan.json")
    print(whole)
    whole.show("tree")


if __name__ == "__main__":
    asyncio.run(main())
