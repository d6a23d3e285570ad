"""hftrace shows what happens between ``from_pretrained(...)`` and a model that is ready to run.

Importing this package imports neither torch nor transformers: they come in
with the load that is traced, so that their import can be measured too. What
takes time to import comes in when it is asked for.

To pytest, which finds a plugin here and may find this package imported already
(``hftrace run -m pytest``): PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

from hftrace._version import __version__
from hftrace.errors import HftraceError, TraceError

TYPE_CHECKING = False
"""As typing has it, whose import would come before the command can answer Ctrl-C."""
if TYPE_CHECKING:
    from typing import Any

    from hftrace.api.recording import Recording, trace
    from hftrace.api.trace import Trace
    from hftrace.record.session import step

__all__ = ["HftraceError", "Recording", "Trace", "TraceError", "__version__", "step", "trace"]


def __getattr__(name: str) -> Any:
    if name == "Trace":
        from hftrace.api.trace import Trace

        return Trace
    if name == "Recording":
        from hftrace.api.recording import Recording

        return Recording
    if name == "step":
        from hftrace.record.session import step

        return step
    if name == "trace":
        from hftrace.api.recording import trace

        return trace
    if name == "load_ipython_extension":  # what %load_ext looks for
        from hftrace.api.notebook import register

        return register
    raise AttributeError(f"module 'hftrace' has no attribute {name!r}")


def load_ipython_extension(shell: Any) -> None:
    """Adds ``%%hftrace`` to a notebook: what ``%load_ext hftrace`` calls."""
    from hftrace.api.notebook import register

    register(shell)


def __dir__() -> list[str]:
    return __all__
