"""Rules about the code of a model: whose it is, who decides what runs next time, and what was not called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hftrace import units
from hftrace.analysis.findings.rules import Finding, Fix, Where, first_few, rule
from hftrace.analysis.model_loads import ModelLoad, model_loads
from hftrace.analysis.own_code import PACKAGE, CodeFile, code_files
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.values import text
from hftrace.schema.trace import Trace

MAX_NAMES = 3
SHORT = 12
"""Digits of a commit, and of a hash, that are shown."""


@rule(
    ("R37", "foreign-code", "The code that runs is not that of the folder that was asked for."),
    concerns="asked",
    severity="error",
)
def foreign_code(trace: Trace) -> Iterator[Finding]:
    """R37: the model's class is not the one that the checkpoint brought, although its code was allowed."""
    for load in model_loads(trace):
        model = load.request.get("model") or "the folder"
        runs = load.got.get("class") or load.name
        source = text(load.got.get("source"))
        if files := _names(load.got.get("foreign_files")):
            yield Finding(
                "R37",
                "foreign-code",
                f"{runs} runs other code than its folder has",
                f"What runs differs from {', '.join(files[:MAX_NAMES])} in {model}; it was imported from "
                f"{source or 'elsewhere'}, which another folder with the same last part of "
                "its name may have filled.",
                "Give the folders different names, or load them in different processes.",
                where=Where(spans=[load.span], files=first_few(files)),
            )
        elif named := _not_its_own(load):
            where = f" of {source}" if source else ""
            yield Finding(
                "R37",
                "foreign-code",
                f"{runs}{f' of {_last(source)}' if source else ''} runs, not the code that came with {model}",
                f"trust_remote_code=True was given, and the config of {model} names {named}; what runs is "
                f"{runs}{where}{_registration(load)}.",
                "Where the checkpoint's own code is meant, register no class for its model_type in this "
                "process, or call from_pretrained of the class that is meant.",
                where=Where(spans=[load.span]),
            )


def _not_its_own(load: ModelLoad) -> str | None:
    """Returns the class that a checkpoint's config names, where another one runs although it was allowed."""
    named = text(load.got.get("auto_map"))
    if named is None or load.keywords.get("trust_remote_code") is not True or "class" not in load.got:
        return None
    module, _, name = named.rpartition("--")[2].rpartition(".")
    own = text(load.got.get("module")) or ""
    same = own.startswith(PACKAGE) and own.rpartition(".")[2] == module
    return None if same and load.got.get("class") == name else named


def _registration(load: ModelLoad) -> str:
    found = load.got.get("registered")
    if not isinstance(found, Mapping):
        return ""
    by = f"{found['auto_class']}.register" if text(found.get("auto_class")) else "AutoConfig.register"
    return f", which {by} has put in place for model_type {found.get('model_type')}"


def _last(path: str | None) -> str:
    return (path or "").replace("\\", "/").rpartition("/")[2]


@rule(
    (
        "R52",
        "unpinned-code",
        "Code from the Hub runs, of a revision that may be another one next time.",
    ),
    concerns="code",
    severity="warning",
)
def unpinned_code(trace: Trace) -> Iterator[Finding]:
    """R52: remote code whose revision is a branch, a tag or left out: who can push there decides."""
    for load in model_loads(trace):
        loose: dict[str, list[CodeFile]] = {}
        for file in code_files(load.attributes):
            if not file.pinned and file.repo:
                loose.setdefault(file.repo, []).append(file)
        for repo, files in loose.items():
            first = files[0]
            names = [file.file for file in files]
            at = f"revision={first.revision!r}" if first.revision else "no revision"
            keyword = "revision" if repo == load.request.get("model") else "code_revision"
            also = (
                f" (revision= is for the weights of {load.request.get('model')})"
                if keyword == "code_revision"
                else ""
            )
            yield Finding(
                "R52",
                "unpinned-code",
                f"Code of {repo} is not pinned to a commit",
                f"{_joined(names)} came with {at} given, this time from commit "
                f"{(first.commit or '')[:SHORT]}: whoever can push to that repository decides what runs "
                "next time.",
                f'Read that code, then give {keyword}="{first.commit}"{also}.',
                view="files",
                fix=Fix({keyword: first.commit}) if first.commit else None,
                where=Where(spans=[load.span], files=first_few(names)),
            )


