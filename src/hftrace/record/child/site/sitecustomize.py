"""What Python imports at its start by this name where ``hftrace run`` has put this folder on its path.

It begins to record, takes the folder off the path again, and gives way to the
``sitecustomize`` that would have been found without it. Written for any
Python: a program may start others than the one that it runs in.
"""

import importlib
import importlib.util
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def _leave_path() -> None:
    # As it would be without this folder; PYTHONPATH still names it, for children.
    sys.path[:] = [place for place in sys.path if not place or os.path.abspath(place) != HERE]
    sys.path_importer_cache.pop(HERE, None)


def _record() -> None:
    child = os.path.dirname(HERE)
    spec = importlib.util.spec_from_file_location("hftrace_bootstrap", os.path.join(child, "bootstrap.py"))
    assert spec is not None
    assert spec.loader is not None
    bootstrap = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bootstrap)
    if "hftrace" not in sys.modules:
        bootstrap.load_package()
    from hftrace.record.child.program import begin

    begin()


_leave_path()
if sys.version_info >= (3, 10) and "HFTRACE_RUN" in os.environ:
    try:
        _record()
    except Exception as error:  # whatever it is, the program runs
        sys.stderr.write("hftrace: nothing is recorded (%s: %s)\n" % (type(error).__name__, error))  # noqa: UP031
del sys.modules[__name__]
# What there is none of is no error to Python, if it is this one that is missing.
importlib.import_module(__name__)
