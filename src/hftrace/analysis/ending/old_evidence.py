"""Evidence of traces before 1.1, which were English sentences: the one fact that is read back out of them.

From 1.1 on evidence is data (see :mod:`hftrace.analysis.ending.evidence`), and nothing reads a sentence.
"""

from __future__ import annotations

from typing import Any


def is_kernel_sentence(evidence: Any) -> bool:
    """Returns whether a sentence of a trace of version 1.0 quotes the kernel about killing the process."""
    return isinstance(evidence, str) and evidence.startswith("The kernel says")
