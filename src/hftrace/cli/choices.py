"""A choice of names that says in the shell's completion what each is good for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from hftrace.render.registry import ALL, View

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class ViewChoice(click.Choice):  # type: ignore[type-arg]
    """A choice of one view, or of all."""

    def __init__(self, views: Mapping[str, View]) -> None:
        super().__init__([*views, ALL])
        self._help = {**{name: view.help for name, view in views.items()}, ALL: "One below the other."}

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Returns the names that begin like this, each with its line of help."""
        from click.shell_completion import CompletionItem

        return [
            CompletionItem(name, help=text)
            for name, text in self._help.items()
            if name.startswith(incomplete)
        ]
