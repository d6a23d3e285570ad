"""On what condition a line imports something, as its source says."""

from __future__ import annotations

import pytest

from hftrace.replay.guards import forget_sources, guard_of

SOURCE = '''\
import json
if is_scipy_available():
    from scipy.optimize import linear_sum_assignment
if not is_torch_available():
    import fallback
if (
    is_jax_available()
    and other
):
    import jax
try:
    import rich
except (ImportError, OSError):
    rich = None
try:
    import strict
except ValueError:
    strict = None
try:
    import anything
except:
    pass


class Late:
    """A docstring with if is_x_available(): in it.

if is_never_available():
    """

    def use(self):
        import used

        if is_sklearn_available():
            import sklearn
        return sklearn
if is_torch_available():
    text = """
    two lines
"""
    import after_text
try:
    import left
finally:
    pass
if TYPE_CHECKING:
    import typed
else:
    import untyped
if torch.distributed.is_available():
    if deep:
        import torch.distributed.tensor
if HAS_PANDAS:
    import pandas
'''


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.py"
    path.write_text(SOURCE)
    yield path
    forget_sources()


@pytest.mark.parametrize(
    ("line", "guard"),
    [
        ("import json", None),
        ("from scipy.optimize import linear_sum_assignment", "if is_scipy_available()"),
        ("import fallback", None),
        ("import jax", "if ( is_jax_available() and other )"),
        ("import rich", "try, except ImportError"),
        ("import strict", None),
        ("import anything", "try, except anything"),
        ("import used", None),
        ("import sklearn", "if is_sklearn_available()"),
        ("import after_text", "if is_torch_available()"),
        ("import left", None),
        ("import typed", None),
        ("import untyped", None),
        ("import torch.distributed.tensor", "if torch.distributed.is_available()"),
        ("import pandas", "if HAS_PANDAS"),
    ],
)
def test_what_an_import_is_under(source, line, guard):
    lines = SOURCE.split("\n")
    number = next(at for at, text in enumerate(lines, 1) if text.strip() == line)
    assert guard_of(str(source), number) == guard


def test_lines_that_import_nothing(source):
    assert guard_of(str(source), 2) is None
    assert guard_of(str(source), 0) is None
    assert guard_of(str(source), 10_000) is None


def test_sources_that_cannot_be_read(tmp_path):
    assert guard_of(str(tmp_path / "gone.py"), 1) is None
    assert guard_of(str(tmp_path), 1) is None
    assert guard_of("<frozen zipimport>", 1) is None
    (tmp_path / "binary.py").write_bytes(bytes(range(256)))
    assert guard_of(str(tmp_path / "binary.py"), 1) is None
    # A file that has been replaced since by one that is no Python any more.
    (tmp_path / "cut.py").write_text('if x:\n    """\n    import y\n')
    assert guard_of(str(tmp_path / "cut.py"), 3) is None
