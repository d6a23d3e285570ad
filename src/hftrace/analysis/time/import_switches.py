"""How to keep a library from importing a package that it imports only where it is there.

Each switch was set, and the package was not imported any more: tests/integration/test_import_switches.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Variable(NamedTuple):
    """An environment variable that a library heeds."""

    name: str
    value: str
    libraries: tuple[str, ...]
    below: int | None
    """The first major version of the first one that does not heed it any more; None where the newest does."""


VARIABLES = {
    "tensorflow": Variable("USE_TF", "0", ("transformers",), 5),
    # What transformers calls USE_JAX in its code reads this one: USE_JAX=0 changes nothing.
    "jax": Variable("USE_FLAX", "0", ("transformers",), 5),
    "flax": Variable("USE_FLAX", "0", ("transformers",), 5),
    "torch_xla": Variable("USE_TORCH_XLA", "0", ("transformers", "accelerate"), None),
}
"""By package: what the libraries that import it are told by."""


def variable_for(package: str, importer: str, versions: dict[str, str | None]) -> Variable | None:
    """Returns the variable that keeps a library from importing a package; None where there is none.

    Args:
        package: What is imported.
        importer: The library that imports it.
        versions: Of libraries, by name.
    """
    known = VARIABLES.get(package)
    if known is None or importer not in known.libraries or known.below is None:
        return known if known is not None and importer in known.libraries else None
    major = (versions.get(known.libraries[0]) or "").partition(".")[0]
    return known if major.isdecimal() and int(major) < known.below else None


class Unneeded(Protocol):
    """A package that could be left out."""

    @property
    def variable(self) -> Variable | None:
        """What the library that imports it is told by."""

    @property
    def names(self) -> list[str]:
        """The packages that have to count as not installed."""

    @property
    def distributions(self) -> tuple[str, ...]:
        """What pip calls these."""

    @property
    def library(self) -> str:
        """What imports it."""


def switch_words(packages: Sequence[Unneeded]) -> str:
    """Returns how to keep packages from being imported, in one sentence without its point."""
    variables = sorted({f"{found.name}={found.value}" for each in packages if (found := each.variable)})
    others = [each for each in packages if each.variable is None]
    words = [f"set {' '.join(variables)}"] if variables else []
    if others:
        names = list(dict.fromkeys(name for each in others for name in each.names))
        gone = sorted({name for each in others for name in each.distributions})
        libraries = sorted({each.library for each in others})
        words.append(
            f"put {program_line(names)} before the first import of {', '.join(libraries)}, "
            f"or uninstall {' '.join(gone)}"
        )
    return "; ".join(words)


def program_line(packages: list[str]) -> str:
    """Returns the line of a program that makes packages count as not installed, in this process alone."""
    names = ", ".join(f"{name}=None" for name in packages)
    return f"import sys; sys.modules.update({names})"
