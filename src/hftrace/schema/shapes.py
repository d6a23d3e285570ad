"""The words for what a fact of a trace has to be."""

from __future__ import annotations

from typing import Any, Final

TEXT: Final = "text"
FLAG: Final = "flag"
AMOUNT: Final = "amount"
"""An integer that is not negative: bytes, a duration, a count, an id."""
INTEGER: Final = "integer"
NUMBER: Final = "number"
"""A rate or so: an integer or a float, and not negative."""
SHARE: Final = "share"
ANY: Final = "any"
Shape = Any
"""One of these words; ``[shape]`` is a list, ``{"name": shape}`` an object, where ``*`` is any other name;
``(shape, shape)`` is one or the other."""
