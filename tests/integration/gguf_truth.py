"""The truth about what a GGUF file holds, found with the ``gguf`` package."""

from __future__ import annotations

import torch

TORCH_NAMES = {
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F64": "float64",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
}
_PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class GgufFile:
    """A file's tensors, by key."""

    def __init__(self, path: str) -> None:
        import gguf

        self._dequantize = gguf.quants.dequantize
        self._tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}

    def __contains__(self, key: str) -> bool:
        return key in self._tensors

    def values(self) -> dict[str, torch.Tensor]:
        """Returns every tensor by key, as numbers."""
        return {key: self.numbers(key) for key in self._tensors}

    def dtype(self, key: str) -> str:
        """Returns torch's name of a tensor's type, or GGUF's own."""
        name = self._tensors[key].tensor_type.name
        return TORCH_NAMES.get(name, name)

    def raw(self, key: str) -> torch.Tensor:
        """Returns a tensor's bytes."""
        return torch.frombuffer(bytearray(self._tensors[key].data.tobytes()), dtype=torch.uint8)

    def numbers(self, key: str) -> torch.Tensor:
        """Returns a tensor in torch's shape: as it is stored where torch has the dtype, else dequantised."""
        tensor = self._tensors[key]
        shape = [int(size) for size in reversed(tensor.shape)]
        plain = _PLAIN.get(tensor.tensor_type.name)
        if plain is not None:
            return self.raw(key).view(plain).reshape(shape)
        return torch.from_numpy(self._dequantize(tensor.data, tensor.tensor_type).copy()).reshape(shape)

    def false_facts(self, row, tensor: torch.Tensor) -> list[str]:
        """Holds a row that names keys of this file, and the tensor in the model, against what is there."""
        missing = [key for key in row.keys if key not in self]
        if missing:
            return [f"no keys {missing} in {row.file}"]
        stored = [self._tensors[key] for key in row.keys]
        wrong = []
        dtypes = {self.dtype(key) for key in row.keys}
        if row.stored_dtype not in (dtypes if len(dtypes) == 1 else (None,)):
            wrong.append(f"stored dtype {row.stored_dtype}, really {dtypes}")
        if len(stored) == 1 and row.offset != stored[0].data_offset:
            wrong.append(f"offset {row.offset}, really {stored[0].data_offset}")
        items = sum(int(each.n_elements) for each in stored)
        packed = tensor.dtype == torch.uint8
        share = 1 if packed else min(tensor.numel() / items, 1)
        if row.stored_bytes != round(sum(int(each.n_bytes) for each in stored) * share):
            wrong.append(f"stored bytes {row.stored_bytes}, really {share} of what its keys have")
        here = tensor.detach().cpu()
        if row.provenance == "checkpoint":
            (key,) = row.keys
            if packed:
                same = torch.equal(self.raw(key), here.flatten())
            else:
                same = row.stored_dtype in TORCH_NAMES.values() and torch.equal(
                    self.numbers(key).to(here.dtype), here
                )
            if not same:
                wrong.append(f"said to be {key} of the file, and its values are not")
        elif row.provenance == "converted":
            if packed:
                values = torch.cat([self.raw(key) for key in row.keys])
            else:
                values = torch.cat([self.numbers(key).float().flatten() for key in row.keys])
            if not _reordered(values, here.float() if not packed else here, here.dtype):
                wrong.append(f"said to be made of {row.keys}, and has other values")
            elif len(row.keys) == 1 and not packed and row.stored_dtype in TORCH_NAMES.values():
                stored_as = self.numbers(row.keys[0])
                if stored_as.shape == here.shape and torch.equal(stored_as.to(here.dtype), here):
                    wrong.append(f"said to be converted, and it is {row.keys[0]} as it stands in the file")
        return wrong


def _reordered(values: torch.Tensor, here: torch.Tensor, dtype: torch.dtype) -> bool:
    """Returns whether a tensor has the values of its keys, or a part of them, in whatever order.

    What some architectures are stored as is no number of the model: a norm
    less one, minus the exponential of a parameter.
    """
    here = here.flatten().sort().values
    for made in (lambda x: x, lambda x: x - 1, lambda x: torch.log(-x)):
        # Rounded to the model's dtype, as the loader does; numpy's logarithm differs in the last bit.
        made_here = made(values).to(dtype).to(here.dtype).flatten().sort().values
        if here.numel() == made_here.numel() and torch.allclose(made_here, here, rtol=1e-6, atol=0):
            return True
        if here.numel() < made_here.numel() and bool(torch.isin(here, made_here).all()):
            return True
    return False
