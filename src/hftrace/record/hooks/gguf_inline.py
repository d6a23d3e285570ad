"""What became of the tensors of a GGUF file where transformers has no ``TensorProcessor`` yet (4.41 to 4.46).

There the loop of ``load_gguf_checkpoint`` itself takes one tensor of the file after the other, and puts
what it makes into a dictionary: one entry for each, or one for each expert of a stack. So entries and
tensors have one order. What it does to which of them is read off its code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

EXPERTS = 60
"""How many experts Qwen2-MoE is taken to have by transformers where its config does not say it."""
OPERATIONS = {
    "llama": (((".attn_k.", ".attn_q."), "permute"),),
    "mistral": (((".attn_k.", ".attn_q."), "permute"),),
    "bloom": ((("attn_qkv",), "reshape"),),
    "qwen2_moe": ((("_exp",), "split"), (("ffn_gate_inp_shexp",), "expand_dims")),
    "gpt2": ((("attn_qkv.weight", "ffn_down.weight", "ffn_up.weight", "attn_output.weight"), "transpose"),),
}
"""By ``model_type``: parts of the names in the file, and what is done to the values under them.

The name that Mistral has in a GGUF file is that of Llama; transformers tells it by the model's name.
"""


def unpacked(
    keys: Sequence[str], turns: Sequence[int], ended: int, parsed: dict[str, Any]
) -> Iterator[tuple[str, Any, int, int]]:
    """Yields key, names with operations, start and end of each tensor's turn; nothing where they do not fit.

    Args:
        keys: Names of the file's tensors, in its order.
        turns: When each was dequantised.
        ended: When the call returned.
        parsed: What it returned.
    """
    tensors, config = parsed["tensors"], parsed["config"]
    names = list(tensors)
    model_type = config.get("model_type")
    operations = [_operation(model_type, key) for key in keys]
    counts = [config.get("num_experts", EXPERTS) if operation == "split" else 1 for operation in operations]
    if len(turns) != len(keys) or sum(counts) != len(names):
        return
    at = 0
    for key, operation, count, start, end in zip(
        keys, operations, counts, turns, [*turns[1:], ended], strict=True
    ):
        made = names[at : at + count]
        at += count
        yield key, [made, [operation]] if operation is not None else made[0], start, end


def _operation(model_type: Any, key: str) -> str | None:
    for parts, operation in OPERATIONS.get(model_type, ()):
        if any(part in key for part in parts):
            return operation
    return None
