"""GGUF files, by both ways in which transformers reads them.

``load_gguf_checkpoint`` dequantises one tensor of the file after the other with
numpy and hands the model a dictionary of finished tensors. What became of each
is seen where it passes through its architecture's ``TensorProcessor.process``,
which reorders, transposes, merges or splits it. 5.17 added a reader of its own
for a few architectures: lazy tensors under the file's own names, which go the
way of every other checkpoint of 5.x.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from hftrace.record.hooks.capture import absolute, basename, note_checkpoint, noted_paths
from hftrace.record.hooks.events import EventHandler
from hftrace.record.hooks.gguf_inline import unpacked
from hftrace.record.hooks.points import Call, HookPoint
from hftrace.record.hooks.wrappers import SpanObserver, observed_by
from hftrace.record.recorder import Recorder, clock
from hftrace.record.thread_state import OpenSpan
from hftrace.schema import lines

LEGACY = "transformers.modeling_gguf_pytorch_utils"
LAZY = "transformers.integrations.gguf.reader"
QUANTIZER = "transformers.quantizers.quantizer_gguf:GgufHfQuantizer"


def _path_of(call: Call) -> Any:
    """Returns the file that a call is about: the first argument, or the second of a method."""
    for name in ("gguf_checkpoint_path", "gguf_path", "gguf_file", "path"):
        path = call.get(name)
        if isinstance(path, (str, os.PathLike)):
            return path
    # ``load_gguf_state_dict`` is handed the header, which knows its file.
    return getattr(call.get("header"), "path", None)


class FileObserver(SpanObserver):
    """A call that reads a GGUF file, its header or all of it, for what the span around it is for."""

    def begin(self, call: Call, started: int) -> OpenSpan | None:
        """Begins a span that names the file."""
        stack = self.state.stack
        path = _path_of(call)
        function = self.point.function.removesuffix(".__init__").rpartition(".")[2]
        name = f"{function}({basename(path)})" if path is not None else function
        # The reader's own span is a part of the one for the file.
        is_file = path is not None and not self.point.function.endswith(".__init__")
        attributes = {"file": basename(path)} if is_file else None
        phase = self._phase(call, stack[-1].phase if stack else "")
        if phase == "shard" and path is not None and absolute(path) not in noted_paths(self.recorder):
            note_checkpoint(self.recorder, path)
        return self.recorder.begin(phase, name, self.number, attributes, started)

    def _phase(self, call: Call, above: str) -> str:
        """Returns what the call is for."""
        return self.point.phase if above in ("", "load") else above


class CheckpointObserver(FileObserver):
    """``load_gguf_checkpoint``: for the config, for a tokenizer, or with all tensors."""

    def _phase(self, call: Call, above: str) -> str:
        return "shard" if call.get("return_tensors") else super()._phase(call, above)

    def begin(self, call: Call, started: int) -> OpenSpan | None:
        """Begins a span that names the file."""
        self.state.gguf_turns, self.state.gguf_keys = [], []
        return super().begin(call, started)

    def finish(self, token: OpenSpan, call: Call, result: Any) -> None:
        """Says how many tensors there are now, and what each was made of where no processor has told."""
        ended = clock()
        tensors = result.get("tensors") if isinstance(result, Mapping) else None
        if tensors and "TensorProcessor" not in vars(sys.modules[LEGACY]):
            turns = unpacked(self.state.gguf_keys, self.state.gguf_turns, ended, result)
            self.recorder.local.buffer.unpacks.extend(itertools.chain.from_iterable(turns))
        self.state.gguf_turns, self.state.gguf_keys = [], []
        attributes = {"tensors": len(tensors)} if isinstance(tensors, Mapping) else None
        self.recorder.end(token, "ok", attributes)


class ReaderObserver(FileObserver):
    """``GGUFReader(path)``: a part of the span of its file, whose tensors it knows by name."""

    def finish(self, token: OpenSpan, call: Call, result: Any) -> None:
        """Notes the names."""
        self.state.gguf_keys = [str(tensor.name) for tensor in call.first().tensors]
        super().finish(token, call, result)


class _Made(threading.local):
    """What the processors themselves have put into the dictionary that this thread fills."""

    def __init__(self) -> None:
        self.versions: dict[str, int] = {}
        """By name: torch's count of the changes in place of that tensor."""


