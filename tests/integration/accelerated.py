"""Loads onto an accelerator that is neither CUDA, MPS nor XPU; prints what hftrace and torch say of each.

Started by ``test_accelerators.py`` with two checkpoints: a small one, and a large one with tied weights.
"""

from __future__ import annotations

import json
import sys
from collections import Counter

import torch
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

import hftrace
from hftrace.analysis.findings.registry import findings

SMALL, LARGE, *NAMES = sys.argv[1:]
LAYERS = 4
TWO = {"model.embed_tokens": "standin:0", "model.rotary_emb": "standin:0", "model.norm": "standin:1"}
TWO |= {f"model.layers.{layer}": f"standin:{layer // 2}" for layer in range(LAYERS)}


def inside():
    with torch.device("standin"):
        return LlamaForSequenceClassification.from_pretrained(SMALL)


LOADS = {
    "cpu": lambda: LlamaForCausalLM.from_pretrained(SMALL),
    "to": lambda: LlamaForCausalLM.from_pretrained(SMALL).to("standin:1"),
    "method": lambda: LlamaForCausalLM.from_pretrained(SMALL).standin(),
    "map": lambda: LlamaForCausalLM.from_pretrained(SMALL, device_map="standin:1"),
    "two": lambda: LlamaForCausalLM.from_pretrained(SMALL, device_map={**TWO, "lm_head": "standin:1"}),
    "head": lambda: LlamaForSequenceClassification.from_pretrained(SMALL, device_map="standin"),
    "head on two": lambda: LlamaForSequenceClassification.from_pretrained(
        SMALL, device_map={**TWO, "score": "standin:1"}
    ),
    "inside": inside,
    "tied": lambda: LlamaForCausalLM.from_pretrained(LARGE, device_map="standin"),
    "read whole": lambda: LlamaForCausalLM.from_pretrained(LARGE, device_map="standin", disable_mmap=True),
}


def by_device(tensors):
    found = Counter()
    for tensor in {id(tensor): tensor for tensor in tensors}.values():
        found[str(tensor.device)] += tensor.numel() * tensor.element_size()
    return found


def rows_by_device(trace):
    found = Counter()
    for row in trace.tensors:
        if row.provenance not in ("tied", "unused"):
            found[row.device] += row.bytes
    return found


for name in NAMES:
    with hftrace.trace(None) as recorded:
        model = LOADS[name]()
    trace = recorded.trace
    (load,) = [span for span in trace.spans if span.phase == "load"]
    print(
        json.dumps(
            {
                "name": name,
                "torch": by_device([*model.parameters(), *model.buffers()]),
                "rows": rows_by_device(trace),
                "provenances": sorted({str(row.provenance) for row in trace.tensors}),
                "device_peak_bytes": load.device_peak_bytes,
                "device_memory": trace.environment["device_memory"],
                "devices": trace.environment["devices"],
                "findings": {
                    finding.name: {
                        "severity": finding.severity,
                        "evidence": finding.evidence,
                        "fix": finding.fix.keywords if finding.fix else None,
                        "numbers": finding.numbers,
                    }
                    for finding in findings(trace)
                },
            }
        )
    )
    del model, recorded, trace
