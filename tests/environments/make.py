"""Makes the environments that hftrace is tested in.

    python tests/environments/make.py --directory .venvs [--only VERSION ... | --ci | --all]

DIRECTORY/base is a virtual environment with torch, the newest transformers,
hftrace (editable), and the tools of tests and docs. Each other transformers version is an
overlay, DIRECTORY/overlays/VERSION: transformers, tokenizers and
huggingface_hub alone, used by putting it on PYTHONPATH in front of the base
environment. Twenty-one versions so cost one torch. DIRECTORY/extras holds the
packages of some kinds of load (peft, gguf, quantisers) in the same way,
DIRECTORY/torchao, DIRECTORY/others, DIRECTORY/kernels and DIRECTORY/notebook
those that must not be there otherwise.

What is complete is left alone; run it again after a change of the pins.
Needs Python 3.10 or newer with venv and pip, and nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from versions import ALL, BASE, CI, EXTRAS, FIRST, KERNELS, NOTEBOOK, OTHERS, OVERLAYS, TORCHAO, WITH

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = Path(__file__).with_name("constraints.txt")
MARKER = ".complete"


class MakeError(Exception):
    """Something that a person has to put right, in one sentence."""


def base_python(directory: Path) -> Path:
    """The interpreter of the base environment."""
    return directory / "base" / "bin" / "python"


def overlay(directory: Path, version: str) -> Path | None:
    """The overlay of a version; None for the version that is in the base itself."""
    return None if version == BASE else directory / "overlays" / version


def is_complete(directory: Path, version: str) -> bool:
    """Whether everything that ``version`` needs is there, made from the pins as they are now."""
    place = overlay(directory, version)
    return _marked(directory / "base", _base_key()) and (
        place is None or _marked(place, _overlay_key(version))
    )


def _marked(place: Path, key: str) -> bool:
    try:
        return (place / MARKER).read_text() == key
    except OSError:
        return False


def _base_key() -> str:
    digest = hashlib.sha256()
    for part in (
        CONSTRAINTS.read_bytes(),
        (ROOT / "pyproject.toml").read_bytes(),
        repr((FIRST, WITH)).encode(),
        os.fsencode(ROOT),
    ):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def _overlay_key(version: str) -> str:
    return f"transformers {version} {OVERLAYS[version]}"


def pip_install(python: Path, *arguments: str) -> None:
    """Installs into the environment of ``python``; tries twice."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-input", *arguments]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    environment.pop("PYTHONPATH", None)
    for attempt in (1, 2):
        result = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if result.returncode == 0:
            return
        if attempt == 1:
            time.sleep(3)  # one more try: a registry may hiccup
    tail = "\n".join(result.stdout.splitlines()[-25:])
    raise MakeError(f"pip failed with exit code {result.returncode}: {' '.join(command)}\n{tail}")


def make_base(directory: Path) -> None:
    """Makes the base environment, or brings it up to date."""
    place = directory / "base"
    key = _base_key()
    if _marked(place, key):
        print(f"base: complete ({place})", flush=True)
        return
    started = time.monotonic()
    print(f"base: installing torch, transformers {BASE}, hftrace, the tools of tests and docs", flush=True)
    (place / MARKER).unlink(missing_ok=True)
    python = base_python(directory)
    if not python.exists():
        shutil.rmtree(place, ignore_errors=True)
        made = subprocess.run(
            [sys.executable, "-m", "venv", str(place)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if made.returncode:
            shutil.rmtree(place, ignore_errors=True)
            raise MakeError(f"{sys.executable} cannot make a virtual environment:\n{made.stdout.strip()}")
    constraints = ("--constraint", str(CONSTRAINTS))
    pip_install(python, *constraints, *FIRST)
    pip_install(python, *constraints, "--editable", f"{ROOT}[test,docs]", *WITH)
    (place / MARKER).write_text(key)
    print(f"base: made in {time.monotonic() - started:.0f} s", flush=True)


def make_overlay(directory: Path, version: str) -> None:
    """Makes the overlay of one version."""
    place = overlay(directory, version)
    assert place is not None
    key = _overlay_key(version)
    if _marked(place, key):
        print(f"{version}: complete", flush=True)
        return
    started = time.monotonic()
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    pins = OVERLAYS[version]
    packages = [f"transformers=={version}"]
    packages += [f"{name}=={pin}" for name, pin in pins._asdict().items() if pin is not None]
    pip_install(base_python(directory), "--no-deps", "--no-compile", "--target", str(place), *packages)
    (place / MARKER).write_text(key)
    print(f"{version}: made in {time.monotonic() - started:.0f} s", flush=True)


def make_extras(directory: Path, name: str, packages: tuple[str, ...]) -> None:
    """Makes a directory of packages that only some kinds of load need."""
    place = directory / name
    key = repr(packages)
    if _marked(place, key):
        print(f"{name}: complete", flush=True)
        return
    started = time.monotonic()
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    # Without what they depend on: torch and transformers are there, and the rest is among them.
    pip_install(base_python(directory), "--no-deps", "--no-compile", "--target", str(place), *packages)
    (place / MARKER).write_text(key)
    print(f"{name}: made in {time.monotonic() - started:.0f} s", flush=True)


def make(directory: Path, versions: tuple[str, ...], jobs: int = 4) -> None:
    """Makes all that ``versions`` need.

    Raises:
        MakeError: An environment could not be made.
    """
    make_base(directory)
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        pending = [pool.submit(make_overlay, directory, version) for version in versions if version != BASE]
        pending.append(pool.submit(make_extras, directory, "extras", EXTRAS))
        pending.append(pool.submit(make_extras, directory, "torchao", TORCHAO))
        pending.append(pool.submit(make_extras, directory, "others", OTHERS))
        pending.append(pool.submit(make_extras, directory, "kernels", KERNELS))
        pending.append(pool.submit(make_extras, directory, "notebook", NOTEBOOK))
        errors = [error for task in pending if (error := task.exception()) is not None]
    if errors:
        raise errors[0]


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say where the environments are and which versions are meant."""
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(os.environ.get("HFTRACE_ENVIRONMENTS") or ROOT / ".venvs"),
        help="where the environments are (default: $HFTRACE_ENVIRONMENTS, or .venvs)",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--only", nargs="+", metavar="VERSION", help="these transformers versions")
    which.add_argument("--ci", action="store_true", help=f"the versions of CI: {', '.join(CI)}")
    which.add_argument("--all", action="store_true", help="every version in versions.py")


def selected(parser: argparse.ArgumentParser, options: argparse.Namespace) -> tuple[str, ...]:
    """The versions that the options name; the newest alone where they name none."""
    options.directory = options.directory.absolute()
    if options.all:
        return ALL
    if options.ci:
        return CI
    versions: tuple[str, ...] = tuple(dict.fromkeys(options.only or (BASE,)))
    unknown = [version for version in versions if version not in ALL]
    if unknown:
        parser.error(f"not in versions.py: {', '.join(unknown)} (there are {', '.join(ALL)})")
    return versions


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_selection(parser)
    parser.add_argument("--jobs", type=int, default=4, help="overlays made at a time (default: 4)")
    options = parser.parse_args()
    versions = selected(parser, options)
    try:
        make(options.directory, versions, options.jobs)
    except (MakeError, OSError) as error:
        print(f"make.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
