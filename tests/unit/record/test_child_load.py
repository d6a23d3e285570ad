"""The loading process of ``hftrace load``: which class it takes."""

from __future__ import annotations

import sys

import pytest

from hftrace.record.child import load


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A directory to stand in, which is no place that modules come from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("homemade"):
            del sys.modules[name]


def test_a_class_of_the_directory_where_the_user_stands(here):
    (here / "homemade_models").mkdir()
    (here / "homemade_models" / "__init__.py").write_text("from .inner import Model\n")
    (here / "homemade_models" / "inner.py").write_text(
        "class Model:\n    @classmethod\n    def from_pretrained(cls, name):\n        return cls()\n"
    )
    owner = load._named_class(None, "homemade_models:Model")
    assert owner.__module__ == "homemade_models.inner"


def test_a_class_of_transformers_needs_no_such_place(here):
    class Transformers:
        class AutoModel:
            from_pretrained = None

    path = list(sys.path)
    assert load._named_class(Transformers, "AutoModel") is Transformers.AutoModel
    assert sys.path == path


def test_a_module_that_is_not_there(here):
    with pytest.raises(load.RequestError, match="homemade_nosuch has no class"):
        load._named_class(None, "homemade_nosuch:Model")
