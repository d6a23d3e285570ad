"""Builds inputs for one forward pass from a model's config and the signature of its ``forward``.

The values mean nothing; shapes, dtypes and ranges are what the model takes.
Nothing is random, so that the state of the generators stays what it was.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

TOKENS = 8
"""Length of the texts that are built."""
SAMPLES = 16_000
"""Length of the sound waves that are built: one second, for most models."""
FRAMES = 128
"""Length of a spectrogram, where the config does not say which length it must have."""
IMAGE_SIZE = 224
CHANNELS = 3
IDENTIFIERS = ("input_ids", "inputs")
"""What models call token ids: Perceiver has a word of its own."""


class InputError(Exception):
    """No inputs can be built, or those that were given cannot be used."""


def main_device(model: Any) -> Any:
    """Returns the device that inputs go to.

    For a model that is spread over devices that is the first one which is not
    the CPU, as accelerate has it; else where the first parameter with data is.
    """
    import torch

    device_map = getattr(model, "hf_device_map", None)
    if isinstance(device_map, dict):
        devices = [device for device in device_map.values() if str(device) not in ("cpu", "disk", "meta")]
        if devices:
            return torch.device(devices[0])
    for parameter in model.parameters():
        if parameter.device.type != "meta":
            return parameter.device
    return torch.device("cpu")


def floating_dtype(model: Any) -> Any:
    """Returns the dtype of floating inputs: the model's own, float32 where that is none to compute in."""
    import torch

    usual = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    for parameter in model.parameters():
        if parameter.dtype in usual:
            return parameter.dtype
    return torch.float32


