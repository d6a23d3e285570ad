"""Lists of items as the command line writes them: ``key=value, key={"a": 1}``."""

from __future__ import annotations


def split(text: str, separators: str = ",") -> list[str]:
    """Returns the pieces of a text between separators that are not inside brackets or quotes."""
    pieces, depth, quoted, current = [], 0, False, ""
    for character in text:
        quoted ^= character == '"'
        if not quoted:
            depth += (character in "{[(") - (character in "}])")
        if character in separators and depth == 0 and not quoted:
            pieces.append(current)
            current = ""
        else:
            current += character
    return [piece.strip() for piece in (*pieces, current) if piece.strip()]
