"""Text from a file is never more than text; layouts keep their width."""

import pytest
from test_render_screens import draw

from hftrace.render.text import (
    DENSITY,
    HEIGHT,
    PHASES,
    Block,
    clean,
    fit,
    legend,
    line_width,
    phase_letter,
    shorten,
    to_ascii,
    width_of,
    wrap,
)
from hftrace.schema.vocabulary import PHASES as KNOWN_PHASES


@pytest.mark.parametrize(
    ("dirty", "text"),
    [
        ("model.layers.0", "model.layers.0"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]unfinished", ""),
        ("\x9b2Jx", "x"),
        ("\x1bPq#0\x1b\\x", "x"),
        ("\x1bcx", "x"),
        ("a\nb\r\nc\td", "a b c d"),
        ("a\x00\x07\x08\x7fb", "ab"),
        ("\u202egnp\u2066\u200b", "gnp"),
        ("\ud800x", "x"),
        ("[red]x[/red]", "[red]x[/red]"),
        ("模型", "模型"),
        (None, "None"),
        (["a\x1b"], "['a\\x1b']"),
    ],
)
def test_clean(dirty, text):
    assert clean(dirty) == text


def test_clean_leaves_nothing_that_steers():
    everything = "".join(map(chr, range(0x2100))) + "\ufeff\U000e0041"
    text = clean(everything)
    assert all(character.isprintable() or character.isspace() for character in text)
    assert "\x1b" not in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "text", ["", "a", "model.layers.0.self_attn.q_proj.weight", "模型权重" * 9, "é" * 40]
)
@pytest.mark.parametrize("width", range(30))
def test_shortening_keeps_the_width(text, width):
    assert width_of(shorten(text, width)) <= width
    assert width_of(fit(text, width)) == width
    assert width_of(fit(text, width, "right")) == width


def test_names_are_shortened_in_the_middle():
    assert shorten("model.layers.0.self_attn.q_proj.weight", 21) == "model.laye…roj.weight"


def test_wrapping():
    assert wrap("one two three", 7) == ["one two", "three"]
    assert wrap("", 7) == [""]
    assert wrap("unbreakable-word", 7) == ["unb…ord"]


def test_ascii_keeps_the_width():
    glyphs = "─│├└━\N{MULTIPLICATION SIGN}\N{EN DASH}→…·✗↓█▌µ" + DENSITY + HEIGHT + "模é"
    assert to_ascii(glyphs).isascii()
    assert len(to_ascii(glyphs)) == width_of(glyphs)


def test_every_phase_has_a_letter_of_its_own():
    assert set(KNOWN_PHASES) <= set(PHASES)
    letters = [phase_letter(phase) for phase in KNOWN_PHASES]
    assert len(set(letters)) == len(letters)


def test_legend_wraps_and_knows_strange_phases():
    lines = legend([*KNOWN_PHASES, "\x1b[1munheard-of"], 40)
    assert all(line_width(line) <= 40 for line in lines)
    assert "unheard-of" in "".join(text for line in lines for text, _ in line)


def test_a_block_draws_for_any_width():
    block = Block(lambda width: [[("x" * width, "")]])
    assert block.lines(3) == [[("xxx", "")]]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("colored", [False, True])
@pytest.mark.parametrize("cropped", [False, True])
def test_a_block_as_text_is_what_a_console_prints(encoding, colored, cropped):
    lines = [
        [("a → b", "bold red"), ("  ", "dim"), ("", "green"), ("█▌ ", "bright_green")],
        [],
        [("x" * 90, "bold yellow"), ("cut", "")],
    ]
    block = Block(lambda width: lines, cropped=cropped)
    expected = draw(block, 80, encoding, "standard" if colored else None)
    assert block.text(80, ascii_only=encoding == "ascii", colored=colored) == expected
