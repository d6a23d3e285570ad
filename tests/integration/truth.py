"""The truth about a load, found without hftrace: from the files' bytes and the finished model's tensors.

Which checkpoint key a parameter came from is decided by its *content*: every
tensor of a test checkpoint is random, so a parameter whose bytes equal a key's
bytes (after the cast that the loader does) can only have come from there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from gguf_truth import GgufFile


def randomize(model, seed: int = 0) -> None:
    """Gives every floating parameter and buffer random values, norms and biases included."""
    generator = torch.Generator().manual_seed(seed)
    seen = set()
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if id(tensor) in seen or not tensor.is_floating_point() or tensor.device.type == "meta":
                continue
            seen.add(id(tensor))
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float32)
            tensor.copy_((noise * 0.05 + 0.01).to(tensor.dtype))


def fingerprint(tensor: torch.Tensor) -> str:
    """Returns a hash of a tensor's bytes, dtype and number of elements (a reshaped copy has the same)."""
    tensor = tensor.detach().cpu()
    flat = tensor.contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else tensor
    digest = hashlib.sha256(bytes(flat.numpy().tobytes()))
    return f"{tensor.dtype}:{tensor.numel()}:{digest.hexdigest()}"


@dataclass
class Stored:
    """One tensor in a checkpoint's file, read by the safetensors library or torch itself."""

    key: str
    file: str
    offset: int | None
    tensor: torch.Tensor


