"""Lines of styled text, and the one place where foreign text becomes safe to print.

Views build lines out of ``(text, style)`` parts and hand them to a
:class:`Block`, which knows the console: its width, and whether it can show
more than ASCII. The glyphs of this package all have an ASCII stand-in of the
same width, so both alphabets share one layout. Text is never parsed as rich
markup, because it never passes through a markup parser.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from rich.cells import cell_len, set_cell_size

from hftrace.schema.vocabulary import PHASE_LETTERS

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

Line: TypeAlias = list[tuple[str, str]]
"""One line: parts of text, each with a style in rich's words ("" is plain)."""

PLAIN = ""
DIM = "dim"
STRONG = "bold"
BAD = "bold red"
WARN = "yellow"
GOOD = "green"

_NUMBER = re.compile(r"[^\w\s]*[0-9][0-9.,]*")
_UNIT = re.compile(r"(?:[kMGTPE]?B(?:/s)?|[nµm]?s|min|h|%|GiB|MiB|KiB)[)\].,;:]*")

_COLOURS = {
    "load": "dim",
    "import": "blue",
    "config": "cyan",
    "resolve": "cyan",
    "download": "magenta",
    "quantizer": "magenta",
    "quantize": "bright_magenta",
    "instantiate": "yellow",
    "device_map": "magenta",
    "warmup": "magenta",
    "prefetch": "green",
    "weights": "green",
    "shard": "green",
    "convert": "bright_green",
    "offload": "red",
    "initialize": "yellow",
    "tie": "bright_blue",
    "finalize": "bright_blue",
    "generation_config": "bright_cyan",
    "dispatch": "bright_magenta",
    "collect": "red",
    "adapter": "bright_yellow",
    "tokenizer": "bright_blue",
    "processor": "bright_blue",
    "mesh": "magenta",
    "wait": "red",
    "verify": "cyan",
    "stats": "cyan",
    "touch": "green",
    "forward": "bright_green",
    "tokenize": "bright_cyan",
    "generate": "bright_green",
    "prefill": "bright_green",
    "decode": "bright_green",
    "surgery": "bright_yellow",
    "save": "bright_blue",
    "step": "bright_cyan",
    "release": "dim",
}
PHASES = {
    **{phase: (letter, _COLOURS[phase]) for phase, letter in PHASE_LETTERS.items()},
    "unattributed": ("?", "dim"),
    "outside": ("·", "dim"),
    "hftrace": ("·", "dim"),
    "unrecorded": ("·", "dim"),
}
"""Letter and colour of each phase; the letter alone tells phases apart. What is outside has none."""

TIMES = "\N{MULTIPLICATION SIGN}"
DENSITY = " ░▒▓█"
HEIGHT = " ▁▂▃▄▅▆▇█"
_ASCII = str.maketrans(
    {
        "─": "-",
        "│": "|",
        "├": "|",
        "└": "`",
        "━": "=",
        TIMES: "x",
        "\N{EN DASH}": "-",
        "→": ">",
        "…": "~",
        "·": "-",
        "✓": "+",
        "✗": "x",
        "↓": "v",
        "█": "#",
        "▌": "#",
        "░": ".",
        "▒": ":",
        "▓": "+",
        "▁": "_",
        "▂": ".",
        "▃": ":",
        "▄": "-",
        "▅": "=",
        "▆": "+",
        "▇": "*",
        "µ": "u",
        "±": "~",
    }
)
_ESCAPES = (
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movement
    # OSC and other strings. One without an end is no more than its first characters: what stands
    # after the name that it came with is ours, and stays.
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]?"
)
_BLANKS = r"[\t\n\v\f\r\x85\u2028\u2029]+"
# Control characters, and the invisible ones that reorder or hide text (bidirectional
# overrides, zero-width marks, tags), and surrogates, which no UTF-8 stream can carry.
_INVISIBLE = (
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e0fff\ud800-\udfff]"
)
_TAGS = "\U000e0000"
"""Invisible from here on, although Python calls some of it printable."""


