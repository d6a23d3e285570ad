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
    "prefetch": "e",
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
    "stats": "a",
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
FETCH = "fetch"
"""Attribute of a span in which the program itself has files fetched: they are rows of no load."""
XET = "xet"
"""The ``transport`` of what ``hf_xet`` fetches by a client of its own."""
READY_PHASES = ("touch", "forward")
"""Phases after which a loaded model is ready."""
AFTER_LOAD = (*READY_PHASES, "generate", "verify", "stats", "release")
"""What ``hftrace load`` may be asked to do after the load, in this order; each is a phase."""

# -- provenance ----------------------------------------------------------------------------------------

EVIDENCE = {
    "placed": "the loader was seen to put it into the model",
    "read": "its key was read for it; the function of this loader that puts it into the model is not hooked",
    "dequantized": "the loader was seen to put in what it made of the file's quantised blocks",
    "same_tensor": "it is the same tensor as the one it is tied to",
    "hook": "a hook brings it in when it is used",
    "initializer": "the loader's initialisation was seen to write it",
    "overwritten": "it was placed from the checkpoint, and the loader's initialisation wrote it after that",
    "allocated": "the loader allocated it, and nothing was seen to write it",
    "built": "the model's own code made it on a real device",
    "expected": "checkpoints do not have it, as the model's class says: its own code makes it",
    "quantizer": "it is of a layer that a quantiser put in, and the quantiser's own code gave it its value",
    "ignored": "the model's class leaves this key out on purpose",
    "unlisted": "the model has a tensor of this name, and the loader did not find the key, as where the "
    "index of the shards does not name it",
    "overtaken": "a key of another file, such as an adapter's, was put in its place",
    "own_code": "the module's own code may have taken it: a tensor of its size there was written, by nobody "
    "who is hooked, after its initialisation",
    "adapter_code": "PEFT found a place for all keys of the adapter: it keeps this one's tensor outside of "
    "parameters and buffers, or needs one of several that are the same",
    "mismatched": "the tensor of this key's name has another shape",
    "renamed": "the loader gave this key another name, which the model does not have",
    "tie_weights": "tie_weights of the model's class wrote it, and did not make it one with another",
    "verified": "it was held against the files afterwards, and is what they hold under its keys",
    "differs": "it was held against the files afterwards, and is not what they hold under its keys",
    "written_in_place": "something that is not hooked wrote into it after it was made",
    "replaced": "something that is not hooked put it in the place of another one after the load",
    "copied": "an adapter made it as a copy of a weight that was placed",
    "adapter": "the initialisation of an adapter made or rewrote it, and no file was seen to",
    "new_adapter": "it belongs to an adapter that was made anew, after the load",
    "merged": "an adapter was merged into it, or taken out of it again",
    "trained": "an optimizer has made a step with it",
    "resized": "resize_token_embeddings made it of the old one and of new rows",
    "changed_after_load": "a function that is hooked computed it anew after the load",
    "cast": "it was placed, and cast after the load to a dtype that holds all of it",
    "cast_through": "it was cast to another dtype in between, and has lost what that cannot hold",
    "load_state_dict": "load_state_dict put it there after the load",
    "emptied": "to_empty allocated it anew, and nothing was seen to write it",
    "own": "no load that was recorded put it there: it is the program's own",
    "before_trace": "it was there before the trace began",
    "file_gone": "a weight file of this load was gone before its header was read: it may have been in it",
    "file_changed": "a weight file of this load was not the same any more when its header was to be read: "
    "it may have been in it",
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

GGUF_TYPES = {
    0: ("float32", 1, 4),
    1: ("float16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("int8", 1, 1),
    25: ("int16", 1, 2),
    26: ("int32", 1, 4),
    27: ("int64", 1, 8),
    28: ("float64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("bfloat16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}
"""ggml's types by their number in a GGUF file: the name, and how many values take how many bytes.

Torch's name where torch has the dtype; else the quantisation's own, which stands for blocks of
codes with their scales (gguf 0.19, ``GGML_QUANT_SIZES``)."""
GGUF_TABLES = frozenset({"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"})
"""Tensors of GGUF files that are no weights: llama.cpp's tables of what a model computes from its config."""
GGUF_QUANTISATIONS = frozenset(name for name, values, _ in GGUF_TYPES.values() if values > 1)
"""Those that torch has no dtype for: a tensor of one is no array of numbers before it is dequantised."""

# -- files ---------------------------------------------------------------------------------------------

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".gguf", ".pt", ".h5", ".msgpack")
"""How the names of weight files end."""
WEIGHT_PATTERNS = tuple(f"*{suffix}" for suffix in WEIGHT_SUFFIXES)
"""The same for :meth:`pathlib.Path.glob`."""

DAMAGES = {
    "missing": "An index names it, and it was not there.",
    "empty": "It has no bytes.",
    "cut": "It ends before its data does.",
    "longer": "It goes on behind its data.",
    "lfs-pointer": "It is the pointer that Git LFS leaves in the place of a file that was not fetched.",
    "web-page": "It is a web page: an error page, or a link to the file, was saved under its name.",
    "header": "Its header says what cannot be.",
    "format": "It is not of the format that its name says.",
}
"""What can be wrong with a file that a load asked for."""
OTHER_FORMATS = {
    "gguf": "it is a GGUF file",
    "pickle": "it is a file of torch.save",
    "safetensors": "it is a safetensors file",
}
"""The detail of a file that has the name of another format than its own."""
