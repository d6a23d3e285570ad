"""The loading process of ``hftrace load``: imports, resolves the class, loads, and leaves its journal.

It is told what to do by ``request.json`` in its directory, and talks to nobody
but through the journal. What holds a secret is not in that file: it
comes in an environment variable of this process alone, which is taken out of
the environment before anything else happens. It prints nothing of its own.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hftrace.record import gil
from hftrace.record.child.adapters import AdapterError, adapter_config, base_of, class_for
from hftrace.record.child.auto_classes import LAST, PREFERRED, TASKS
from hftrace.record.child.beside import BesideError, beside
from hftrace.record.child.collector import collecting
from hftrace.record.child.dividing import divide
from hftrace.record.child.gguf_header import architecture_of
from hftrace.record.child.keywords import KEYWORDS, dtype_keyword, ignored_keywords
from hftrace.record.child.quantization import (
    QuantizationError,
    as_object,
    check_installed,
    check_possible,
)
from hftrace.record.child.ready import Readiness
from hftrace.record.child.stacks import enable_stack_dumps
from hftrace.record.environment import collect
from hftrace.record.failures import describe_error, left_span
from hftrace.record.hooks.generations import loader_facts
from hftrace.record.ranks import own_rank
from hftrace.record.recorder import Recorder, shielded
from hftrace.record.session import ended
from hftrace.record.tracer import Tracer
from hftrace.schema.redact import learn_call, redact, redact_value
from hftrace.system.floors import storage_facts

REQUEST_FILE = "request.json"
SECRETS_VARIABLE = "HFTRACE_SECRET_KEYWORDS"
"""Holds what must not lie on disk of the request, as a JSON object."""
PROBLEM_FILE = "problem.txt"
"""Where bootstrap.py says why this interpreter cannot run hftrace at all."""

CONFIGS = "transformers.models.auto.configuration_auto"


class RequestError(Exception):
    """What was asked for cannot be: wrong usage, and not a failed load."""


def main(directory: str, **looks: Callable[[Recorder], None]) -> int:
    """Runs the load that ``directory`` asks for; returns the exit code.

    Args:
        directory: The run's directory.
        looks: What looks into the models of a recorder's loads afterwards, by the word that asks for it.

    Returns:
        0 for a model, 1 for a load that failed, 2 for a request that cannot
        be, 130 for an interrupted load.
    """
    enable_stack_dumps(directory)
    request = json.loads((Path(directory) / REQUEST_FILE).read_text(encoding="utf-8"))
    secret = os.environ.pop(SECRETS_VARIABLE, None)
    if secret is not None:
        hidden = json.loads(secret)
        keywords = {**(request.get("keywords") or {}), **hidden.pop("keywords", {})}
        request.update(hidden, keywords=keywords)
    learn_call(str(request.get("model")), request.get("keywords") or {})
    tracer = Tracer(
        Path(directory),
        rank=own_rank().number,
        exact_peaks=bool(request.get("exact_peaks", True)),
    )
    tracer.start()
    recorder = tracer.recorder
    held: list[Any] = []
    code = 0
    try:
        reason = gil.refusal()
        if reason is not None:
            raise RequestError(reason)
        _load(recorder, request, held, looks)
    except (RequestError, QuantizationError, BesideError) as error:
        code = 2
        recorder.facts(
            "outcome",
            {
                "status": "error",
                "usage": True,
                "error": {"type": "UsageError", "message": redact(str(error))},
            },
        )
    except BaseException as error:
        # A second signal must not cut off what is being written about the first.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        interrupted = isinstance(error, KeyboardInterrupt)
        code = 130 if interrupted else 1
        span = left_span(recorder, error)
        recorder.facts(
            "outcome",
            {
                "status": "interrupted" if interrupted else "error",
                "error": describe_error(error),
                # What happens around the load is a span of its own, and may be what failed.
                **({"load": span[0]} if span is not None and span[1] == "load" else {}),
            },
        )
    # What is left is writing: the supervisor ends it where it takes too long for somebody.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if recorder.first_checkpoint is not None:
        recorder.facts("environment", storage_facts(recorder.first_checkpoint))
    shielded(recorder, "session", ended, recorder)
    tracer.stop()
    held.clear()
    return code


def _load(
    recorder: Recorder,
    request: dict[str, Any],
    held: list[Any],
    looks: Mapping[str, Callable[[Recorder], None]],
) -> None:
    """Loads into ``held``, so that no frame but the loader's own ever refers to the model."""
    recorder.record_imports = True
    quantization = (request.get("keywords") or {}).get("quantization_config")
    check_installed(quantization)
    import transformers

    check_possible(quantization, str(request["model"]))
    _answer_no_prompt()
    quiet = transformers.utils.logging
    if request.get("quiet_bars"):
        # The supervisor shows the progress; two bars on one terminal overwrite each other.
        quiet.disable_progress_bar()
    # The loading code itself is imported by the first lazy attribute; named here so that the
    # import of the loader is a span of its own and not a part of the first load.
    if not _needs_no_model(request):
        importlib.import_module("transformers.modeling_utils")
    elif ":" not in request["class"]:
        _named_class(transformers, request["class"])  # with what its module imports
    recorder.record_imports = False
    # Again when the tracer stops, with all of it; a load that is killed has no such moment.
    recorder.facts("environment", {**collect(), **loader_facts()})

    model_id = request["model"]
    keywords = _keywords(dict(request.get("keywords") or {}))
    owner = _resolve_class(recorder, transformers, request, keywords)
    ignored = ignored_keywords(keywords)
    recorder.facts(
        "request",
        {
            "class": owner.__name__,
            "model": redact(str(model_id)),
            "revision": keywords.get("revision"),
            "keywords": redact_value(request.get("keywords") or {}),
            "ignored": ignored,
        },
    )
    readiness = Readiness(recorder, request, looks)
    with beside(recorder, request):
        with collecting(request.get("collector")):
            held.append(owner.from_pretrained(model_id, **keywords))
        readiness.run(held)


