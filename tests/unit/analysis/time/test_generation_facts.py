"""Calls of ``generate``: which are told, their rates, and what the first screen says of them."""

from __future__ import annotations

import pytest

from handmade import MS, Builder
from hftrace.analysis.summary import summary
from hftrace.analysis.time.generation import generations
from hftrace.analysis.time.ready import readiness
from hftrace.render.generation import answer_words, generated_words, quoted_answer
from hftrace.render.session import took_words
from hftrace.render.text import TIMES
from hftrace.render.views import load
from hftrace.render.views.options import ViewOptions

FUNCTION = "GenerationMixin.generate"


class Program(Builder):
    """A program with one load of 100 ms, and 10 ms between its calls."""

    def __init__(self, command="trace"):
        super().__init__()
        self.header["command"] = command
        self.header["session"] = {"start_ns": 0, "end_ns": 10_000 * MS}
        self.header["wall_ns"] = 10_000 * MS
        self.span(None, "load", "AutoModel", 0, 100, "AutoModel.from_pretrained")
        self.now = 110

    def generate(self, tokens=5, steps=None, function=FUNCTION, parent=None, rows=1, **more):
        """Calls it: 20 ms until the first token, 8 ms for each further step, 2 ms at the end."""
        steps = tokens if steps is None else steps
        start, first = self.now, self.now + 20
        last = first + 8 * (steps - 1)
        noted = {"caller": "/srv/a.py:7", "batch": rows, "prompt_tokens": 12, "sequences": rows}
        noted |= {"new_tokens": tokens, "steps": steps, "first_token_ns": 20 * MS}
        noted |= {"token_ns": {"median": 8 * MS, "first": 8 * MS, "last": 8 * MS}}
        noted |= {"cache": {"class": "DynamicCache", "bytes": {"cuda:0": 3_000_000}}}
        span = self.span(
            parent, "generate", "Llama.generate", start, last + 2, function, attributes={**noted, **more}
        )
        self.span(span, "prefill", "prefill", start + 3, first, attributes={"tokens": 12})
        self.span(span, "decode", "decode", first, last, attributes={"steps": steps - 1})
        self.now = last + 12
        return span


def test_one_call_of_a_program():
    made = Program()
    made.generate(first_text_ns=25 * MS)
    trace = made.trace()
    (one,) = generations(trace)
    assert (one.caller, one.asked, one.duration_ns, one.decode_ns) == ("/srv/a.py:7", False, 54 * MS, 32 * MS)
    assert one.tokens_per_s == pytest.approx(125)
    assert generated_words(trace) == (
        "Llama.generate (a.py:7): first token after 20 ms, then 125 tokens/s; "
        "first text streamed after 25 ms; prompt of 12 tokens, 5 new, "
        "8.0 ms each (median); cache 3.00 MB on cuda:0 (DynamicCache)"
    )
    assert answer_words(trace) == ""
    # No load, and nothing that hftrace was asked to do after one.
    assert len(trace.loads) == 1
    assert readiness(trace).steps == []
    assert "generate 54 ms" in took_words(trace)
    facts = summary(trace)["generation"]
    assert (facts["calls"], facts["new_tokens"], facts["first_token_ns"]) == (1, 5, 20 * MS)
    assert facts["each"][0]["tokens_per_s"] == one.tokens_per_s


def test_steps_that_are_no_tokens_make_no_rate():
    made = Program()
    made.generate(tokens=12, steps=6)
    trace = made.trace()
    assert generations(trace)[0].tokens_per_s is None
    assert "12 new in 6 steps, 8.0 ms a step (median)" in generated_words(trace)
    assert "tokens/s" not in generated_words(trace)


def test_several_rows():
    made = Program()
    made.generate(rows=4)
    words = generated_words(made.trace())
    assert "then 125 tokens/s in each of 4 sequences" in words
    assert f"prompt of 4 {TIMES} 12 tokens" in words
    assert summary(made.trace())["generation"]["new_tokens"] == 5


def test_several_calls_and_those_that_were_only_counted():
    made = Program()
    for tokens in (5, 3, 9):
        made.generate(tokens=tokens)
    made.span(None, "generate", "Llama.generate", made.now, made.now + 5, FUNCTION, status="error")
    made.header["calls"] = {"left_out": {"generate": {"calls": 70, "duration_ns": 2_000 * MS}}}
    trace = made.trace()
    assert generated_words(trace) == (
        "4 calls in 183 ms, 17 new tokens; 1 failed; first token after 20 ms, then 125 tokens/s (medians); "
        "largest cache 3.00 MB on cuda:0 (DynamicCache); 70 more calls only counted, 2.00 s"
    )
    assert summary(trace)["generation"]["counted"] == 70


def test_calls_inside_of_one_without_tokens_of_its_own_are_told():
    made = Program()
    outer = made.span(None, "generate", "Whisper.generate", 110, 400, "Whisper.generate")
    for _ in range(2):
        made.generate(parent=outer, function=FUNCTION)
    helped = made.generate()
    made.generate(parent=helped)
    assert [one.span for one in generations(made.trace())] == [outer + 1, outer + 4, helped, helped + 3]


def test_what_hftrace_was_asked_for():
    made = Program("load")
    made.span(None, "tokenizer", "AutoTokenizer", 102, 104)
    made.generate(function=None, text="a\x1b[31m b\nc  ", text_characters=7, caller=None)
    trace = made.trace()
    words = "first token after 20 ms, then 125 tokens/s; prompt of 12 tokens, 5 new"
    assert answer_words(trace).startswith(words)
    assert quoted_answer(trace) == '"a b c"'
    assert generated_words(trace) == ""
    assert "56 ms after it" in took_words(trace)
    made = Program("load")
    made.generate(function=None, text="x" * 500)
    assert quoted_answer(made.trace()) == f'"{"x" * 160}…"'


def test_the_tree_says_who_and_how_many():
    made = Program()
    made.generate()

    def lines(width):
        drawn = load("tree").draw(made.trace(), ViewOptions(min_ns=0))[0].lines(width)
        return ["".join(text for text, _ in line) for line in drawn]

    narrow, wide = lines(80), lines(140)
    assert any(line.startswith("g Llama.generate  a.py:7 ") for line in narrow)
    assert any("l prefill  12 tokens " in line for line in narrow)
    assert any("d decode  4 steps " in line for line in narrow)
    assert any(line.startswith("generate Llama.generate  a.py:7 ") for line in wide)
    assert any("├─ prefill  12 tokens " in line for line in wide)
