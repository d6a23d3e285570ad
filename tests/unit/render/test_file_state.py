"""What a comparison says of a file: how large it is, and how much of it was used."""

from __future__ import annotations

import dataclasses

import pytest

from hftrace.render.compare.words import file_state
from hftrace.schema.model import File


def file(**values):
    """Returns a row of the file ledger of which nothing else is known."""
    return File(**{field.name: values.get(field.name) for field in dataclasses.fields(File)})


@pytest.mark.parametrize(
    ("size", "read", "said"),
    [
        (151_000, 65_900, "local 151 kB (65.9 kB used)"),
        (109_000, 107_000, "local 109 kB"),  # all but its header
        (109_000, 0, "local 109 kB"),  # none of it was asked for by name
        (None, 107_000, "local 107 kB"),
        (None, None, "local"),
    ],
)
def test_a_file_is_as_large_as_it_is(size, read, said):
    assert (
        file_state(file(name="model.safetensors", result="local", size_bytes=size, read_bytes=read)) == said
    )


def test_a_file_that_is_not_there_has_no_size():
    assert file_state(file(name="model.safetensors", result="missing", size_bytes=5)) == "missing"
    assert file_state(None) == "not asked for"
