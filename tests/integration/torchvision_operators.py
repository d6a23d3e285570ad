"""Imports torchvision beside a torch that its compiled operators are not for.

They are declared, and cannot be called; torchvision wants no more of them when it is imported.
"""

from __future__ import annotations

import torch

_NMS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared = torch.library.Library("torchvision", "DEF")
if not hasattr(torch.ops.torchvision, "nms"):
    for _name in ("nms", "qnms"):
        _declared.define(f"{_name}{_NMS}")

import torchvision  # noqa: E402, F401
