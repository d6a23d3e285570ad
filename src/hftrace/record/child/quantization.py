"""Quantisation that was asked of ``hftrace load``: refused where it cannot be, before a model is imported."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class QuantizationError(Exception):
    """A quantisation cannot be had here."""


class _Method(NamedTuple):
    """What a method needs."""

    configuration: str
    """Its class in transformers."""
    module: str | None = None
    """Quantises."""
    package: str | None = None
    """What is installed to have the module."""
    stored: bool = False
    """Whether it only reads what is stored in it already."""
    device: bool = False
    """Whether it takes a GPU, unless the checkpoint is stored in it."""


_METHODS: Mapping[str, _Method] = {
    "bitsandbytes": _Method("BitsAndBytesConfig", "bitsandbytes", "bitsandbytes"),
    "torchao": _Method("TorchAoConfig", "torchao", "torchao"),
    "quanto": _Method("QuantoConfig", "optimum.quanto", "optimum-quanto"),
    "compressed-tensors": _Method(
        "CompressedTensorsConfig", "compressed_tensors", "compressed-tensors", stored=True
    ),
    "fp8": _Method("FineGrainedFP8Config", device=True),
    "mxfp4": _Method("Mxfp4Config", device=True),
}


def check_installed(quantization: object) -> None:
    """Refuses a method whose package is not installed; imports nothing.

    Args:
        quantization: The keyword ``quantization_config``; all but the object of a known method passes.

    Raises:
        QuantizationError: It says what to install.
    """
    method = _method_of(quantization)
    if method is None or method.module is None or _is_there(method.module):
        return
    name = method.module.partition(".")[0] if method.module != "optimum.quanto" else method.package
    raise QuantizationError(f"{name} is not installed here: pip install {method.package}")


def check_possible(quantization: object, model: str) -> None:
    """Refuses a method that this version of transformers, this checkpoint or this machine cannot do.

    Args:
        quantization: See :func:`check_installed`.
        model: A directory, whose config is looked into, or a name on the Hub.

    Raises:
        QuantizationError: It says why.
    """
    method = _method_of(quantization)
    if method is None:
        return
    transformers: Any = importlib.import_module("transformers")
    if getattr(transformers, method.configuration, None) is None:
        raise QuantizationError(
            f"transformers {transformers.__version__} has no {method.configuration}: upgrade it"
        )
    assert isinstance(quantization, Mapping)
    asked, stored = str(quantization["quant_method"]), _stored_method(model)
    if stored == asked or stored is None:
        return
    if method.stored:
        raise QuantizationError(
            f"{asked} reads checkpoints that are stored in it, and {model} is "
            + (f"stored in {stored}" if stored else "not quantised")
        )
    if method.device and not _has_device():
        raise QuantizationError(
            f"{asked} quantises on a GPU, and there is none here; a checkpoint that is stored in {asked} "
            "loads without one"
        )


def as_object(quantization: object) -> object:
    """Returns the configuration in the form that transformers takes: of torchao it takes objects alone."""
    if not isinstance(quantization, Mapping) or quantization.get("quant_method") != "torchao":
        return quantization
    kind = quantization.get("quant_type")
    if not isinstance(kind, str):
        return quantization
    options = {
        name: value for name, value in quantization.items() if name not in ("quant_method", "quant_type")
    }
    transformers: Any = importlib.import_module("transformers")
    name = "".join(word.capitalize() for word in kind.split("_")) + "Config"
    made = getattr(importlib.import_module("torchao.quantization"), name, None)
    if made is None:
        return transformers.TorchAoConfig(kind, **options)
    try:
        return transformers.TorchAoConfig(made(**options))
    except TypeError as error:
        raise QuantizationError(f"torchao: {error}") from None


def _method_of(quantization: object) -> _Method | None:
    if not isinstance(quantization, Mapping):
        return None
    return _METHODS.get(str(quantization.get("quant_method")))


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _stored_method(model: str) -> str | None:
    """Returns the method that a checkpoint is stored in; empty for none, None where nobody can say yet."""
    try:
        config = json.loads(Path(model, "config.json").read_text(encoding="utf-8"))
        stored = config.get("quantization_config")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return str(stored.get("quant_method")) if isinstance(stored, Mapping) else ""


def _has_device() -> bool:
    torch: Any = importlib.import_module("torch")
    return bool(torch.cuda.is_available() or (hasattr(torch, "xpu") and torch.xpu.is_available()))
