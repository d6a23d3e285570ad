"""Rows that are chosen by their values."""

from __future__ import annotations

import pytest

from hftrace.errors import UsageError
from hftrace.render.chosen import chosen_rows
from hftrace.render.views.options import ViewOptions


class Rows:
    columns = {"name": ["a"], "x" * 10_000: [1]}  # noqa: RUF012

    def __len__(self):
        return 1


def test_an_error_is_short_whatever_columns_a_file_has():
    with pytest.raises(UsageError) as error:
        chosen_rows(Rows(), ViewOptions(where=(("device", "cuda"),)), lambda row: ())
    assert "there are name, xxxx" in error.value.message
    assert len(error.value.message) < 200
