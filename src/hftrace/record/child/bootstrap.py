"""Starts hftrace's child inside any interpreter, by path.

Run as ``python bootstrap.py load DIRECTORY MODULE``, whose ``main`` gets the
directory, or as ``python bootstrap.py inspect``.
The interpreter need not have hftrace installed: the package is loaded from
where this file lies, and ``sys.path`` stays what it would be without us, so
that nothing of the supervisor's environment leaks into the load.

This file alone is written for any Python 3, so that one that is too old can
say so.
"""

import importlib
import importlib.util
import os
import sys

OLDEST = (3, 10)
HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.dirname(os.path.dirname(HERE))


def load_package() -> None:
    """Makes ``import hftrace`` mean the package that this file belongs to."""
    # Python puts the script's directory first; "import json" must not find our modules.
    if sys.path and os.path.abspath(sys.path[0]) == HERE:
        del sys.path[0]
    spec = importlib.util.spec_from_file_location(
        "hftrace", os.path.join(PACKAGE, "__init__.py"), submodule_search_locations=[PACKAGE]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["hftrace"] = module
    spec.loader.exec_module(module)


def print_error(directory: str) -> None:
    """Says in the run's directory, or on stderr, that this Python is too old."""
    version = ".".join(map(str, sys.version_info[:3]))
    text = "it is Python %s, and %d.%d is the oldest that works" % (version, *OLDEST)  # noqa: UP031
    if directory:
        with open(os.path.join(directory, "problem.txt"), "w") as file:
            file.write(text)
    else:
        sys.stderr.write(text + "\n")


def run() -> int:
    """Does what the arguments say; returns the exit code."""
    if sys.version_info < OLDEST:
        print_error(sys.argv[2] if sys.argv[1] == "load" else "")
        return 2
    load_package()
    if sys.argv[1] == "inspect":
        from hftrace.record.child.inspection import main as inspect_main

        return inspect_main()
    # Whoever starts a load says whose code it is: there are loads with more to them.
    return int(importlib.import_module(sys.argv[3]).main(sys.argv[2]))


if __name__ == "__main__":
    try:
        sys.exit(run())
    except KeyboardInterrupt:
        # Interrupted before there is a load that could say so.
        sys.exit(130)
