"""The shell completes the names of views, with what each shows."""

import os

import pytest


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("hftrace show x.json --view t", "plain\ntree\nThe loader's functions with their times."),
        ("hftrace compare a.json b.json --view r", "plain\nranking\nAll groups, best first."),
    ],
)
def test_completion_says_what_a_view_shows(run_cli, words, first):
    count = len(words.split()) - 1
    environment = {**os.environ, "_HFTRACE_COMPLETE": "zsh_complete", "COMP_WORDS": words}
    done = run_cli(env={**environment, "COMP_CWORD": str(count)})
    assert done.stdout.startswith(first)
