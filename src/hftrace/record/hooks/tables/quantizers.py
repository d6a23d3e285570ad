"""Hook points of transformers' quantisers: what each of them takes out of a checkpoint, up to 4.57.

In 5.x quantising is an operation of a conversion, and seen where that is.
"""

from __future__ import annotations

from hftrace.record.hooks.events import quantize_handler
from hftrace.record.hooks.points import HookPoint

QUANTIZERS = (
    ("bnb_4bit", "Bnb4BitHfQuantizer"),
    ("bnb_8bit", "Bnb8BitHfQuantizer"),
    ("eetq", "EetqHfQuantizer"),
    ("fbgemm_fp8", "FbgemmFp8HfQuantizer"),
    ("finegrained_fp8", "FineGrainedFP8HfQuantizer"),
    ("fp_quant", "FPQuantHfQuantizer"),
    ("higgs", "HiggsHfQuantizer"),
    ("hqq", "HqqHfQuantizer"),
    ("mxfp4", "Mxfp4HfQuantizer"),
    ("quanto", "QuantoHfQuantizer"),
    ("quark", "QuarkHfQuantizer"),
    ("torchao", "TorchAoHfQuantizer"),
)
"""Module and class; the others have their modules load their own tensors."""

POINTS = tuple(
    HookPoint(
        f"transformers.quantizers.quantizer_{module}:{name}.create_quantized_param",
        "quantize",
        until="C",
        optional=True,
        handler=quantize_handler,
    )
    for module, name in QUANTIZERS
)
