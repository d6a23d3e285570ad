"""``generate`` of a model: until the first token (prefill), from there on (decode), and what the cache took.

The loops that generate have other names and other bodies in each release
(``greedy_search``, ``_sample``, ``_beam_search``, one of the model's own). What
all of them do is to be told their stopping criteria, and to ask before each
token whether they are to go on. When they ask, the token before is there: the
answer to the question before it has waited for the device. So the first
question that follows a token ends the prefill. To 4.40 they ask the criteria alone.

Per token that is one reading of the clock, which goes into a list. The cache is referred
to while the loop runs, by which it is held anyway, and by nobody once ``generate`` has returned.
"""

from __future__ import annotations

import itertools
import statistics
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hftrace.record.calls import CallObserver, OpenCall, calls_of, status_of
from hftrace.record.failures import failure_notes
from hftrace.record.frames import transparent
from hftrace.record.hooks.cache_bytes import cache_facts
from hftrace.record.hooks.points import Call, HookPoint
from hftrace.record.recorder import Recorder, clock, shielded
from hftrace.record.thread_state import OpenSpan

CACHES = ("cache", "past_key_values", "cache_params", "mems", "state")
"""What models call their cache: the name of 5.24, of all before it, and of those that are no transformers."""
TELL_NS = 5_000_000_000
"""So often it is said that a long call goes on: who watches the journal must not take it for stalled."""
MAX_INNER = 100
"""Calls inside of a model's own ``generate`` that are spans; further ones are counted."""
ENCODED = ("encoder_outputs", "mm_encoder_outputs")
"""What an encoder leaves for the loop. A model without one is asked for it too."""
NEVER = 1 << 63
ASKS = "_has_unfinished_sequences"


class Generation:
    """A call of ``generate`` that is running on this thread."""

    __slots__ = (
        "above",
        "asked",
        "cache",
        "call",
        "encoder",
        "first_text",
        "inner",
        "prepared",
        "span",
        "start_length",
        "started",
        "stopped",
        "tell_at",
        "written",
    )

    def __init__(self, started: int, above: Generation | None) -> None:
        self.started = started
        self.above = above
        self.call: OpenCall | None = None
        """Its own span."""
        self.span: OpenSpan | None = None
        """One of ours that is there already, which it is told with."""
        self.encoder: tuple[int, int] | None = None
        """When the encoder ran."""
        self.prepared: int | None = None
        """When all was ready for the loop."""
        self.start_length: int | None = None
        """How many tokens the loop begins with."""
        self.asked: list[int] = []
        """When the loop was told to go on; the first time before there is a token."""
        self.stopped: list[int] = []
        """When the stopping criteria had looked at a token."""
        self.tell_at = 0
        self.cache: Any = None
        self.first_text: int | None = None
        self.inner = 0
        self.written = False
        """Whether the prefill is."""

    @property
    def known(self) -> int | None:
        """The id of its span; None where it has none."""
        if self.span is not None:
            return self.span.id
        return self.call.id if self.call is not None else None

    @property
    def tokens(self) -> list[int]:
        """When each step of the loop had its token."""
        return self.asked[1:] if self.asked else self.stopped


