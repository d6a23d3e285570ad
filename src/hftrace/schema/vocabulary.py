"""The words that every part uses alike: phases, what may follow a load, dtypes, names of weight files.

Kinds of journal lines are in :mod:`hftrace.schema.journal`, exit codes in :mod:`hftrace.errors`.
"""

from __future__ import annotations

# -- phases --------------------------------------------------------------------------------------------

PHASE_LETTERS = {
    "load": "?",
    "import": "I",
    "config": "C",
    "resolve": "R",
    "download": "D",
    "quantizer": "Q",
    "quantize": "q",
    "instantiate": "N",
    "device_map": "M",
    "warmup": "U",
    "weights": "W",
    "shard": "S",
    "convert": "V",
    "offload": "O",
    "initialize": "Z",
    "tie": "T",
    "finalize": "F",
    "generation_config": "G",
    "dispatch": "P",
    "collect": "c",
    "adapter": "A",
    "tokenizer": "t",
    "processor": "p",
    "mesh": "m",
    "wait": "i",
    "verify": "v",
    "touch": "w",
    "forward": "f",
    "tokenize": "k",
    "generate": "g",
    "prefill": "l",
    "decode": "d",
    "surgery": "x",
    "save": "s",
    "step": "n",
    "release": "r",
}
"""Every phase in the order of a legend, with the letter that tells it apart where a word has no room."""
PHASES = tuple(PHASE_LETTERS)
"""What a span can be for. ``load`` is the outermost span itself: time that lies
in it and in no child is unattributed; every other word is a named phase."""
READY_PHASES = ("touch", "forward")
"""Phases after which a loaded model is ready."""
AFTER_LOAD = (*READY_PHASES, "verify", "release")
"""What ``hftrace load`` may be asked to do after the load, in this order; each is a phase."""
MEMORY_PHASES = (*READY_PHASES, "generate", "verify", "release")
"""Phases of root spans that follow a load and change what it left in memory."""

# -- provenance ----------------------------------------------------------------------------------------

EVIDENCE = {
    "placed": "the loader was seen to put it into the model",
    "same_tensor": "it is the same tensor as the one it is tied to",
    "hook": "a hook brings it in when it is used",
    "initializer": "the loader's initialisation was seen to write it",
    "overwritten": "it was placed from the checkpoint, and the loader's initialisation wrote it after that",
    "allocated": "the loader allocated it, and nothing was seen to write it",
    "built": "the model's own code made it on a real device",
    "ignored": "the model's class leaves this key out on purpose",
    "mismatched": "the tensor of this key's name has another shape",
    "renamed": "the loader gave this key another name, which the model does not have",
    "tie_weights": "tie_weights of the model's class wrote it, and did not make it one with another",
    "verified": "it was held against the files afterwards, and is what they hold under its keys",
    "differs": "it was held against the files afterwards, and is not what they hold under its keys",
    "written_in_place": "something that is not hooked wrote into it after it was made",
}
"""What proves where a tensor's bytes came from."""

# -- dtypes --------------------------------------------------------------------------------------------

ITEM_BYTES = {
    "bool": 1,
    "uint8": 1,
    "int8": 1,
    "uint16": 2,
    "int16": 2,
    "float16": 2,
    "bfloat16": 2,
    "uint32": 4,
    "int32": 4,
    "float32": 4,
    "uint64": 8,
    "int64": 8,
    "float64": 8,
    "complex64": 8,
    "complex128": 16,
    "float8_e5m2": 1,
    "float8_e4m3fn": 1,
    "float8_e5m2fnuz": 1,
    "float8_e4m3fnuz": 1,
    "float8_e8m0fnu": 1,
    "float4_e2m1fn_x2": 1,
}
"""Dtypes by torch's names, and the bytes of one item; one item of ``float4_e2m1fn_x2`` is two numbers."""
SAFETENSORS_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "F16": "float16",
    "BF16": "bfloat16",
    "U32": "uint32",
    "I32": "int32",
    "F32": "float32",
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "C64": "complex64",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "F4": "float4_e2m1fn_x2",
}
"""safetensors' names of dtypes, and torch's (safetensors 0.8, ``safetensors/torch.py``)."""

# -- files ---------------------------------------------------------------------------------------------

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".gguf", ".pt", ".h5", ".msgpack")
"""How the names of weight files end."""
WEIGHT_PATTERNS = tuple(f"*{suffix}" for suffix in WEIGHT_SUFFIXES)
"""The same for :meth:`pathlib.Path.glob`."""
