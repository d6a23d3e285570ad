"""Text from a file is never more than text; layouts keep their width."""

import unicodedata

import pytest
from test_render_screens import draw

from hftrace.render.text import (
    DENSITY,
    HEIGHT,
    PHASES,
    Block,
    clean,
    fit,
    heading,
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
        ("\x1b]unfinished", "unfinished"),
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
    assert "\N{GREEK CAPITAL LETTER OMEGA}" in text
    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in text)
    assert not set(text) & set("\u200b\u200e\u200f\u202a\u202e\u2066\u2069\ufeff\U000e0041")
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


def test_whatever_a_view_forgets_is_cleaned_where_it_is_drawn():
    evil = "a\x1b[2J\u202e\x07b"
    block = Block(lambda width: [[(evil, "bold"), (fit(evil, 5), ""), (shorten(evil, 9), "")]], cropped=False)
    assert block.text(80) == "abab   ab\n"
    assert draw(block, 80) == "abab   ab\n"
    assert Block(lambda width: [heading(evil, width, evil)]).text(12) == "ab ────── ab\n"
    assert wrap(f"{evil} {evil}", 3) == ["ab", "ab"]
    assert width_of(evil) == 2
    assert line_width([(evil, ""), (evil, "")]) == 4


def test_a_name_without_an_end_leaves_what_follows_it():
    assert clean("x\x1b]0;evil" + ": 12 MB") == "x0;evil: 12 MB"


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


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("it took 12.5 GB of memory", 12, ["it took", "12.5 GB of", "memory"]),
        ("(+3 %) in 2 min 3 s, at 1.5 GB/s.", 11, ["(+3 %) in", "2 min 3 s,", "at", "1.5 GB/s."]),
        ("12 tensors", 5, ["12", "te…rs"]),
        # A line that has no room for both has to part them.
        ("12345 GB", 5, ["12345", "GB"]),
        ("in 5", 4, ["in 5"]),
    ],
)
def test_a_number_keeps_its_unit_beside_it(text, width, lines):
    assert wrap(text, width) == lines