class GenerateObserver(CallObserver):
    """``generate``: a span with prefill and decode in it, and what is known of tokens and cache."""

    def begin(self, call: Call, started: int) -> Generation:
        """Begins a span; for a model that helps another one to generate none is written."""
        state = self.state
        above: Generation | None = state.generation
        running = Generation(started, above)
        stack = state.stack
        if above is not None and (above.prepared is not None or above.inner >= MAX_INNER):
            running.tell_at = NEVER
        elif above is None and stack and stack[-1].phase == "generate":
            running.span = stack[-1]
        else:
            owner = call.first()
            name = f"{type(owner).__name__}.generate"
            facts = _asked(call)
            running.call = self.calls.begin("generate", name, self.number, started, facts)
        if running.span is not None:
            running.span.notes.update(_asked(call))
        state.generation = running
        return running

    def finish(self, token: Generation, call: Call, result: Any, ended: int) -> None:
        """Ends the span, with what has come back."""
        try:
            self._note(token, _returned(token, result))
        finally:
            self._close(token, call, ended, "ok")

    def fail(self, token: Generation, call: Call, error: BaseException, ended: int) -> None:
        """Ends the span as failed: how far it came is known all the same."""
        try:
            notes = failure_notes(error, with_place=False) if token.call is not None else {}
            self._note(token, {**notes, "new_tokens": len(token.tokens) if token.prepared else None})
        finally:
            self._close(token, call, ended, status_of(error))

    def _note(self, running: Generation, facts: dict[str, Any]) -> None:
        """Puts down what is known of a call that is over."""
        notes = running.call.notes if running.call is not None else None
        if running.span is not None:
            notes = running.span.notes
        if notes is None:
            return
        tokens = running.tokens
        if tokens:
            notes["first_token_ns"] = tokens[0] - running.started
            notes["steps"] = len(tokens)
        if len(tokens) > 1:
            times = [later - earlier for earlier, later in itertools.pairwise(tokens)]
            notes["token_ns"] = {
                "median": int(statistics.median(times)),
                "first": times[0],
                "last": times[-1],
            }
        if running.first_text is not None:
            notes["first_text_ns"] = running.first_text - running.started
        if running.inner:
            notes["inner_calls"] = running.inner
        notes.update((name, value) for name, value in facts.items() if value is not None)
        found = cache_facts(running.cache)
        if found is not None:
            notes["cache"] = found

    def _close(self, running: Generation, call: Call, ended: int, status: str) -> None:
        running.cache = None
        if running.above is not None:
            running.above.inner += 1
        self.state.generation = running.above
        tokens = running.tokens
        if tokens and running.known is not None:
            write_prefill(self.recorder, running)
            if len(tokens) > 1:
                steps = {"steps": len(tokens) - 1}
                self.calls.part(running.known, "decode", "decode", (tokens[0], tokens[-1]), steps)
        if running.call is not None:
            self.calls.end(running.call, ended, status)


class BatchObserver(CallObserver):
    """``generate_batch``, whose tokens are made on another thread: of these nothing is seen."""

    def finish(self, token: OpenCall, call: Call, result: Any, ended: int) -> None:
        """Ends the span, with what has come back: an object for each request."""
        try:
            made = result.values() if isinstance(result, Mapping) else ()
            lengths = [len(each.generated_tokens) for each in made if hasattr(each, "generated_tokens")]
            if lengths:
                token.notes.update(sequences=len(lengths), new_tokens=max(lengths))
        finally:
            super().finish(token, call, result, ended)


def write_prefill(recorder: Recorder, running: Generation) -> None:
    """Writes the span of the prefill, once."""
    tokens = running.tokens
    if running.written or not tokens or running.known is None:
        return
    running.written = True
    if running.encoder is not None:
        calls_of(recorder).part(running.known, "prefill", "encoder", running.encoder, {})
    since = running.started if running.prepared is None else running.prepared
    notes = {} if running.start_length is None else {"tokens": running.start_length}
    calls_of(recorder).part(running.known, "prefill", "prefill", (since, tokens[0]), notes)


def _tell(recorder: Recorder, running: Generation, now: int) -> None:
    """Writes what is known of a call that goes on: its prefill, and how far it has come."""
    tokens = len(running.tokens)
    if not tokens:
        return
    if running.written:
        recorder.facts("progress", {"generated_tokens": tokens})
    write_prefill(recorder, running)
    running.tell_at = now + TELL_NS


