"""What all tests share: isolation from the machine, real processes, and sample traces.

Every test runs without a network, without tokens, and with caches of its own,
whatever the environment of the person who runs it says.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent
DATA = TESTS / "data"
FOREIGN = ("HF_", "HUGGING_FACE_", "HUGGINGFACE_", "TRANSFORMERS_", "SAFETENSORS_", "ACCELERATE_", "HFTRACE_")
"""Variables that change what is tested, or that hold a token: none of them reaches a test."""
KEPT = ("HFTRACE_ENVIRONMENTS", "HFTRACE_TEST_TRANSFORMERS", "HFTRACE_LONG_TESTS")
SCREEN = (
    *("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE"),
    *("AI_AGENT", "AGENT"),
)
HOST_WARNINGS = (
    # transformers 4.36 under torch 2.2 and newer, while it is imported.
    r"ignore:`torch\.utils\._pytree\._register_pytree_node` is deprecated:FutureWarning",
)
"""Warnings of old libraries that no caller can avoid, by their exact beginning."""

_session = pytest.StashKey[tuple[dict[str, str], Path]]()


def _isolated(place: Path) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if (name in KEPT or not name.startswith(FOREIGN)) and name not in SCREEN
    }
    return {
        **kept,
        "HF_HOME": str(place / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HFTRACE_CACHE": str(place / "hftrace"),
        "TOKENIZERS_PARALLELISM": "false",
    }


def pytest_configure(config: pytest.Config) -> None:
    for warning in HOST_WARNINGS:
        # Not a mark on the tests: a module that imports transformers does so while it is collected.
        config.addinivalue_line("filterwarnings", warning)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell's background job ignores Ctrl-C, and so would all processes that a test interrupts.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Now, not in a fixture: huggingface_hub reads these variables when it is imported.
    place = Path(tempfile.mkdtemp(prefix="hftrace-tests-"))
    config.stash[_session] = (dict(os.environ), place)
    isolated = _isolated(place)
    os.environ.clear()
    os.environ.update(isolated)


def pytest_unconfigure(config: pytest.Config) -> None:
    if _session in config.stash:
        before, place = config.stash[_session]
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(place, ignore_errors=True)


def pytest_report_header() -> str:
    versions = []
    for name in ("torch", "transformers", "accelerate", "huggingface_hub"):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {name}")
    return ", ".join(versions)


def pytest_sessionstart() -> None:
    asked = os.environ.get("HFTRACE_TEST_TRANSFORMERS")
    if asked and asked != (found := importlib.metadata.version("transformers")):
        pytest.exit(f"transformers {asked} was asked for, and {found} is what these tests would see", 4)


STARTING_FIXTURES = {"run_cli", "run_python", "pytester"}
STARTERS = {"subprocess", "Popen", "multiprocessing", "fork", "posix_spawn"}
"""Modules and functions that start processes, by the names that code uses for them."""


def _starts_process(function: Any, seen: set[types.CodeType]) -> bool:
    """Returns whether a function, or a function or class of its module that it uses, starts processes."""
    code = getattr(function, "__code__", None)
    if code is None or code in seen:
        return False
    todo, names = [code], set()
    while todo:
        part = todo.pop()
        seen.add(part)
        names.update(part.co_names)
        todo += [constant for constant in part.co_consts if isinstance(constant, types.CodeType)]
    if names & STARTERS:
        return True
    for name in names & function.__globals__.keys():
        value = function.__globals__[name]
        if getattr(value, "__module__", None) == function.__module__:
            parts = vars(value).values() if isinstance(value, type) else (value,)
            if any(_starts_process(part, seen) for part in parts):
                return True
    return False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("process") is None:
            seen: set[types.CodeType] = set()
            fixtures = item._fixtureinfo.name2fixturedefs.values()
            used = [item.function, *(definition.func for part in fixtures for definition in part)]
            starting = STARTING_FIXTURES & set(item.fixturenames)
            if starting or any(_starts_process(part, seen) for part in used):
                item.add_marker(pytest.mark.process)
        folder = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
        if folder == "integration":
            item.add_marker(pytest.mark.integration)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("long") is not None and not os.environ.get("HFTRACE_LONG_TESTS"):
        pytest.skip("takes minutes: set HFTRACE_LONG_TESTS")
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("there is no GPU here")


@pytest.fixture(autouse=True)
def isolation() -> Iterator[None]:
    """Gives every test the same environment variables and working directory."""
    variables, directory = dict(os.environ), os.getcwd()
    yield
    os.chdir(directory)
    own = "PYTEST_CURRENT_TEST"
    for name in os.environ.keys() - variables.keys() - {own}:
        del os.environ[name]
    os.environ.update({name: value for name, value in variables.items() if name != own})


@pytest.fixture
def globals_put_back() -> Iterator[None]:
    """For loads that overlap: they may leave changed what transformers replaces while a load runs.

    The load that leaves last puts back what it found, which may be what the other had put there;
    `tie_weights` then does nothing in this process.
    """
    import torch
    from transformers import modeling_utils

    inside = [module for name, module in sys.modules.items() if name.startswith("torch.nn.modules.")]
    owners = (torch, torch.nn.init, *inside, torch.nn.Module, modeling_utils, modeling_utils.PreTrainedModel)
    before, dtype = [(owner, dict(vars(owner))) for owner in owners], torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)
    for owner, values in before:
        for name, value in values.items():
            if vars(owner).get(name) is not value:
                setattr(owner, name, value)


@pytest.fixture(scope="session")
def hftrace_cache() -> Path:
    """The directory of this run's synthetic checkpoints: made once, used by all tests."""
    place = Path(os.environ["HFTRACE_CACHE"])
    place.mkdir(parents=True, exist_ok=True)
    return place


