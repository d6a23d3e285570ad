"""The report for an issue: all that a maintainer asks for, and nothing in a trace becomes markup."""

import dataclasses
import re

import pytest
from markdown_it import MarkdownIt

import handmade
import handmade_loads
import handmade_memory
from hftrace import units
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.time.session import session_wall_ns
from hftrace.render.bug_report import MAX_LENGTH, TRACEBACK_LINES, bug_report, fenced
from hftrace.schema.model import Facts

MARKUP = "`` `x` ```\n</details> <script>alert(1)</script> @everyone #1 [a](http://b) | c | ![i](j) \x1b[31m"


def changed(trace, **blocks):
    """Returns a trace with other facts in its blocks."""
    return dataclasses.replace(
        trace, **{name: Facts({**getattr(trace, name), **facts}) for name, facts in blocks.items()}
    )


def parsed(document):
    return MarkdownIt("commonmark", {"html": True}).enable("table").parse(document)


def every(tokens):
    """All tokens, those inside of others too."""
    for token in tokens:
        yield token
        yield from every(token.children or ())


def test_it_has_call_ending_environment_phases_and_tree():
    trace = handmade.failing()
    document = bug_report(trace, True)
    assert f"`error`, {units.duration(session_wall_ns(trace))}" in document.splitlines()[0]
    fences = [token.content for token in parsed(document) if token.type == "fence"]
    assert fences[0] == f"{' '.join(trace.header.argv)}\n"
    assert fences[1] == f"{trace.request['class']}.from_pretrained({trace.request.model!r})\n"
    assert fences[2].splitlines()[0].split()[-3:] == [
        "error",
        *units.duration(session_wall_ns(trace)).split(),
    ]
    for finding in findings(trace):
        assert finding.title.split()[0] in fences[2]
    assert trace.outcome.error["message"] in fences[3]
    assert "Call tree" in fences[4]
    for name in ("python", "transformers", "torch"):
        assert f"| {name} | `{trace.environment[name]}` |" in document
    assert document.count("<details>") == document.count("</details>") == 3
    assert "user1" in document.splitlines()[-1]
    assert "user1" not in bug_report(trace, False)


def test_keywords_are_a_call():
    asked = {"keywords": {"dtype": "float32", "device_map": {"": 0}, "x": "y" * 500}, "revision": "v1"}
    document = bug_report(changed(handmade.sharded(), request=asked), True)
    (call,) = re.findall(r"^\w+\.from_pretrained\(.*", document, re.MULTILINE)
    model = handmade.sharded().request.model
    wanted = f"AutoModelForCausalLM.from_pretrained({model!r}, dtype='float32', device_map={{'': 0}}, x='yyy"
    assert call.startswith(wanted)
    assert call.endswith("y…, revision='v1')")


def test_text_from_a_trace_is_never_markup():
    trace = changed(
        handmade.failing(),
        header={"argv": ["hftrace", MARKUP], "hftrace": MARKUP},
        environment={
            "os": MARKUP,
            "torch": MARKUP,
            "variables": {MARKUP: MARKUP},
            "devices": [{"name": MARKUP}],
            "generation": MARKUP,
            "hooks": {"missing": [MARKUP]},
        },
        request={"model": MARKUP, "class": MARKUP, "keywords": {MARKUP: MARKUP}, "revision": MARKUP},
        outcome={"status": MARKUP, "error": {"type": MARKUP, "message": MARKUP, "traceback": MARKUP}},
    )
    document = bug_report(trace, True)
    assert "\x1b" not in document
    tags = [token.content for token in every(parsed(document)) if token.type in ("html_block", "html_inline")]
    allowed = r"</?(details|summary|sub)>|Environment|Phases|Call tree|\s"
    assert [tag for tag in tags if re.sub(allowed, "", tag)] == []
    assert not [token for token in every(parsed(document)) if token.type in ("link_open", "image")]
    text = "".join(token.content for token in every(parsed(document)) if token.type == "text")
    assert not re.search(r"@everyone|script|#1", text)


@pytest.mark.parametrize("content", ["plain", "a ``` b", "```\nx\n````", "`", "", "~~~"])
def test_nothing_ends_a_fence_from_inside(content):
    (token,) = parsed(fenced(content))
    assert (token.type, token.content.strip("\n")) == ("fence", content.strip("\n"))


def test_it_fits_into_a_comment():
    long = "\n".join(f"line {number} " + "x" * 2000 for number in range(500))
    trace = changed(handmade.failing(), outcome={"error": {"type": "E", "message": "m", "traceback": long}})
    document = bug_report(trace, True)
    assert len(document) <= MAX_LENGTH
    assert "Left out" in document
    short = changed(handmade.failing(), outcome={"error": {"traceback": "\n".join(map(str, range(500)))}})
    assert f"+ {500 - TRACEBACK_LINES} more lines\n{500 - TRACEBACK_LINES}\n" in bug_report(short, True)


@pytest.mark.parametrize(
    "make",
    [
        *(handmade.hostile, handmade.empty, handmade.killed, handmade.deep, handmade_loads.service),
        *(handmade_memory.two_ranks, handmade_memory.on_device),
    ],
    ids=lambda make: make.__name__,
)
def test_any_trace_has_a_report(make):
    document = bug_report(make(), True)
    assert document.startswith("### hftrace: a load")
    assert len(document) <= MAX_LENGTH
