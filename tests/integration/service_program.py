"""A small service: what it starts with, in one block. Run as a program: MODEL OUT [ADAPTER]."""

from __future__ import annotations

import json
import sys
import time

import hftrace

READING, WARMING, ASKING = 0.3, 0.2, 0.4
"""Seconds of its own code: read the settings, warm up, answer a request."""


def read_settings():
    time.sleep(READING)


@hftrace.step("request")
def answer(model, ids):
    time.sleep(ASKING)
    return model(ids)


def start(folder, out, adapter=None):
    with hftrace.trace(out, sample_hz=0) as recorded:
        begun = time.monotonic()
        import torch
        from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

        AutoConfig.from_pretrained(folder)
        AutoTokenizer.from_pretrained(folder)
        read_settings()
        with hftrace.step("models"):
            chat = AutoModelForCausalLM.from_pretrained(folder)
            embed = AutoModel.from_pretrained(folder)
        if adapter is not None:
            from peft import PeftModel

            chat = PeftModel.from_pretrained(chat, adapter)
        ids = torch.ones(1, 4, dtype=torch.long)
        with recorded.step("warm-up"):
            time.sleep(WARMING)
            chat(ids)
        embed.to(torch.float64)
        answer(chat, ids)
        took = time.monotonic() - begun
    print(json.dumps({"seconds": took, "torch": torch.__version__}))


if __name__ == "__main__":
    start(*sys.argv[1:])
