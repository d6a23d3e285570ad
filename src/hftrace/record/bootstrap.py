"""Starts hftrace's child inside any interpreter, by path.

Run as ``python bootstrap.py load DIRECTORY`` or ``python bootstrap.py inspect``. The interpreter need not have
hftrace installed: the package is loaded from where this file lies, and
``sys.path`` stays what it would be without us, so that nothing of the
supervisor's environment leaks into the load.
"""

import importlib.util
import os
import sys

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def load_package() -> None:
    """Makes ``import hftrace`` mean the package that this file belongs to."""
    # Python puts the script's directory first; "import json" must not find our modules.
    if sys.path and os.path.abspath(sys.path[0]) == os.path.dirname(os.path.abspath(__file__)):
        del sys.path[0]
    spec = importlib.util.spec_from_file_location(
        "hftrace", os.path.join(PACKAGE, "__init__.py"), submodule_search_locations=[PACKAGE]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["hftrace"] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    load_package()
    if sys.argv[1] == "inspect":
        from hftrace.record.inspection import main as inspect_main

        sys.exit(inspect_main())
    from hftrace.record.child import main as load_main

    sys.exit(load_main(sys.argv[2]))
