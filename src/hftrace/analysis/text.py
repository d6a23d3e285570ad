"""Messages of others, cut to what fits into a sentence of ours."""

from __future__ import annotations


def first_sentences(message: str, maximum: int = 300) -> str:
    """Returns the first line of a message without its full stop, cut where a sentence ends if it is long."""
    line = next((line.strip() for line in message.splitlines() if line.strip()), "no message")
    if len(line) > maximum:
        whole = line[:maximum].rpartition(". ")[0]
        line = whole or line[:maximum]
    return line.rstrip(".")
