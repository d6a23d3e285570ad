"""Which row of an unfinished load's ledger a tensor is that did not fit."""

import pytest

from hftrace.replay.mismatches import Mismatch, row_of
from hftrace.schema.model import Tensor

ADAPTER = "base_model.model.layers.0.q_proj.lora_A.weight"


def row(key, shape):
    fields = dict.fromkeys(
        ("file", "offset", "stored_dtype", "dtype", "stored_bytes", "bytes", "device", "tied_to")
    )
    times = dict.fromkeys(("read_start_ns", "read_end_ns", "thread", "span"))
    return Tensor(
        name=key,
        kind="parameter",
        provenance="checkpoint",
        keys=[key],
        shape=shape,
        stored_shape=shape,
        placed_ns=1,
        **fields,
        **times,
    )


@pytest.mark.parametrize(
    ("name", "at"),
    [
        (ADAPTER, 1),
        ("base_model.model.layers.0.q_proj.lora_A.default.weight", 1),
        ("base_model.model.layers.0.q_proj.lora_A.my_adapter.weight", 1),
        ("base_model.model.layers.0.q_proj.lora_A.two.parts.weight", None),
        ("base_model.model.layers.1.q_proj.lora_A.default.weight", None),
    ],
)
def test_the_name_of_an_adapter_stands_in_the_middle(name, at):
    rows = [row("base_model.model.layers.0.k_proj.lora_A.weight", [4, 8]), row(ADAPTER, [4, 8])]
    assert row_of(Mismatch(name, [4, 8], [2, 8]), rows) == at
