"""A file that is not what its format asks for: what is wrong with it, in one word, and its sizes."""

from __future__ import annotations

from hftrace.errors import HftraceError


class DamagedError(HftraceError):
    """A file that is not whole, or not what its name says.

    Args:
        message: One sentence.
        problem: One of :data:`~hftrace.schema.vocabulary.DAMAGES`.
        size_bytes: What is there; None if unknown.
        expected_bytes: What should be there; None where the file does not say it.
        detail: What the header says that cannot be.
    """

    def __init__(
        self,
        message: str,
        problem: str,
        size_bytes: int | None = None,
        expected_bytes: int | None = None,
        detail: str | None = None,
    ) -> None:
        super().__init__(message)
        self.problem = problem
        self.size_bytes = size_bytes
        self.expected_bytes = expected_bytes
        self.detail = detail