def _answer_no_prompt() -> None:
    """Lets transformers refuse a model's own code at once: nobody can answer this process.

    Its timeout for the answer is 0 where nobody is there, and it then raises without a prompt.
    """
    module: Any = importlib.import_module("transformers.dynamic_module_utils")
    if hasattr(module, "TIME_OUT_REMOTE_CODE"):
        module.TIME_OUT_REMOTE_CODE = 0


WITHOUT_MODEL = (
    "Config",
    "Tokenizer",
    "TokenizerFast",
    "Processor",
    "ProcessorFast",
    "FeatureExtractor",
)
"""What the names of classes of transformers end with that load no weights."""


def _needs_no_model(request: dict[str, Any]) -> bool:
    """Returns whether a class is asked for that transformers loads without its modeling code and torch."""
    keywords = {"dtype", *(keyword.name for keyword in KEYWORDS)}
    return str(request.get("class") or "").endswith(WITHOUT_MODEL) and keywords.isdisjoint(
        request.get("keywords") or {}
    )


def _keywords(keywords: dict[str, Any]) -> dict[str, Any]:
    """Turns JSON keywords into what ``from_pretrained`` of this version takes.

    Raises:
        RequestError: A dtype that torch does not know, a division that this version does not.
    """
    dtype = keywords.pop("dtype", None)
    if dtype is not None:
        if dtype != "auto":
            import torch

            known = getattr(torch, str(dtype).removeprefix("torch."), None)
            if not isinstance(known, torch.dtype):
                raise RequestError(f"torch has no dtype {dtype!r}: use bfloat16, float16, float32 or auto")
            dtype = known
        keywords[dtype_keyword()] = dtype
    if (problem := divide(keywords)) is not None:
        raise RequestError(problem)
    if "quantization_config" in keywords:
        keywords["quantization_config"] = as_object(keywords["quantization_config"])
    memory = keywords.get("max_memory")
    if isinstance(memory, dict):
        # JSON has no integer keys, and accelerate numbers accelerators by integers.
        keywords["max_memory"] = {int(key) if key.isdigit() else key: value for key, value in memory.items()}
    return keywords


def _resolve_class(
    recorder: Recorder, transformers: Any, request: dict[str, Any], keywords: dict[str, Any]
) -> Any:
    """Returns the class to load with: the one asked for, or the auto class for the config's architecture."""
    name = request.get("class")
    if name:
        return _named_class(transformers, name)
    task = request.get("task")
    if task:
        if task not in TASKS:
            raise RequestError(f"unknown task {task!r}: known are {', '.join(sorted(TASKS))}")
        return _named_class(transformers, TASKS[task])
    gguf = bool(keywords.get("gguf_file"))
    model = str(request["model"])
    adapter = adapter_config(model, str(keywords.get("subfolder") or "")) if os.path.isdir(model) else None
    if adapter is not None:
        needed = class_for(adapter, transformers)
        try:
            model = base_of(model, adapter)
        except AdapterError as problem:
            raise RequestError(str(problem)) from None
        if needed is not None:
            return _named_class(transformers, needed)
        # What is said of the adapter's folder and revision is not the base's.
        own = ("subfolder", "revision")
        config = _config(
            recorder, transformers, model, {key: keywords[key] for key in keywords if key not in own}
        )
    else:
        config = _config(recorder, transformers, model, keywords)
    architectures = config.get("architectures") or []
    remote = config.get("auto_map") or {}
    for candidate in (*PREFERRED, *LAST):
        if candidate in remote:
            return _named_class(transformers, candidate)
    if not architectures and gguf:
        return _class_with_head(str(config.get("model_type")))
    if not architectures:
        return _named_class(transformers, "AutoModel")
    return _auto_class(transformers, str(architectures[0]), str(config.get("model_type")))