def read_checkpoint(directory: str | os.PathLike[str]) -> dict[str, Stored]:
    """Reads all tensors of a local checkpoint."""
    folder = Path(directory)
    stored: dict[str, Stored] = {}
    files = sorted(folder.glob("model*.safetensors"))
    for path in files:
        from safetensors.torch import load_file

        tensors = load_file(path)
        with open(path, "rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            header = json.loads(handle.read(length))
        for key, tensor in tensors.items():
            stored[key] = Stored(key, path.name, 8 + length + header[key]["data_offsets"][0], tensor)
    if not files:
        for path in sorted(folder.glob("pytorch_model*.bin")):
            for key, tensor in torch.load(path, weights_only=True).items():
                stored[key] = Stored(key, path.name, None, tensor)
    return stored


def model_tensors(model) -> dict[str, tuple[str, torch.Tensor, bool]]:
    """Returns every parameter and buffer by name: its kind, itself, and whether the state dict has it."""
    state = set(model.state_dict().keys())
    rows = {
        name: ("parameter", tensor, True) for name, tensor in model.named_parameters(remove_duplicate=False)
    }
    for name, tensor in model.named_buffers(remove_duplicate=False):
        rows[name] = ("buffer", tensor, name in state)
    return rows


def sources_by_content(model, stored: dict[str, Stored]) -> dict[str, set[str]]:
    """Returns, for each tensor of a model on CPU, the keys whose cast content it has."""
    dtypes = {tensor.dtype for _, tensor, _ in model_tensors(model).values()}
    by_content: dict[str, set[str]] = {}
    for key, entry in stored.items():
        for dtype in dtypes | {entry.tensor.dtype}:
            by_content.setdefault(fingerprint(entry.tensor.to(dtype)), set()).add(key)
    return {
        name: by_content.get(fingerprint(tensor), set())
        for name, (_, tensor, _) in model_tensors(model).items()
        if tensor.device.type != "meta"
    }


def assert_same_model(left, right, new: frozenset[str] = frozenset()) -> None:
    """A traced load gives the very same model as an untraced one, bit for bit.

    Args:
        left: One model.
        right: The other.
        new: Tensors whose values this transformers leaves to chance.
    """
    ours, theirs = model_tensors(left), model_tensors(right)
    assert list(ours) == list(theirs)
    for name, (kind, tensor, _) in ours.items():
        other_kind, other, _ = theirs[name]
        assert kind == other_kind
        assert tensor.dtype == other.dtype
        assert tensor.device == other.device
        assert tensor.shape == other.shape
        assert tensor.requires_grad == other.requires_grad
        assert type(tensor) is type(other)
        if tensor.device.type != "meta" and name not in new:
            assert fingerprint(tensor) == fingerprint(other), name
    assert left.training == right.training
    assert getattr(left, "hf_device_map", None) == getattr(right, "hf_device_map", None)


def torch_name(value) -> str:
    """Returns torch's name of a dtype without the module."""
    return str(value).removeprefix("torch.")


def held_by(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Returns the plain tensors that a tensor's data lies in, statistics of a quantised one included."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is not None:
        return [part for name in flatten()[0] for part in held_by(getattr(tensor, name))]
    held = [tensor]
    state = getattr(tensor, "quant_state", None)
    while state is not None:
        held += [part for part in (state.absmax, state.code, state.offset) if isinstance(part, torch.Tensor)]
        state = state.state2
    scales = getattr(tensor, "SCB", None)
    return [*held, scales] if scales is not None else held


def disagreements(model, trace) -> list[str]:
    """Holds each row of a ledger against the model and the bytes of the files; returns what is false.

    Args:
        model: The finished model.
        trace: Of one load that returned it.
    """
    real = {(kind, name): tensor for name, (kind, tensor, _) in model_tensors(model).items()}
    rows = {(row.kind, row.name): row for row in trace.tensors if row.kind != "unused"}
    wrong = [f"not in the ledger: {name}" for _, name in real.keys() - rows.keys()]
    wrong += [f"only in the ledger: {name}" for _, name in rows.keys() - real.keys()]
    files = _Files({file.name: file.path for file in trace.files if file.path})
    for key in real.keys() & rows.keys():
        wrong += [f"{key[1]}: {what}" for what in _false_facts(rows[key], real[key], files)]
    return sorted(wrong)


def _false_facts(row, tensor: torch.Tensor, files: _Files) -> list[str]:
    wrong = []
    held = held_by(tensor)
    if row.device != str(tensor.device):
        wrong.append(f"device {row.device}, really {tensor.device}")
    if len(held) == 1:
        if row.shape != list(held[0].shape):
            wrong.append(f"shape {row.shape}, really {list(held[0].shape)}")
        if row.dtype != torch_name(held[0].dtype):
            wrong.append(f"dtype {row.dtype}, really {held[0].dtype}")
    if row.bytes is not None and row.bytes != sum(part.nbytes for part in held):
        wrong.append(f"bytes {row.bytes}, really {sum(part.nbytes for part in held)}")
    if len(held) > 1:
        largest = max(held, key=lambda part: part.nbytes)
        if row.dtype != torch_name(largest.dtype):
            wrong.append(f"dtype {row.dtype}, what it holds is {largest.dtype}")
        if row.provenance not in ("quantized", "tied", "unknown"):
            wrong.append(f"said to be {row.provenance}, and it holds codes and what belongs to them")
        stored = {key for tensors in files.all() for key in tensors}
        wrong += [f"no key {key} in the checkpoint" for key in row.keys if key not in stored]
    if tensor.is_meta or len(held) > 1:
        return wrong
    file = files.gguf(row.file)
    if file is not None and row.keys and row.kind != "unused":
        wrong += file.false_facts(row, tensor)
    elif row.provenance == "checkpoint" and row.file and len(row.keys) == 1:
        stored = files.tensor(row.file, row.keys[0])
        if stored is None:
            wrong.append(f"no key {row.keys[0]} in {row.file}")
        elif row.stored_dtype != torch_name(stored.dtype):
            wrong.append(f"stored dtype {row.stored_dtype}, really {stored.dtype}")
        elif stored.shape != tensor.shape or not torch.equal(stored.to(tensor.dtype), tensor.detach().cpu()):
            wrong.append(f"said to be {row.keys[0]} of the checkpoint, and its values are not")
    varied = tensor.numel() >= 8 and not bool((tensor == tensor.flatten()[0]).all())
    if row.provenance == "computed" and not tensor.is_floating_point():
        return wrong  # position ids are the same everywhere
    if row.provenance in ("initialized", "uninitialized", "unknown", "computed") and varied:
        key = files.key_of(tensor)
        if key is not None:
            wrong.append(f"said to be {row.provenance}, and it is {key} of the checkpoint")
    return wrong


class _Files:
    """The tensors of weight files, read by the safetensors library, the gguf package or torch itself."""

    def __init__(self, paths: dict[str, str]) -> None:
        self._paths = paths
        self._gguf: dict[str, GgufFile] = {}
        self._read: dict[str, dict[str, torch.Tensor]] = {}

    def _tensors(self, name: str) -> dict[str, torch.Tensor]:
        if name not in self._read:
            # A row gives the whole path where two files of the trace have one name.
            path = name if os.path.isabs(name) else self._paths.get(name, "")
            if path.endswith(".safetensors"):
                from safetensors.torch import load_file

                self._read[name] = load_file(path)
            elif path.endswith(".bin"):
                self._read[name] = torch.load(path, weights_only=True)
            elif (file := self.gguf(name)) is not None:
                self._read[name] = file.values()
            else:
                self._read[name] = {}
        return self._read[name]

    def gguf(self, name: str | None) -> GgufFile | None:
        """Returns a file of the name, where it is a GGUF file."""
        path = self._paths.get(name or "", "")
        if not path.endswith(".gguf"):
            return None
        if path not in self._gguf:
            self._gguf[path] = GgufFile(path)
        return self._gguf[path]

    def tensor(self, name: str, key: str) -> torch.Tensor | None:
        return self._tensors(name).get(key)

    def all(self) -> list[dict[str, torch.Tensor]]:
        return [self._tensors(name) for name in self._paths]

    def key_of(self, tensor: torch.Tensor) -> str | None:
        """Returns the key that has a tensor's values, after a cast."""
        here = tensor.detach().cpu()
        for name in self._paths:
            for key, stored in self._tensors(name).items():
                if stored.shape == here.shape and torch.equal(stored.to(here.dtype), here):
                    return key
        return None


_PRINTED = re.compile(r"( *)\(([^()]+)\): (?:(\d+) x )?([A-Za-z_][\w.]*)\(")


def printed_modules(model) -> dict[str, str]:
    """Returns the class of each module by its name, as ``print(model)`` shows them."""
    text = str(model)
    found = {"": text.partition("(")[0]}
    above: list[list[str]] = [[""]]
    for line in text.splitlines():
        match = _PRINTED.match(line)
        if match is None:
            continue
        indent, name, count, owner = match.groups()
        depth = len(indent) // 2
        names = [name]
        if count:
            first, _, last = name.partition("-")
            names = [str(at) for at in range(int(first), int(last or first) + 1)]
            assert len(names) == int(count)
        del above[depth:]
        paths = [f"{around}.{each}".lstrip(".") for around in above[depth - 1] for each in names]
        above.append(paths)
        found.update(dict.fromkeys(paths, owner))
    return found


def tree_disagreements(model, trace) -> list[str]:
    """Holds the modules that a trace says a model has against the model; returns what is false."""
    from hftrace.analysis.model_trees import model_trees

    tensors = model_tensors(model)
    trees = [
        tree
        for tree in model_trees(trace)
        if {tree.ledger[row].name for module in tree.modules for row in module.rows} == set(tensors)
    ]
    if not trees:
        return ["no model of the trace has the names of this one"]
    tree = trees[-1]
    said = {module.path: module.class_name for module in tree.modules}
    printed = printed_modules(model)
    wrong = [
        f"{path or 'the model'} is a {said.get(path)}, printed as {printed.get(path)}"
        for path in sorted(said.keys() | printed.keys())
        if said.get(path) != printed.get(path)
    ]
    for row in (tree.ledger[row] for module in tree.modules for row in module.rows):
        kind, tensor, _ = tensors[row.name]
        trained = tensor.requires_grad if kind == "parameter" else None
        if row.requires_grad != trained:
            wrong.append(f"{row.name}: requires_grad {row.requires_grad}, really {trained}")
        first = next(name for name, (_, other, _) in tensors.items() if other is tensor)
        if row.same_as != (first if first != row.name else None):
            wrong.append(f"{row.name}: same as {row.same_as}, really {first}")
    modules = dict(model.named_modules(remove_duplicate=False))
    for found in tree.modules:
        real = modules[found.path]
        parameters, buffers = list(real.parameters()), list(real.buffers())
        figures = {
            "parameters": (found.elements(), sum(each.numel() for each in parameters)),
            "trained": (
                found.elements(trained=True),
                sum(each.numel() for each in parameters if each.requires_grad),
            ),
            "buffers": (found.elements("buffer"), sum(each.numel() for each in buffers)),
        }
        if all(len(held_by(each)) == 1 for each in [*parameters, *buffers]):
            figures["bytes"] = found.bytes(), sum(held_by(each)[0].nbytes for each in [*parameters, *buffers])
        wrong += [
            f"{found.path or 'the model'}: {word} {ours}, really {theirs}"
            for word, (ours, theirs) in figures.items()
            if ours != theirs
        ]
    # A model of PEFT passes the question on to the one inside of it.
    whole = model if isinstance(model, transformers.PreTrainedModel) else None
    if whole is not None and tree.footprint_bytes != whole.get_memory_footprint():
        wrong.append(f"footprint {tree.footprint_bytes}, really {whole.get_memory_footprint()}")
    return wrong