def given_inputs(model: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Returns inputs that somebody wrote as JSON: nested lists become tensors, anything else stays.

    Args:
        model: The model.
        given: Values by keyword. Integers become int64, numbers with a
            fraction the model's floating dtype, truth values bool.

    Raises:
        InputError: A list is ragged, or holds something else than numbers.
    """
    import torch

    device, dtype = main_device(model), floating_dtype(model)
    inputs: dict[str, Any] = {}
    for name, value in given.items():
        if not isinstance(value, list):
            inputs[name] = value
            continue
        try:
            tensor = torch.tensor(value)
        except (ValueError, TypeError, RuntimeError) as error:
            reason = str(error).split("\n")[0]
            raise InputError(f"{name} of --input is no list that makes a tensor: {reason}") from None
        inputs[name] = tensor.to(device, dtype) if tensor.is_floating_point() else tensor.to(device)
    return inputs


def build_inputs(model: Any) -> dict[str, Any]:
    """Returns tensors for one forward pass of a model, by keyword.

    Raises:
        InputError: ``forward`` wants something that no config says.
    """
    parameters = inspect.signature(model.forward).parameters
    inputs = _Builder(model, set(parameters)).build()
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and name not in inputs
    ]
    if missing or not inputs:
        wanted = ", ".join(missing) or "inputs"
        raise InputError(
            f"{type(model).__name__} wants {wanted}, which cannot be built from its config: "
            "give all inputs with --input"
        )
    return inputs


class _Builder:
    """Builds the inputs of one model.

    Args:
        model: The model.
        names: Keywords that its ``forward`` takes.
    """

    def __init__(self, model: Any, names: set[str]) -> None:
        self.model = model
        self.names = names
        self.config = model.config
        self.device = main_device(model)
        self.dtype = floating_dtype(model)

    def build(self) -> dict[str, Any]:
        """Returns the main input, the other tower's, and the decoder's."""
        inputs: dict[str, Any] = {}
        makers: dict[str, Callable[[], Any]] = {
            **dict.fromkeys(IDENTIFIERS, self._tokens),
            "pixel_values": self._images,
            "input_features": self._spectrogram,
            "input_values": self._sound,
        }
        for name in self._modalities():
            if name in makers:
                inputs[name] = makers[name]()
        if getattr(self.config, "is_encoder_decoder", False) and "decoder_input_ids" in self.names:
            inputs["decoder_input_ids"] = self._tokens(self._decoder_config(), first=self._decoder_start())
        return inputs

    def _modalities(self) -> Iterator[str]:
        """Yields which inputs to build."""
        main = str(getattr(self.model, "main_input_name", "input_ids"))
        token_names = [name for name in IDENTIFIERS if name in self.names]
        config = self.config
        parts = {part for part in ("text", "vision", "audio") if self._part(f"{part}_config") is not None}
        # A language model that also sees needs images only where the text has places for them.
        places = any(
            getattr(config, f"{kind}_token_{suffix}", None) is not None
            for kind in ("image", "video", "audio")
            for suffix in ("id", "index")
        )
        if places and token_names:
            yield token_names[0]
            return
        if "text" in parts and len(parts) > 1 and token_names:
            # Two towers that are compared: each has its input.
            yield token_names[0]
            if "vision" in parts and "pixel_values" in self.names:
                yield "pixel_values"
            if "audio" in parts:
                yield from [name for name in ("input_features", "input_values") if name in self.names][:1]
            return
        if main in self.names:
            yield main
            joint = all(hasattr(config, name) for name in ("vocab_size", "image_size", "patch_size"))
            if joint and main in IDENTIFIERS and "pixel_values" in self.names:
                yield "pixel_values"  # one encoder of text and image (ViLT)
        else:
            known = (*IDENTIFIERS, "pixel_values", "input_features", "input_values")
            yield from [name for name in known if name in self.names][:1]

    def _part(self, name: str) -> Any:
        part = getattr(self.config, name, None)
        return part if hasattr(part, "to_dict") else None

    def _ramp(self, *shape: int) -> Any:
        """Returns numbers between -1 and 1: neither constant nor random."""
        import torch

        count = 1
        for size in shape:
            count *= size
        wave = torch.arange(count, dtype=torch.float32).mul_(0.37).sin_()
        return wave.reshape(shape).to(self.device, self.dtype)

    # -- text -------------------------------------------------------------------------------------

    def _decoder_config(self) -> Any:
        return self._part("decoder") or self._part("text_config") or self.config

    def _decoder_start(self) -> int | None:
        holders = (self.config, self._decoder_config(), getattr(self.model, "generation_config", None))
        for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):
            for holder in holders:
                value = getattr(holder, name, None)
                if isinstance(value, list) and value:
                    value = value[0]
                if isinstance(value, int):
                    return value
        return None

    def _tokens(self, config: Any = None, first: int | None = None) -> Any:
        import torch

        config = config or self._part("text_config") or self._part("encoder") or self.config
        size = getattr(config, "vocab_size", None)
        if not isinstance(size, int):
            embeddings = self.model.get_input_embeddings()
            size = getattr(embeddings, "num_embeddings", None) or 100
        # From the middle of the vocabulary: its ends have the tokens that mean something special.
        identifiers = (torch.arange(TOKENS) * 7 + size // 2) % size
        if first is not None and 0 <= first < size:
            identifiers[0] = first
        return identifiers.unsqueeze(0).to(self.device)

    # -- images and sound -------------------------------------------------------------------------

    def _images(self) -> Any:
        config = self._part("vision_config") or self._part("encoder") or self.config
        height, width = _pair(getattr(config, "image_size", None))
        channels = getattr(config, "num_channels", None)
        shape = [channels if isinstance(channels, int) else CHANNELS, height, width]
        frames = getattr(config, "num_frames", None)
        if isinstance(frames, int):
            shape.insert(0, frames)
        return self._ramp(1, *shape)

    def _audio_config(self) -> Any:
        return self._part("audio_config") or self._part("encoder") or self.config

    def _spectrogram(self) -> Any:
        config = self._audio_config()
        bins = getattr(config, "num_mel_bins", None)
        positions = getattr(config, "max_source_positions", None)
        if isinstance(bins, int) and isinstance(positions, int) and not hasattr(config, "num_conv_layers"):
            # Whisper takes exactly as many frames as its encoder has places, before it halves them.
            return self._ramp(1, bins, 2 * positions)
        picture = getattr(config, "spec_size", None)
        if isinstance(picture, int) and isinstance(bins, int):
            return self._ramp(1, 1, picture, bins)  # a spectrogram that is looked at as a picture (CLAP)
        size = getattr(config, "input_feat_per_channel", None) or getattr(
            config, "feature_projection_input_dim", None
        )
        size = size if isinstance(size, int) else bins if isinstance(bins, int) else 80
        return self._ramp(1, FRAMES, size * (getattr(config, "input_channels", None) or 1))

    def _sound(self) -> Any:
        config = self._audio_config()
        bins, length = getattr(config, "num_mel_bins", None), getattr(config, "max_length", None)
        if getattr(config, "patch_size", None) and isinstance(bins, int) and isinstance(length, int):
            return self._ramp(1, length, bins)  # a spectrogram under another name (AST)
        channels = getattr(config, "audio_channels", None)
        return self._ramp(1, channels, SAMPLES) if isinstance(channels, int) else self._ramp(1, SAMPLES)


def _pair(size: Any) -> tuple[int, int]:
    """Returns height and width of an image size, however a config writes it."""
    if isinstance(size, int):
        return size, size
    if isinstance(size, (list, tuple)) and len(size) >= 2:
        return int(size[-2]), int(size[-1])
    if isinstance(size, dict) and {"height", "width"} <= set(size):
        return int(size["height"]), int(size["width"])
    return IMAGE_SIZE, IMAGE_SIZE
