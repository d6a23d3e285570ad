"""What the facts of a model's adapters and of its own code have to be."""

from __future__ import annotations

from hftrace.schema.shapes import AMOUNT, ANY, FLAG, TEXT

ADAPTERS = [
    {
        "name": TEXT,
        "type": TEXT,
        "modules": AMOUNT,
        "targets": {"*": AMOUNT},
        "whole": [TEXT],
        "layers": [AMOUNT],
        "parameters": AMOUNT,
        "bytes": AMOUNT,
        "trainable": AMOUNT,
        "settings": {"*": ANY},
        "base": TEXT,
        "base_revision": TEXT,
    }
]
TRAINABLE = {"parameters": AMOUNT, "all": AMOUNT}
MERGED = {"adapters": [TEXT], "modules": AMOUNT, "tensors": AMOUNT, "bytes": AMOUNT}
CASTS = [
    {
        "from": TEXT,
        "to": TEXT,
        "tensors": AMOUNT,
        "bytes_before": AMOUNT,
        "bytes": AMOUNT,
        "names": [TEXT],
    }
]
CODE = [
    {
        "file": TEXT,
        "path": TEXT,
        "sha256": TEXT,
        "bytes": AMOUNT,
        "classes": [TEXT],
        "repo": TEXT,
        "commit": TEXT,
        "revision": TEXT,
    }
]
LOAD_HOOKS = [{"module": TEXT, "kind": TEXT, "function": TEXT, "source": TEXT, "own_tensors": FLAG}]