Run = Callable[..., "subprocess.CompletedProcess[str]"]


def _run(
    command: list[str], cwd: Path, env: Mapping[str, str | None] | None, timeout: float, **options: Any
) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "COLUMNS": "80", "LINES": "24", **(env or {})}
    options.setdefault("stdin", subprocess.DEVNULL)
    if "input" in options:
        del options["stdin"]
    return subprocess.run(
        command,
        cwd=cwd,
        env={name: value for name, value in variables.items() if value is not None},
        capture_output=True,
        encoding="utf-8",
        errors="backslashreplace",
        timeout=timeout,
        **options,
    )


@pytest.fixture
def run_python(tmp_path: Path) -> Run:
    """Runs a fresh interpreter: ``run_python("-c", code, env={"NAME": "value", "UNSET": None})``.

    It starts in the test's own directory. ``env`` is added to the environment;
    ``timeout`` (seconds), ``cwd`` and ``input`` are those of subprocess.run.
    """

    def run(
        *arguments: str | os.PathLike[str],
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        timeout: float = 120,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *map(os.fspath, arguments)]
        return _run(command, cwd or tmp_path, env, timeout, **options)

    return run


@pytest.fixture
def run_cli(run_python: Run) -> Run:
    """Runs ``hftrace`` as a real process: ``run_cli("show", path, "--json").stdout``; see ``run_python``."""

    def run(*arguments: str | os.PathLike[str], **options: Any) -> subprocess.CompletedProcess[str]:
        return run_python("-m", "hftrace.cli.main", *arguments, **options)

    return run


def _generator() -> Any:
    spec = importlib.util.spec_from_file_location("hftrace_tests_generate", DATA / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def make_trace() -> Callable[..., Any]:
    """Makes a trace of any size in memory: ``make_trace(tensors=100_000, shards=40, samples=3000)``."""
    make: Callable[..., Any] = _generator().make_trace
    return make


@pytest.fixture
def sample_trace() -> Path:
    """The sample file of the newest released format, with everything in it."""
    return DATA / "trace-1.0.json"
