"""Says in one sentence why a load failed, where the checkpoint or the Hub's answers show it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hftrace.analysis.ending.culprits import damaged_files, is_unrelated
from hftrace.analysis.ending.damage import damage_remedy, damage_sentence
from hftrace.analysis.ending.killer import CERTAIN, confidence
from hftrace.analysis.ending.words import mismatch_sentence, not_there_sentence
from hftrace.analysis.keywords import meant_keyword, refused_keyword
from hftrace.analysis.text import first_sentences
from hftrace.analysis.time.whose import ended_load, ended_outside
from hftrace.schema.trace import Trace
from hftrace.schema.vocabulary import WEIGHT_PATTERNS
from hftrace.units import byte_count


def explain_failure(trace: Trace) -> str:
    """Returns why the load failed, in one sentence.

    What can be seen in a local checkpoint (no config, no weights, a shard that
    is missing or cut off) or in the answers of the Hub (gated, unknown, not
    reached) is said in its own words; anything else is the first line of the
    exception.
    """
    # What the load caught before it ended with another exception says more.
    error = trace.outcome.get("cause") or trace.outcome.get("error") or {}
    message = str(error.get("message") or "").strip()
    kind = str(error.get("type") or "error").rpartition(".")[2]
    if "trust_remote_code=True" in message:
        model = _request_of_the_end(trace).get("model") or "the model"
        return (
            f"{model} comes with code of its own, which only you can allow: "
            "read it, and add --trust-remote-code (trust_remote_code=True in Python)"
        )
    keyword = refused_keyword(trace)
    if keyword is not None and not trace.outcome.get("cause"):
        meant = meant_keyword(trace, keyword)
        hint = f"did you mean {meant}?" if meant else "leave it out"
        return f"nothing takes the keyword {keyword}: {hint} ({first_sentences(message)})"
    if not is_unrelated(error) and not ended_outside(trace):
        request = _request_of_the_end(trace)
        keywords = request.get("keywords") or {}
        subfolder = keywords.get("subfolder") if isinstance(keywords, Mapping) else None
        gguf = isinstance(keywords, Mapping) and bool(keywords.get("gguf_file"))
        model = str(request.get("path") or request.get("model") or "")
        reason = _culprit(trace)
        if reason is None and not gguf:
            reason = _checkpoint_problem(model, subfolder)
        if reason is None and model and not Path(model).exists():
            reason = _hub_problem(trace, model, f"{kind}: {message}\n{error.get('traceback') or ''}")
        if reason is not None:
            return reason
    return f"{kind}: {first_sentences(message)}"


def _request_of_the_end(trace: Trace) -> Mapping[str, Any]:
    """Returns what was asked of the load that failed; of several, the first one's is the trace's."""
    row = ended_load(trace)
    asked = trace.spans.column("attributes")[row].get("request") if row is not None else None
    if not isinstance(asked, Mapping) or asked.get("model") == trace.request.get("model"):
        return trace.request
    return asked


def explain_death(trace: Trace) -> str:
    """Returns what killed the load, where it was, and how far it had come: one sentence, no full stop."""
    outcome = trace.outcome
    killer = outcome.get("killer")
    outside = ended_outside(trace)
    whole = "the program" if trace.header.get("command") == "run" else "the load"
    process = "the process" if outside else "the loading process"
    limit, limit_kind = outcome.get("limit_bytes"), outcome.get("limit_kind")
    anonymous, total = outcome.get("anon_at_death_bytes"), outcome.get("memory_at_death_bytes")
    if killer == "memory-limit":
        asked = f" {byte_count(limit)}" if limit is not None else ""
        held = f" (anonymous memory {byte_count(anonymous)})" if anonymous is not None else ""
        how = f"{whole} was stopped at --memory-limit{asked}{held}"
    elif killer == "limit-unwatched":
        how = f"{whole} was stopped because its --memory-limit could not be watched any more"
    elif killer == "timeout":
        seconds = outcome.get("timeout_seconds")
        how = f"{whole} was stopped " + (f"after the {seconds:g} s of" if seconds else "by") + " --timeout"
    elif outcome.get("signal"):
        how = f"{process} was killed by {outcome['signal']}"
    elif outcome.get("exit_code") is not None:
        how = f"{process} exited with {outcome['exit_code']}"
    else:
        how = f"{process} was killed (by whom is not known)"
    if killer == "kernel-oom":
        certain = confidence(killer, outcome.get("evidence") or []) == CERTAIN
        how += f", {'' if certain else 'likely '}by the kernel, out of memory"
        if total is not None and limit is not None:
            how += f" (it held {byte_count(total)}; the limit, {limit_kind}, is {byte_count(limit)})"
    phase, tensor, file = (outcome.get(name) for name in ("last_phase", "last_tensor", "last_file"))
    where = f" in phase {phase}" if phase else ""
    if outside:
        where += (f" ({outcome['died_in']})" if outcome.get("died_in") else "") + ", outside of any load"
    elif tensor:
        own = outcome.get("last_tensor_file") or file
        where += f", after tensor {tensor}" + (f" of {own}" if own else "")
    reading = [each for each in outcome.get("reading") or [] if isinstance(each, Mapping)]
    if reading:
        others = f" and {len(reading) - 1} more" if len(reading) > 1 else ""
        did = "waited for" if reading[0].get("handed") is True else "read"
        where += f", while it {did} {reading[0].get('tensor')}{others}"
    placed, remaining = outcome.get("placed_bytes"), outcome.get("remaining_bytes")
    ahead = ""
    if placed is not None and remaining:
        ahead = f"; {byte_count(remaining)} of {byte_count(placed + remaining)} were still to come"
        needed = outcome.get("predicted_anon_bytes")
        if needed is not None and killer in ("memory-limit", "kernel-oom"):
            ahead += f", and finishing needs about {byte_count(needed)}"
    # Cut off while it was mapped: the usual cause of this signal, and one that the user can put right.
    damage = next(damaged_files(trace), None) if outcome.get("signal") == "SIGBUS" else None
    why = f": {_damage(damage)}" if damage is not None else ""
    return f"{how}{where}{ahead}{why}"


def _culprit(trace: Trace) -> str | None:
    """Returns the culprit that the post-mortem has named, and what to do; None where it named none."""
    pieces = [each for each in trace.outcome.get("evidence") or [] if isinstance(each, Mapping)]
    damage = next((each for each in pieces if each.get("kind") == "damaged-file"), None)
    if damage is not None:
        return _damage(damage)
    missing = next((each for each in pieces if each.get("kind") == "not-there"), None)
    if missing is not None and missing.get("what") in ("folder", "variant"):
        return not_there_sentence(missing)
    shape = next((each for each in pieces if each.get("kind") == "mismatched-tensor"), None)
    return mismatch_sentence(shape) if shape is not None else None


def _checkpoint_problem(model: str, subfolder: object) -> str | None:
    if not model or not Path(model).is_dir():
        return None
    folder = Path(model, str(subfolder or ""))
    model = str(folder)
    has_config = (folder / "config.json").is_file()
    if not has_config and not (folder / "adapter_config.json").is_file():
        return f"{model} has no config.json: this is not a model directory"
    if has_config:
        try:
            json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            return f"{model}/config.json is not valid JSON ({str(error)[:80]})"
    if not any(True for pattern in WEIGHT_PATTERNS for _ in folder.glob(pattern)):
        return f"{model} has no weights: no *.safetensors, *.bin or *.gguf file is in it"
    return None


def _damage(facts: Mapping[str, Any]) -> str:
    return f"{damage_sentence(facts)}: {damage_remedy(facts)}"


# -- the Hub ----------------------------------------------------------------------------------------


def _hub_problem(trace: Trace, model: str, text: str) -> str | None:
    """Returns what is wrong with a repository or the way to it.

    Args:
        trace: The trace.
        model: The repository.
        text: Type, message and traceback, in which the causes of the error have their names.
    """
    statuses: list[object] = [request.status for request in trace.requests]
    if "GatedRepoError" in text:
        token = "use a token that has it" if 403 in statuses else "set HF_TOKEN"
        return f"the repository {model} is gated: ask for access on its page and {token}"
    if "RepositoryNotFoundError" in text or "is not a valid model identifier" in text:
        return f"there is no repository {model}, or it is private: check the id, or set HF_TOKEN"
    if "RevisionNotFoundError" in text or "is not a valid git identifier" in text:
        return f"{model} has no revision {trace.request.get('revision') or 'of this name'}: check --revision"
    if "HFValidationError" in text:
        return f"{model} is no id of a repository, and no such directory is here either"
    missing = re.search(
        r"does not appear to have (?:a file|files) named [('\"]*([^\s'\",]+-\d+-of-\d+\.\w+)", text
    )
    results = {file.name: file.result for file in trace.files}
    # 4.50 says the same of a file whose download broke off.
    if missing and results.get(missing[1]) != "error":
        return f"{model} has no {missing[1]}, which its index names: the repository is incomplete"
    broken = re.search(
        r"Error: Consistency check failed|RemoteProtocolError|ChunkedEncodingError|IncompleteRead", text
    )
    failed = {span.name for span in trace.spans if span.phase == "download" and span.status == "error"}
    if broken or any(results.get(name) == "error" for name in failed):
        return _broken_download(trace)
    return _no_way(trace, model, text, statuses)


def _broken_download(trace: Trace) -> str:
    file = next((file for file in trace.files if file.result == "error"), None)
    if file is None:
        return "the connection to the Hub broke off: load again, what is complete is kept"
    after = f" after {file.downloaded_bytes:,} bytes" if file.downloaded_bytes else ""
    return f"the download of {file.name} broke off{after}: load again, what is complete is kept"


def _no_way(trace: Trace, model: str, text: str, statuses: list[object]) -> str | None:
    """Returns why the Hub gave no answer that is of use: switched off, an error of its own, not reached."""
    unreached = ("LocalEntryNotFoundError", "OfflineModeIsEnabled", "couldn't connect", "connection error")
    if not any(word in text for word in unreached) and not re.search(
        r"\b(HfHubHTTPError|HTTPStatusError|ConnectionError|ConnectError|ReadError|\w*Timeout(Exception)?): ",
        text,
    ):
        return None
    variables = trace.environment.get("variables") or {}
    keywords = trace.request.get("keywords") or {}
    switches = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if _is_on(variables.get(name))]
    switches += ["local_files_only"] if keywords.get("local_files_only") else []
    if switches:
        return (
            f"there is no folder {model}, {model} is not in the cache, or not all of it, "
            f"and {switches[0]} forbids to ask the Hub"
        )
    endpoint = variables.get("HF_ENDPOINT") or "https://huggingface.co"
    refused = [status for status in statuses if isinstance(status, int) and (status >= 500 or status == 429)]
    if refused:
        return f"the Hub at {endpoint} answered with status {refused[-1]}: try again later"
    return f"the Hub at {endpoint} could not be reached: check the network and HF_ENDPOINT"


def _is_on(value: object) -> bool:
    return str(value or "").upper() in ("1", "ON", "YES", "TRUE")
