"""Stand-ins for names: a trace to show to strangers, with ``user1`` for a person wherever the name stands.

Secrets never reach a trace (:mod:`hftrace.schema.redact`); names do, because a trace without them would say
less. What is replaced: names of users, with their home folders; of machines; of repositories and model
folders, and of their owners. A name is found where its place says what it is (below ``/home``, in a URL, as
the model of a load), and replaced wherever else it stands, in the same way in every trace that is shown
together.
"""

from __future__ import annotations

import dataclasses
import getpass
import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from hftrace.schema import fact_shapes, line_shapes
from hftrace.schema.checks import TABLES
from hftrace.schema.model import Facts, Table
from hftrace.schema.names import ALONE, AS_HOST, AS_PAIR, AS_PATH, IN_HOME, WIDE, Names, lowered
from hftrace.schema.secrets.rules import listed
from hftrace.schema.trace import Trace

USER, HOST, OWNER, REPOSITORY = "user", "host", "org", "repo"
SHORT = 3
"""A shorter name is replaced only where its place says what it is: it is a part of too much else."""
WORDS = frozenset(
    listed(
        "admin app auto base bfloat16 build cache checkpoint checkpoints cpu cuda data datasets dist "
        "float16 float32 gpu head home host hub huggingface import latest lib linux load local machine "
        "main master model models node none null packages python release root safetensors server shared "
        "site snapshot snapshots src test tests tmp torch training transformers ubuntu user users var "
        "weight weights worker"
    )
)
"""Names that say nothing of anybody and stand in any trace: replaced where their place says what they are."""
PUBLIC = re.compile(
    r"(?:.+\.)?(?:huggingface\.co|hf\.co|github\.com|githubusercontent\.com|pypi\.org|pytorch\.org)"
    r"|localhost(?:\.localdomain)?|ip6-localhost|127(?:\.\d+){3}|0\.0\.0\.0|::1"
)
"""Machines that everybody knows, and the one that is everybody's own."""
VOCABULARY = frozenset(
    listed(
        "phase status kind provenance evidence dtype stored_dtype device offload operations result format "
        "damage method unverified made_of where afterwards"
    )
)
"""Columns that hold words of ours or of torch's."""
MODELS = frozenset(("model", "repo_id", "base_model", "adapters", "pretrained_model_name_or_path"))
"""Facts that name a model: a repository, or a folder."""

_HOME = re.compile(
    r"(?:(?<=/home/)|(?<=/Users/)|(?<=[\\/]Users\\)|(?<=\\Users\\\\))([^/\\\s:;,'\"<>|*?()\[\]{}&%]+)"
)
_MAIL = re.compile(r"(?<![\w.+-])([\w.+-]{2,64})@((?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24})(?![\w-])")
_URL = re.compile(
    r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{0,20}://(?:[^\s/?#@'\"]{0,200}@)?"
    r"(\[[0-9A-Fa-f:.]+\]|[^\s/?#:@'\"<>\\,;)\]}]+)([^\s'\"<>?#]*)"
)
_CACHED = re.compile(r"(?:models|datasets|spaces)--([^\s/\\'\":,;)]+)")
_MODULES = re.compile(r"transformers_modules[./]([\w-]+)[./]([\w-]+)")
_HUB_PATH = re.compile(
    r"^/(?:api/(?:resolve-cache/)?)?(?:(?:models|datasets|spaces)/)?([\w.-]+)/([\w.-]+)/"
    r"(?:resolve|raw|tree|blob|revision|paths-info|commits?|refs|xet-read-token|[0-9a-f]{40})(?:/|$)"
)
_HUB_API = re.compile(r"^/api/(?:models|datasets|spaces)/([\w.-]+)/([\w.-]+)")
_REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_ARCHITECTURE = re.compile(r"(?:models[./]|(?:modeling|configuration|tokenization|processing)_)([a-z0-9_]+)")
_NEITHER = {".", "..", "~", ""}


def _known_facts(shape: Any) -> Iterator[str]:
    """Yields the names of all facts that hftrace writes."""
    if isinstance(shape, Mapping):
        for name, inner in shape.items():
            yield str(name)
            yield from _known_facts(inner)
    elif isinstance(shape, (list, tuple)):
        for inner in shape:
            yield from _known_facts(inner)


_FACTS = frozenset(
    name
    for module in (fact_shapes, line_shapes)
    for value in vars(module).values()
    if isinstance(value, Mapping)
    for name in _known_facts(value)
)


class Name(NamedTuple):
    """A name that was found, and what stands for it."""

    text: str
    kind: str
    stand_in: str