CORE = "convert_and_load_state_dict_in_model"
"""The core of the loader of 5.x: it calls no ``load_state_dict``."""
INTO_META = "_load_state_dict_into_meta_model"
"""What places tensors one by one in 4.x: from 4.50 on by ``load_state_dict`` of a tensor's own module."""
BY_MODULE = ("B", "C")
"""Loader generations whose way of placing them is that."""


@rule(
    (
        "R53",
        "uncalled-hooks",
        "Modules have hooks for load_state_dict, and this loader places tensors without calling it.",
    ),
    concerns="code",
    severity="info",
)
def uncalled_hooks(trace: Trace) -> Iterator[Finding]:
    """R53: what a model's author does to the keys of a checkpoint did not happen."""
    for load in model_loads(trace):
        noted = load.got.get("load_hooks")
        hooks = [each for each in (noted if isinstance(noted, list) else []) if isinstance(each, Mapping)]
        way = _way(trace, load) if hooks else None
        if way is None:
            continue
        if way == INTO_META and trace.environment.get("generation") in BY_MODULE:
            hooks = [hook for hook in hooks if hook.get("own_tensors") is False]
        if not hooks:
            continue
        said = [_hook_words(hook) for hook in hooks[:MAX_NAMES]]
        rest = len(hooks) - len(said)
        provenance = trace.tensors.column("provenance")
        lost = any(provenance[row] in ("initialized", "uninitialized", "unused") for row in load.rows)
        version = trace.environment.get("transformers")
        yield Finding(
            "R53",
            "uncalled-hooks",
            f"{units.count(len(hooks), 'load_state_dict hook')} of the model "
            f"{'was' if len(hooks) == 1 else 'were'} not called",
            f"{'; '.join(said)}{f' and {rest:,} more' if rest > 0 else ''}. transformers {version or ''} "
            f"placed the tensors by {way}, which does not call load_state_dict of these modules"
            + (
                ": what the hooks rename or convert is among the missing or unused weights, perhaps."
                if lost
                else "."
            ),
            "Save the checkpoint under the model's own names, or rename its keys with key_mapping= of "
            "from_pretrained (4.50 and later); model.load_state_dict of a state dict of your own calls them.",
            concerns="weights" if lost else "code",
            view="tensors",
            severity="warning" if lost else "info",
            numbers={"hooks": len(hooks)},
            where=Where(spans=[load.span]),
        )


def _way(trace: Trace, load: ModelLoad) -> str | None:
    """Returns the function that placed a load's tensors without ``load_state_dict`` of the whole model."""
    index = span_index(trace)
    functions = trace.spans.column("function")
    below = [index.row_of[load.span]] if load.span in index.row_of else []
    found: set[str] = set()
    while below:
        row = below.pop()
        found.add(str(functions[row]))
        below += index.children[row]
    if any(name.rpartition(".")[2] == "load_state_dict" and "." in name for name in found):
        return None  # of the whole model, or of one in it
    return next((name for name in (CORE, INTO_META) if name in found), None)


def _hook_words(hook: Mapping[str, object]) -> str:
    source = text(hook.get("source"))
    place = f" ({_last(source)})" if source else ""
    return f"{hook.get('function')}{place} of {hook.get('module') or 'the model'}"


def _names(value: object) -> list[str]:
    return [str(name) for name in value] if isinstance(value, list) else []


def _joined(names: list[str]) -> str:
    rest = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {rest:,} more" if rest > 0 else "")