def clean(value: object) -> str:
    """Returns text from a file as it may be printed: one line, nothing that steers a terminal.

    All that is drawn passes through here in the functions of this module: what measures, fits or
    wraps text, and :class:`Block`. What is printed otherwise has to call it.
    """
    text = value if type(value) is str else str(value)
    # No character that we remove is printable, but for those of the tags.
    if text.isprintable() and (text.isascii() or max(text) < _TAGS):
        return text
    text = re.sub(_ESCAPES, "", text)
    return re.sub(_INVISIBLE, "", re.sub(_BLANKS, " ", text))


def width_of(text: str) -> int:
    """Returns the number of terminal cells that ``text`` takes."""
    text = clean(text)
    return len(text) if text.isascii() else cell_len(text)


def shorten(text: str, width: int) -> str:
    """Shortens ``text`` to ``width`` cells in the middle, where names differ least."""
    text = clean(text)
    if width_of(text) <= width:
        return text
    if width <= 1:
        return "…"[:width]
    tail = (width - 1) // 2
    head = width - 1 - tail
    start = set_cell_size(text, head).rstrip()
    end = _tail(text, tail)
    return start + "…" + end


def _tail(text: str, width: int) -> str:
    """Returns the end of ``text`` that fits into ``width`` cells."""
    used = 0
    for position in range(len(text) - 1, -1, -1):
        used += width_of(text[position])
        if used > width:
            return text[position + 1 :]
    return text


def fit(text: str, width: int, align: str = "left") -> str:
    """Shortens or pads ``text`` to exactly ``width`` cells."""
    text = shorten(text, width)
    padding = " " * (width - width_of(text))
    return padding + text if align == "right" else text + padding


def wrap(text: str, width: int) -> list[str]:
    """Breaks ``text`` at blanks into lines of at most ``width`` cells; a number keeps its unit beside it."""
    lines: list[str] = []
    current = ""
    for word in _words(clean(text).split(), width):
        word = shorten(word, width)
        if current and width_of(current) + 1 + width_of(word) > width:
            lines.append(current)
            current = word
        else:
            current = f"{current} {word}" if current else word
    return [*lines, current] if current or not lines else lines


def _words(words: list[str], width: int) -> Iterator[str]:
    """Yields words, a number and its unit as one, where both fit into a line at all."""
    held = ""
    for word in words:
        if held and _UNIT.fullmatch(word) and width_of(held) + 1 + width_of(word) <= width:
            yield f"{held} {word}"
            held = ""
            continue
        if held:
            yield held
        held = word if _NUMBER.fullmatch(word) else ""
        if not held:
            yield word
    if held:
        yield held


def line_width(line: Line) -> int:
    """Returns the number of cells of a line."""
    return sum(width_of(text) for text, _ in line)


def heading(title: str, width: int, note: str = "") -> Line:
    """Returns a heading with a rule to the full width, and a note at its right end."""
    note = shorten(note, max(0, width - width_of(title) - 6))
    rule = width - width_of(title) - 1 - (width_of(note) + 1 if note else 0)
    line: Line = [(title, STRONG), (" " + "─" * max(0, rule), DIM)]
    if note:
        line.append((" " + note, DIM))
    return line


def to_ascii(text: str) -> str:
    """Replaces every glyph by an ASCII one of the same width."""
    if text.isascii():
        return text
    return "".join(
        character if character.isascii() else "?" * cell_len(character)
        for character in text.translate(_ASCII)
    )


