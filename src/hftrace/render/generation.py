"""What a model generated, in words for the first screen."""

from __future__ import annotations

from hftrace import units
from hftrace.analysis.time.generation import Generation, counted_calls, generations
from hftrace.analysis.time.tree_node import Node
from hftrace.render.session import place_words
from hftrace.render.text import TIMES, clean
from hftrace.schema.trace import Trace

MAX_ANSWER = 160
"""Characters of an answer on the first screen."""


def answer_words(trace: Trace) -> str:
    """Returns what there is to say of ``--generate``; empty where it was not asked for."""
    asked = [each for each in generations(trace) if each.asked]
    return "; ".join(_facts(asked[-1])) if asked else ""


def quoted_answer(trace: Trace) -> str:
    """Returns the beginning of the text that came of ``--generate``, in quotes; empty where none came."""
    asked = [each for each in generations(trace) if each.asked and each.text is not None]
    words = clean(asked[-1].text).strip() if asked else ""
    return f'"{words[:MAX_ANSWER]}{"…" * (len(words) > MAX_ANSWER)}"' if asked else ""


def generated_words(trace: Trace) -> str:
    """Returns what a program's own calls of ``generate`` did; empty where it made none."""
    found = [each for each in generations(trace) if not each.asked]
    counted, spent = counted_calls(trace, "generate")
    words: list[str] = []
    if len(found) == 1:
        (one,) = found
        place = f" ({place_words(one.caller)})" if one.caller else ""
        who, said = f"{clean(one.name)}{place}", _facts(one)
        words = [f"{who}: {said[0]}", *said[1:]] if said else [f"{who}, {units.duration(one.duration_ns)}"]
    elif found:
        words = _several(found)
    if counted:
        words.append(f"{units.count(counted, 'more call')} only counted, {units.duration(spent)}")
    return "; ".join(words)


def _several(found: list[Generation]) -> list[str]:
    """Returns what several calls have in common."""
    from statistics import median  # brings in fractions and decimal, which no other screen needs

    tokens = units.count(sum(each.new_tokens or 0 for each in found), "new token")
    if any((each.sequences or 1) > 1 for each in found):
        tokens += " in the longest rows"  # where the others end is not known
    spent = units.duration(sum(each.duration_ns for each in found))
    words = [f"{units.count(len(found), 'call')} in {spent}, {tokens}"]
    failed = sum(each.status != "ok" for each in found)
    if failed:
        words.append(f"{failed:,} failed")
    first = [each.first_token_ns for each in found if each.first_token_ns is not None]
    rates = [each.tokens_per_s for each in found if each.tokens_per_s is not None]
    middle = []
    if first:
        middle.append(f"first token after {units.duration(median(first))}")
    if rates:
        middle.append(f"then {_rate(median(rates))}")
    if middle:
        words.append(f"{', '.join(middle)} (medians)")
    largest = max(found, key=lambda each: sum((each.cache_bytes or {}).values()))
    if largest.cache_bytes:
        words.append(f"largest {_cache(largest)}")
    return words


def _facts(one: Generation) -> list[str]:
    """Returns the parts of what is known of one call."""
    words = []
    if one.first_token_ns is not None:
        speed = f"first token after {units.duration(one.first_token_ns)}"
        if one.tokens_per_s is not None:
            speed += f", then {_rate(one.tokens_per_s)}"
            if one.sequences is not None and one.sequences > 1:
                speed += f" in each of {one.sequences:,} sequences"
        words.append(speed)
    if one.first_text_ns is not None:
        words.append(f"first text streamed after {units.duration(one.first_text_ns)}")
    words += _tokens(one)
    if one.cache is not None:
        words.append(_cache(one))
    if one.status != "ok":
        words.append(f"{one.status}: {clean(one.error)}" if one.error else one.status)
    return words


def _tokens(one: Generation) -> list[str]:
    parts = []
    if one.prompt_tokens is not None:
        rows = f"{one.batch:,} {TIMES} " if one.batch is not None and one.batch > 1 else ""
        parts.append(f"prompt of {rows}{units.count(one.prompt_tokens, 'token')}")
    if one.new_tokens is not None:
        new = f"{one.new_tokens:,} new"
        if one.steps is not None and one.steps != one.new_tokens:
            new += f" in {units.count(one.steps, 'step')}"
        parts.append(new)
    median = (one.token_ns or {}).get("median")
    if median is not None:
        unit = "each" if one.steps == one.new_tokens else "a step"
        parts.append(f"{units.duration(median)} {unit} (median)")
    return [", ".join(parts)] if parts else []


def _cache(one: Generation) -> str:
    sizes = one.cache_bytes
    amount = (
        ", ".join(f"{units.byte_count(size)} on {clean(device)}" for device, size in sizes.items())
        if sizes
        else "size unknown"
    )
    return f"cache {amount} ({clean(one.cache or '?')})"


def _rate(tokens_per_s: float) -> str:
    return f"{tokens_per_s:,.0f} tokens/s" if tokens_per_s >= 100 else f"{tokens_per_s:.3g} tokens/s"


def token_parts(node: Node) -> list[str]:
    """Returns, for the tree, how many tokens a part of a ``generate`` took in or made."""
    tokens, steps = node.attributes.get("tokens"), node.attributes.get("steps")
    if node.phase in ("prefill", "tokenize") and isinstance(tokens, int):
        return [units.count(tokens, "token")]
    if node.phase == "decode" and isinstance(steps, int):
        return [units.count(steps, "step")]
    return []
