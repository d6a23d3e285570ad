"""Options of commands that measure loads: what state the page cache is in, and until when is measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


def measured_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--cold, --warm, --touch, --forward`` and ``--input``, which the command gets as ``given``."""
    options = (
        click.option("--cold", is_flag=True, help="Measure with the weight files out of the page cache."),
        click.option("--warm", is_flag=True, help="Measure with the weight files in the page cache."),
        click.option("--touch", is_flag=True, help="Measure until every page of the weights was read, too."),
        click.option("--forward", is_flag=True, help="Measure until one forward pass is done, too."),
        click.option(
            "--input",
            "given",
            metavar="JSON",
            help="Its inputs, such as '{\"input_ids\": [[1, 2, 3]]}', or a JSON file. Implies --forward.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function
