"""The group of commands: each one's module is imported when the command is used, and not before."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import click
from click.shell_completion import CompletionItem

from hftrace._version import __version__


class _LazyGroup(click.Group):
    """A group that knows its commands by the names of their modules."""

    def __init__(self, entries: Mapping[str, tuple[str, str]]) -> None:
        super().__init__(
            "hftrace",
            help="See what happens between from_pretrained(...) and a model that is ready to run.",
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        self._entries = entries

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._entries:
            return None
        command = importlib.import_module(self._entries[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # The same: a shell asks while somebody waits for it.
        found = [CompletionItem(name, help=entry[1]) for name, entry in self._entries.items()]
        mine = [item for item in found if str(item.value).startswith(incomplete)]
        return mine + super(click.Group, self).shell_complete(ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # The short help comes from the table: no command is imported to print it.
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[1]) for name, entry in self._entries.items()])


def make_group(entries: Mapping[str, tuple[str, str]]) -> click.Group:
    """Returns the ``hftrace`` command.

    Args:
        entries: Each command: its module, whose ``command`` is a click command, and its help in one line.
    """
    return click.version_option(__version__, prog_name="hftrace")(_LazyGroup(entries))
