"""A small tokenizer that any text model can be tried with: one token for each byte.

It is a byte-level BPE without merges: every text can be encoded and comes back
unchanged. It is not the published tokenizer, and its ids mean nothing to the
published weights. Special tokens with a small published id keep it; the others
follow the bytes, because a vocabulary with holes makes the tokenizers library
print all their numbers.
"""

from __future__ import annotations

from typing import Any

from hftrace.synth.architectures import SpecialTokens


def byte_characters() -> list[str]:
    """Returns the character that stands for each byte, by GPT-2's table.

    Printable bytes stand for themselves, the others for the characters from
    U+0100 on (``bytes_to_unicode`` in https://github.com/openai/gpt-2).
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {byte: chr(byte) for byte in printable}
    table |= {byte: chr(0x100 + place) for place, byte in enumerate(others)}
    return [table[byte] for byte in range(256)]


def tokenizer_files(tokens: SpecialTokens, vocabulary: int, max_length: int | None) -> dict[str, Any]:
    """Returns the content of ``tokenizer.json`` and ``tokenizer_config.json`` by file name.

    Args:
        tokens: The special tokens.
        vocabulary: How many ids the model knows; too few for the tokenizer gives no files.
        max_length: The number of positions that the model has, if it is limited.
    """
    special = token_ids(tokens)
    entries = _vocabulary(special)
    if len(entries) > vocabulary:
        return {}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": place,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for token, place in special.items()
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": _post_processor(tokens, special),
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": entries,
            "merges": [],
        },
    }
    inputs = ["input_ids", "attention_mask"]
    if tokens.type_ids:
        inputs.insert(1, "token_type_ids")
    config: dict[str, Any] = {
        **tokens.roles,
        "clean_up_tokenization_spaces": False,
        "model_input_names": inputs,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    if max_length is not None:
        config["model_max_length"] = max_length
    return {"tokenizer.json": tokenizer, "tokenizer_config.json": config}


def token_ids(tokens: SpecialTokens) -> dict[str, int]:
    """Returns the ids that the special tokens have in the written tokenizer, in ascending order."""
    total = 256 + len(tokens.ids)
    published = sorted(tokens.ids.items(), key=lambda item: item[1])
    kept = {token: place for token, place in published if place < total}
    others = [token for token in tokens.ids if token not in kept]
    last = [place for place in range(total) if place not in kept.values()][256:]
    return kept | dict(zip(others, last, strict=True))


def _vocabulary(special: dict[str, int]) -> dict[str, int]:
    """Returns every token and its id, in the order of the ids, which have no holes."""
    free = (place for place in range(256 + len(special)) if place not in special.values())
    entries = dict(zip(byte_characters(), free, strict=True)) | special
    return dict(sorted(entries.items(), key=lambda item: item[1]))


def _post_processor(tokens: SpecialTokens, ids: dict[str, int]) -> dict[str, Any] | None:
    special = [token for token in tokens.template if token != "$A"]
    if not special:
        return None

    def pieces(text: str, type_id: int) -> list[dict[str, Any]]:
        return [
            {"Sequence": {"id": text, "type_id": type_id}}
            if token == "$A"
            else {"SpecialToken": {"id": token, "type_id": type_id}}
            for token in tokens.template
        ]

    # A second text gets its own markers, but for BERT's, which begins with [CLS] once.
    second = [
        piece for piece in pieces("B", 1) if not (tokens.type_ids and _is_token(piece, tokens.template[0]))
    ]
    return {
        "type": "TemplateProcessing",
        "single": pieces("A", 0),
        "pair": pieces("A", 0) + second,
        "special_tokens": {
            token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in dict.fromkeys(special)
        },
    }


def _is_token(piece: dict[str, Any], token: str) -> bool:
    return bool(piece.get("SpecialToken", {}).get("id") == token)