class StandIns:
    """The names of one or more traces, each with what stands for it.

    Args:
        here: Whether this process's own user, home and machine are names, too.
    """

    def __init__(self, here: bool = True) -> None:
        self._names: dict[tuple[str, str], Name] = {}
        self._counts: dict[str, int] = {}
        self._domains: set[str] = set()
        self._narrow: set[str] = set(WORDS)
        self._pairs: dict[tuple[str, str], None] = {}
        self._folders: dict[str, None] = {}
        """Paths of models, whose last part may be any word elsewhere."""
        self._finder: Names | None = None
        self._seen: dict[str, str] = {}
        self._homes: dict[str, str] = {}
        if here:
            self._learn_here()

    # -- what is found

    def _learn_here(self) -> None:
        try:
            self._add(USER, getpass.getuser())
        except (OSError, KeyError, ImportError):  # a user without a name
            pass
        self._add_host(socket.gethostname())
        home = os.path.expanduser("~").rstrip("/")
        if home.count("/") > 1 and self._names:
            user = next((name for name in self._names.values() if name.kind == USER), None)
            if user is not None:
                self._homes[home] = f"/home/{user.stand_in}"

    def learn(self, trace: Trace) -> None:
        """Finds the names in a trace."""
        self._add_host(trace.environment.get("host"))
        self._add_model(trace.request.get("path"))
        for block in (trace.header, trace.environment, trace.request, trace.outcome):
            self._look(block, "")
        for name in TABLES:
            for column, values in getattr(trace, name).columns.items():
                if column in VOCABULARY or (name == "tensors" and column != "file"):
                    continue
                self._look_at(column, values)
                if (name, column) == ("requests", "path"):
                    for path in _distinct(values):
                        self._look_at_path(path)
                elif (name, column) == ("files", "source"):
                    for source in _distinct(values):
                        self._add_model(source)
        self._finder = None
        self._seen.clear()

    def _look_at(self, column: str, values: Iterable[Any]) -> None:
        seen: set[str] = set()
        for value in values:
            if isinstance(value, str):
                if value not in seen:
                    seen.add(value)
                    self._look(value, column)
            elif value.__class__ in (dict, list):
                self._look(value, column)

    def _look(self, value: Any, name: str) -> None:
        """Finds names in a value that stands under a name."""
        if isinstance(value, str):
            self._look_at_text(value)
            if name in MODELS:
                self._add_model(value)
            elif name in ("host", "hostname"):
                self._add_host(value)
        elif isinstance(value, Mapping):
            for key, item in value.items():
                self._look_at_text(str(key))
                self._look(item, str(key))
        elif isinstance(value, (list, tuple)):
            for item in value:
                self._look(item, name)

    def _look_at_text(self, text: str) -> None:
        if len(text) < SHORT:
            return
        for found in _HOME.finditer(text):
            self._add(USER, found[1].rstrip(".!"))
        if "@" in text:
            for found in _MAIL.finditer(text):
                if found[1] != "git":
                    self._add(USER, found[1])
                    self._add_host(found[2])
        for found in _URL.finditer(text):
            self._add_host(found[1].strip("[]"))
            self._look_at_path(re.sub(r"^:\d+", "", found[2]))
        for found in _CACHED.finditer(text):
            self._add_repository(found[1].replace("--", "/", 1))
        for found in _MODULES.finditer(text):
            if not _COMMIT.fullmatch(found[2]):
                self._add_repository("/".join(map(_named, found.groups())))
        for found in _ARCHITECTURE.finditer(text):
            self._narrow.add(found[1].lower())

    def _look_at_path(self, path: str) -> None:
        found = _HUB_PATH.match(path) or _HUB_API.match(path)
        if found is not None:
            self._add_repository(f"{found[1]}/{found[2]}")

    def _add_model(self, model: Any) -> None:
        """Adds what a load names: a repository, or the folder of a model."""
        if not isinstance(model, str) or not model.strip() or "\n" in model:
            return
        if _REPOSITORY.fullmatch(model):
            self._add_repository(model)
        elif "://" not in model:
            last = re.split(r"[\\/]", model.rstrip("\\/"))[-1]
            if "snapshots" not in model and not _COMMIT.fullmatch(last):
                self._add(REPOSITORY, last)
                self._folders[model.rstrip("\\/")] = None

    def _add_repository(self, repository: str) -> None:
        owner, slash, name = repository.rpartition("/")
        self._add(REPOSITORY, name)
        if slash:
            self._add(OWNER, owner)
            self._pairs[lowered(owner), lowered(name)] = None

    def _add_host(self, host: Any) -> None:
        if not isinstance(host, str):
            return
        host = re.sub(r"\A([^:]+):\d+\Z", r"\1", host).strip(".[]")
        if not host or PUBLIC.fullmatch(host.lower()):
            return
        name = self._add(HOST, host)
        short, dot, domain = host.partition(".")
        if name is not None and dot and not re.fullmatch(r"[\d.]+", host):
            self._add(HOST, short, name.stand_in)
            if "." in domain:
                self._domains.add(domain.lower())

    def _add(self, kind: str, text: str, stand_in: str | None = None) -> Name | None:
        """Adds a name, and returns it with what stands for it."""
        text = text.strip()
        if text in _NEITHER or _is_stand_in(text):
            return None
        key = kind, lowered(text)
        if key not in self._names:
            if stand_in is None:
                self._counts[kind] = self._counts.get(kind, 0) + 1
                stand_in = f"{kind}{self._counts[kind]}"
            self._names[key] = Name(text, kind, stand_in)
            self._finder = None
        return self._names[key]

    # -- what is replaced

    def _compiled(self) -> Names:
        """Returns what finds every name that is known by now."""
        if self._finder is None:
            self._finder = Names()
            for name in self._names.values():
                where = self._where(name)
                if where == AS_PAIR:
                    continue  # an owner whose name is any word's is one beside a repository alone
                for text in _ways(name.text):
                    self._finder.add(text, name.stand_in, where)
            for owner, repository in self._pairs:
                both = self._names.get((OWNER, owner)), self._names.get((REPOSITORY, repository))
                if both[0] is None or both[1] is None:
                    continue
                where = self._where(both[0])
                for mark in ("/", "--"):
                    self._finder.add(
                        f"{owner}{mark}{repository}",
                        f"{both[0].stand_in}{mark}{both[1].stand_in}",
                        WIDE if where == WIDE else AS_PAIR,
                    )
            for domain in self._domains:
                self._finder.add_domain(domain)
            for folder in self._folders:
                above, last = re.match(r"(.*[\\/])?(.*)", folder, re.DOTALL).groups("")  # type: ignore[union-attr]
                found = self._names.get((REPOSITORY, lowered(last)))
                if found is not None and above and self._where(found) != WIDE:
                    start = above.lstrip("/\\.~")
                    known = self._finder.replaced(start, self._host_of)
                    if start:
                        self._finder.add(start + last, known + found.stand_in, AS_PATH)
        return self._finder

    def _where(self, name: Name) -> str:
        """Returns where a name is one: anywhere as a word, or where its place says what it is."""
        if len(name.text) >= SHORT and lowered(name.text) not in self._narrow and not name.text.isdigit():
            return WIDE
        return {USER: IN_HOME, HOST: AS_HOST, REPOSITORY: ALONE, OWNER: AS_PAIR}[name.kind]

    def text(self, text: str) -> str:
        """Returns a text in which stand-ins are for names."""
        found = self._seen.get(text)
        if found is None:
            found = text
            for home, stand_in in self._homes.items():
                if home in found:
                    found = re.sub(rf"{re.escape(home)}(?![^\W_])", stand_in, found)
            found = self._compiled().replaced(found, self._host_of)
            if len(self._seen) < 200_000:
                self._seen[text] = found
        return found

    def _host_of(self, host: str) -> str:
        """Returns what stands for a machine of a domain that is known."""
        key = HOST, lowered(host)
        if key not in self._names:
            self._counts[HOST] = self._counts.get(HOST, 0) + 1
            self._names[key] = Name(host, HOST, f"{HOST}{self._counts[HOST]}")
        return self._names[key].stand_in

    def value(self, value: Any) -> Any:
        """Returns a value of JSON with stand-ins in all its texts; names of facts that are ours stay."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {
                key if key in _FACTS else self.text(str(key)): self.value(item) for key, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return value

    def trace(self, trace: Trace) -> Trace:
        """Returns a trace with stand-ins for the names in it."""
        self.learn(trace)
        changed: dict[str, Any] = {
            name: Facts(self.value(getattr(trace, name)))
            for name in ("header", "environment", "request", "outcome")
        }
        for name in TABLES:
            table = getattr(trace, name)
            columns = {
                self.text(column) if column not in _columns(table) else column: (
                    values if column in VOCABULARY else self._column(values)
                )
                for column, values in table.columns.items()
            }
            changed[name] = Table(table.row_type, columns)
        return dataclasses.replace(trace, **changed)

    def _column(self, values: list[Any]) -> list[Any]:
        text, value = self.text, self.value
        return [
            text(each) if each.__class__ is str else value(each) if each.__class__ in (dict, list) else each
            for each in values
        ]


def _named(module: str) -> str:
    """Returns what a module of a repository's code is called there."""
    return module.replace("_hyphen_", "-").replace("_dot_", ".")


def _ways(text: str) -> set[str]:
    """Returns a name as it may stand: as it is, and as a part of the name of a module."""
    return {text, text.replace("-", "_hyphen_").replace(".", "_dot_")}


def _columns(table: Table[Any]) -> set[str]:
    return {field.name for field in dataclasses.fields(table.row_type)}


def _distinct(values: Iterable[Any]) -> set[str]:
    return {value for value in values if isinstance(value, str)}


def _is_stand_in(text: str) -> bool:
    return re.fullmatch(rf"(?:{USER}|{HOST}|{OWNER}|{REPOSITORY})\d+", text) is not None