class Block:
    """A renderable made of lines that are laid out when the width is known.

    Args:
        draw: Called with the width in cells; returns the lines.
        cropped: Whether lines are cut at the right end of the screen.
    """

    def __init__(self, draw: Callable[[int], Iterable[Line]], cropped: bool = True) -> None:
        self._draw = draw
        self._crops = cropped

    def lines(self, width: int) -> list[Line]:
        """Returns the lines for one width."""
        return list(self._draw(width))

    def shown(self, width: int, ascii_only: bool = False) -> Iterator[Line]:
        """Yields the lines as they are printed."""
        for line in self._draw(width):
            safe = [(clean(text), style) for text, style in line]
            parts = _trimmed(_cropped(safe, width) if self._crops else safe)
            yield [(to_ascii(text), style) for text, style in parts] if ascii_only else parts

    def text(self, width: int, ascii_only: bool = False, colored: bool = False) -> str:
        """Returns the lines as text: what a console of rich's would print, which takes longer to import."""
        paint = _paint if colored else _plain
        lines = ("".join(paint(*part) for part in line) for line in self.shown(width, ascii_only))
        return "".join(f"{line}\n" for line in lines)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment
        from rich.style import Style

        for line in self.shown(options.max_width, options.ascii_only):
            for text, style in line:
                yield Segment(text, Style.parse(style) if style else None)
            yield Segment.line()


def _plain(text: str, style: str) -> str:
    return text


def _paint(text: str, style: str) -> str:
    """Returns text in the colours of the terminal's own theme: the sixteen that the views use."""
    from rich.color import ColorSystem
    from rich.style import Style

    return Style.parse(style).render(text, color_system=ColorSystem.STANDARD) if style else text


def _cropped(line: Line, width: int) -> Line:
    """Cuts a line at the right end of the screen."""
    if line_width(line) <= width:
        return [part for part in line if part[0]]
    parts: Line = []
    for text, style in line:
        left = width - line_width(parts)
        if left <= 0:
            break
        parts.append((text if width_of(text) <= left else set_cell_size(text, left), style))
    return parts


def _trimmed(line: Line) -> Line:
    """Drops blanks at the end of a line, which only get in the way of copying."""
    parts = list(line)
    while parts:
        text, style = parts[-1]
        stripped = text.rstrip(" ")
        if stripped:
            parts[-1] = (stripped, style)
            break
        parts.pop()
    return parts


def stack(*blocks: Block) -> Block:
    """Returns one block that draws several, with an empty line between them."""

    def draw(width: int) -> Iterable[Line]:
        for number, block in enumerate(blocks):
            if number:
                yield []
            # Each as it would be alone: what one does not crop, the whole does not.
            yield from block.shown(width)

    return Block(draw, cropped=False)


def notes(texts: Iterable[str], width: int, indent: str = "") -> list[Line]:
    """Returns the lines that say what is not shown, each with the option that shows it."""
    return [
        [(indent + text, DIM)] for note in texts for text in wrap(note, max(20, width - width_of(indent)))
    ]


def phase_letter(phase: str) -> str:
    """Returns the letter that stands for a phase."""
    known = PHASES.get(phase)
    return known[0] if known else "."


def phase_style(phase: str) -> str:
    """Returns the colour of a phase."""
    known = PHASES.get(phase)
    return known[1] if known else PLAIN


def legend(phases: Iterable[str], width: int) -> list[Line]:
    """Returns the legend of the phases named, in the order of :data:`PHASES`."""
    used = set(phases)
    ordered = [phase for phase in PHASES if phase in used and phase != "load"]
    ordered += sorted(phase for phase in used if phase not in PHASES)
    if "load" in used and "unattributed" not in used:
        ordered.append("unattributed")
    lines: list[Line] = [[]]
    for phase in ordered:
        parts: Line = [(phase_letter(phase), phase_style(phase)), (f" {phase}", DIM)]
        needed = line_width(parts) + (2 if lines[-1] else 0)
        if lines[-1] and line_width(lines[-1]) + needed > width:
            lines.append([])
        if lines[-1]:
            lines[-1].append(("  ", PLAIN))
        lines[-1].extend(parts)
    return lines if lines[0] else []
