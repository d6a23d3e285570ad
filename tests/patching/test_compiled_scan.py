"""A block marks hundreds of codes, and a process has thousands of modules."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from hftrace.record import compiled

pytestmark = pytest.mark.once


class CountingModules(dict[str, Any]):
    looked = 0

    def items(self) -> Any:
        self.looked += 1
        return super().items()


def test_modules_are_looked_through_once_until_one_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    marked: list[types.CodeType] = []
    modules = CountingModules(sys.modules)
    monkeypatch.setattr(compiled, "sys", types.SimpleNamespace(modules=modules))
    monkeypatch.setattr(compiled, "_skipping", lambda: marked.append)
    monkeypatch.setattr(compiled, "_done", set())
    monkeypatch.setattr(compiled, "_seen", 0)
    codes = [compile(f"{number} + 1", "here", "eval") for number in range(100)]
    for code in codes:
        compiled.run_as_it_is(code)
    assert modules.looked == 1
    assert marked.count(codes[0]) == 1
    assert {*codes} <= {*marked}
    assert compiled._codes_of.__code__ in marked

    ours = types.ModuleType("hftrace.imported_later")
    exec("def later(): pass", vars(ours))
    modules[ours.__name__] = ours
    compiled.run_as_it_is(compile("0", "here", "eval"))
    assert modules.looked == 2
    assert ours.later.__code__ in marked