class ProcessObserver(SpanObserver):
    """``process(weights=, name=, tensor_key_mapping=, parsed_parameters=)``, once for each tensor.

    It returns the values and the file's name for them, which the loader looks
    up and stores; or no name, where it has stored them itself: under several
    names, or as a part of a tensor that others are a part of too.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._made = _Made()

    def begin(self, call: Call, started: int) -> tuple[int, int] | None:
        """Returns when the tensor's turn began, and how many there were."""
        tensors = _tensors_of(call)
        if tensors is None:
            return None
        if not tensors:
            self._made.versions.clear()
        dequantized, self.state.dequantized = self.state.dequantized, 0
        return dequantized or started, len(tensors)

    def finish(self, token: tuple[int, int], call: Call, result: Any) -> None:
        """Notes under which names the tensor is known from now on, and whether its values are the same."""
        began, before = token
        key, name = call.get("name"), getattr(result, "name", None)
        weights = call.get("weights")
        touched = getattr(result, "weights", None) is not weights
        if name is None:
            tensors = _tensors_of(call) or {}
            names = self._stored_itself(tensors, before)
            touched = touched or len(names) != 1 or tuple(tensors[names[0]].shape) != tuple(weights.shape)
        else:
            target = (call.get("tensor_key_mapping") or {}).get(name)
            names = [] if target is None else [target]
        operations = [type(call.first()).__name__] if touched else []
        what: Any = [names, operations] if operations or len(names) != 1 else names[0]
        self.recorder.local.buffer.unpacks.extend((key, what, began, clock()))

    def fail(self, token: tuple[int, int], call: Call, error: BaseException) -> None:
        """Notes nothing: the span around it has the error."""

    def _stored_itself(self, tensors: dict[str, Any], before: int) -> list[str]:
        """Returns the names that a processor stored under: new ones, else those whose tensor has changed."""
        versions = self._made.versions
        names = list(itertools.islice(reversed(tensors), len(tensors) - before))[::-1] or [
            name for name, version in versions.items() if tensors[name]._version != version
        ]
        versions.update((name, tensors[name]._version) for name in names)
        return names


def _tensors_of(call: Call) -> dict[str, Any] | None:
    """Returns the dictionary that is being filled."""
    parsed = call.get("parsed_parameters")
    tensors = parsed.get("tensors") if isinstance(parsed, Mapping) else None
    return tensors if isinstance(tensors, dict) else None


def _named(recorder: Recorder, span: OpenSpan, call: Call, result: Any) -> dict[str, Any] | None:
    """``get_gguf_hf_weights_map`` returns {key in the file: name in the model}."""
    if not isinstance(result, Mapping) or not result:
        return None
    recorder.write(lines.Renames(span.id, [str(part) for pair in result.items() for part in pair]))
    return {"keys": len(result)}


def processors() -> Iterator[HookPoint]:
    """Yields a hook point for each class that processes the tensors of an architecture."""
    module = vars(sys.modules[LEGACY])
    base = module.get("TensorProcessor")
    for name, value in list(module.items()):
        if isinstance(base, type) and isinstance(value, type) and issubclass(value, base):
            yield HookPoint(f"{LEGACY}:{name}.process", "convert", optional=True, handler=process_handler)


file_handler = observed_by(FileObserver)
reader_handler = observed_by(ReaderObserver)
checkpoint_handler = observed_by(CheckpointObserver)
process_handler = observed_by(ProcessObserver)
dequantize_handler = EventHandler(
    "state.dequantized = started; state.gguf_keys and state.gguf_turns.append(started)",
    {},
    helpers=lambda recorder, *_: {"state": recorder.state},
)
"""``dequantize(data, qtype)``: where the turn of a tensor begins that a processor is handed next."""

POINTS = (
    HookPoint(f"{LEGACY}:load_gguf_checkpoint", "config", optional=True, handler=checkpoint_handler),
    HookPoint(
        f"{LEGACY}:get_gguf_hf_weights_map", "resolve", optional=True, outermost_only=True, finish=_named
    ),
    HookPoint("gguf.gguf_reader:GGUFReader.__init__", "config", optional=True, handler=reader_handler),
    HookPoint("gguf.quants:dequantize", "convert", optional=True, handler=dequantize_handler),
    # Up to 4.44, of transformers' own.
    HookPoint(
        "transformers.integrations.ggml:load_dequant_gguf_tensor",
        "convert",
        optional=True,
        handler=dequantize_handler,
    ),
    HookPoint(f"{LAZY}:read_gguf_metadata", "config", since="D", optional=True, handler=file_handler),
    HookPoint(f"{LAZY}:load_gguf_state_dict", "resolve", since="D", optional=True, handler=file_handler),
    HookPoint(f"{QUANTIZER}.read_header", "quantizer", since="D", optional=True, handler=file_handler),
)