def _asked(call: Call) -> dict[str, Any]:
    """Returns the shape of the prompt, where it is one of tokens; and the streamer's class."""
    facts: dict[str, Any] = {}
    prompt = call.get("inputs")
    for name in ("input_ids", "inputs_embeds"):
        prompt = call.kwargs.get(name) if prompt is None else prompt
    shape: Sequence[Any] = getattr(prompt, "shape", ())
    dtype = str(getattr(prompt, "dtype", ""))
    # Of floats with three dimensions: embeddings. Sound and pictures have other names, or more.
    embedded = prompt is not None and prompt is call.kwargs.get("inputs_embeds") and len(shape) == 3
    if (len(shape) == 2 and "int" in dtype) or embedded:
        facts.update(batch=int(shape[0]), prompt_tokens=int(shape[1]))
    streamer = call.get("streamer")
    if streamer is not None:
        facts["streamer"] = type(streamer).__name__
    return facts


def _returned(running: Generation, result: Any) -> dict[str, Any]:
    """Returns how many sequences came back, and how many tokens the loop has added to each."""
    sequences = result
    if isinstance(result, Mapping):
        sequences = result.get("sequences")
    shape: Sequence[Any] = getattr(sequences, "shape", ())
    if len(shape) != 2:
        return {}
    facts: dict[str, Any] = {"sequences": int(shape[0])}
    if running.start_length is not None and running.tokens and shape[1] >= running.start_length:
        facts["new_tokens"] = int(shape[1]) - running.start_length
    return facts


# -- what happens inside -------------------------------------------------------------------------------


@transparent
def encoder_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """``_maybe_prepare_encoder_kwargs_for_generation``: before the loop the encoder runs, if there is one."""
    state = recorder.state

    def call(*args: Any, **kwargs: Any) -> Any:
        running = state.generation
        if running is None or running.encoder is not None:
            return original(*args, **kwargs)
        started = clock()
        result = original(*args, **kwargs)
        ended = clock()
        if type(result) is dict and any(result.get(name) is not None for name in ENCODED):
            running.encoder = (started, ended)
        return result

    return call


@transparent
def length_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """``_validate_generated_length(self, generation_config, input_ids_length, ...)``."""
    state = recorder.state

    def call(*args: Any, **kwargs: Any) -> Any:
        running = state.generation
        if running is not None and running.start_length is None:
            length = kwargs.get("input_ids_length", args[2] if len(args) > 2 else None)
            running.start_length = length if type(length) is int else None
        return original(*args, **kwargs)

    return call


@transparent
def prepared_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """``_get_stopping_criteria``: the last thing that is made ready for the loop."""
    state = recorder.state

    def call(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        running = state.generation
        if running is not None and running.prepared is None:
            running.prepared = clock()
        return result

    return call


@transparent
def token_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """``_has_unfinished_sequences``, which is asked before each token; to 4.40 the stopping criteria."""
    state = recorder.state
    asks = point.target.endswith(ASKS)

    def call(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        running = state.generation
        if running is not None:
            now = clock()
            (running.asked if asks else running.stopped).append(now)
            if now > running.tell_at:
                shielded(recorder, point.target, _tell, recorder, running, now)
        return result

    return call


@transparent
def cache_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """``_update_model_kwargs_for_generation`` returns the next forward pass's arguments, with the cache."""
    state = recorder.state

    def call(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        running = state.generation
        if running is not None and type(result) is dict:
            for name in CACHES:
                found = result.get(name)
                if found is not None:
                    running.cache = found
                    break
        return result

    return call


@transparent
def text_handler(
    recorder: Recorder,
    point: HookPoint,
    number: int,
    function: types.FunctionType,
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """``on_finalized_text(self, text, ...)`` of a streamer: somebody has the first new text then.

    One that streams the prompt too holds the end of it back, and gives it away with the first new text: of
    that nothing is said.
    """
    state = recorder.state

    def call(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        running = state.generation
        if running is not None and running.first_text is None and running.prepared is not None:
            text = kwargs.get("text", args[1] if len(args) > 1 else None)
            if text and getattr(args[0], "skip_prompt", False) is True:
                running.first_text = clock()
        return result

    return call