def _named_class(transformers: Any, name: str) -> Any:
    """Returns a class of transformers by name, or of any module as ``module:Class``."""
    module_name, colon, attribute = name.partition(":")
    if colon and os.getcwd() not in sys.path:
        # As with "python -m": what lies where the user stands can be named. Torch and transformers are
        # imported by now, so no file here stands in for them.
        sys.path.insert(0, os.getcwd())
    try:
        owner = (
            getattr(importlib.import_module(module_name), attribute) if colon else getattr(transformers, name)
        )
    except (AttributeError, ImportError) as error:
        where = module_name if colon else f"transformers {transformers.__version__}"
        reason = "" if isinstance(error, AttributeError) else f" ({str(error).splitlines()[0][:120]})"
        raise RequestError(f"{where} has no class {attribute or name!r}{reason}") from None
    if not hasattr(owner, "from_pretrained"):
        raise RequestError(f"{name} has no from_pretrained: name a model class, or an Auto class")
    return owner


def _config(recorder: Recorder, transformers: Any, model: str, keywords: dict[str, Any]) -> dict[str, Any]:
    """Returns the raw config, to see the architecture in it.

    A local file is read as it is; of a GGUF file the first lines, or by transformers all of it, in one span.
    For a Hub id the config is loaded, which is a load of its own in the trace: it
    may download.
    """
    if keywords.get("gguf_file"):
        # Inside a span of ours it is no load. One from the Hub stays one: it downloads the file.
        local = os.path.isdir(model)
        path = Path(model, str(keywords.get("subfolder") or ""), str(keywords["gguf_file"]))
        named = architecture_of(str(path)) if local else None
        if named in importlib.import_module(CONFIGS).CONFIG_MAPPING_NAMES:
            return {"model_type": named}
        # What has another name there is known to transformers alone, which reads all of the file.
        span = recorder.begin("config", "the GGUF file's config, to choose the class") if local else None
        try:
            return _loaded_config(transformers, model, keywords)
        except Exception:
            return {}  # the load itself will say what is wrong with it
        finally:
            if span is not None:
                recorder.end(span)
    path = Path(model, str(keywords.get("subfolder") or ""), "config.json")
    if os.path.isdir(model):
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}  # the load itself will say what is wrong with it
        return config if isinstance(config, dict) else {}
    return _loaded_config(transformers, model, keywords)


def _loaded_config(transformers: Any, model: str, keywords: dict[str, Any]) -> dict[str, Any]:
    names = (
        "gguf_file",
        "revision",
        "cache_dir",
        "token",
        "local_files_only",
        "subfolder",
        "trust_remote_code",
        "force_download",
    )
    passed = {name: keywords[name] for name in names if name in keywords}
    found: dict[str, Any] = transformers.AutoConfig.from_pretrained(model, **passed).to_dict()
    return found


def _class_with_head(model_type: str) -> Any:
    """Returns the auto class for a GGUF file, which says what kind of model it is but no class.

    Such files are made of models that generate text, with all that they need for it.
    """
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    for name in PREFERRED:
        owner = vars(auto).get(name)
        if model_type in (getattr(getattr(owner, "_model_mapping", None), "_model_mapping", None) or ()):
            return owner
    return auto.AutoModelForCausalLM


def _auto_class(transformers: Any, architecture: str, model_type: str) -> Any:
    """Returns the auto class whose table maps ``model_type`` to ``architecture``, else the class itself."""
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    names = [name for name in vars(auto) if name.startswith("AutoModel") and name not in (*PREFERRED, *LAST)]
    for name in (*PREFERRED, *names, *LAST):
        owner = vars(auto).get(name)
        mapping = getattr(getattr(owner, "_model_mapping", None), "_model_mapping", None)
        if mapping is None:
            continue
        entry = mapping.get(model_type)
        if architecture == entry or (isinstance(entry, (tuple, list)) and architecture in entry):
            return owner
    try:
        return getattr(transformers, architecture)
    except AttributeError:
        return _named_class(transformers, "AutoModel")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
