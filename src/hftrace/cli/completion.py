"""``hftrace completion``: prints what a shell needs to complete commands and options, or installs it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from hftrace.errors import EXIT_OK, HftraceError, UsageError

SHELLS = ("bash", "zsh", "fish")
PROGRAM, VARIABLE = "hftrace", "_HFTRACE_COMPLETE"
MARK = "# hftrace: completion"
"""Ends each line that is written into a file of the user's: a second time adds none."""


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.option("--install", is_flag=True, help="Write it where the shell finds it; once is enough.")
def command(shell: str | None, install: bool) -> int:
    """Print what SHELL needs to complete commands, options and files, or install it.

    SHELL is bash, zsh or fish; without it, what $SHELL says.

    \b
    hftrace completion --install
    eval "$(hftrace completion bash)"
    """  # noqa: D301 (click takes the character for an order to keep the lines)
    shell = shell or _own_shell()
    text = source(shell)
    if not install:
        click.echo(text)
        return EXIT_OK
    try:
        written = installed(shell, text)
    except OSError as error:
        raise HftraceError(f"cannot write {error.filename}: {error.strerror or error}") from None
    for path in written:
        click.echo(f"Wrote {path}", err=True)
    click.echo("Start a new shell to use it.", err=True)
    return EXIT_OK


def _own_shell() -> str:
    name = os.path.basename(os.environ.get("SHELL", ""))
    if name not in SHELLS:
        raise UsageError(f"$SHELL says {name or 'nothing'}: name one of {', '.join(SHELLS)}")
    return name


def source(shell: str) -> str:
    """Returns the script of a shell, as click has it."""
    from click.shell_completion import get_completion_class

    from hftrace.cli.group import make_group

    made = get_completion_class(shell)
    if made is None:
        raise UsageError(f"click has no completion for {shell}")
    # bash's class asks bash for its version before it writes anything; the script itself needs none.
    completion = made(make_group({}), {}, PROGRAM, VARIABLE)
    return (completion.source_template % completion.source_vars()).strip()


def installed(shell: str, text: str) -> list[Path]:
    """Writes the script of a shell, and the lines that make the shell read it; returns the files.

    Raises:
        OSError: One cannot be written.
    """
    home = Path.home()
    if shell == "fish":
        base = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
        return [_write(base / "fish" / "completions" / f"{PROGRAM}.fish", text)]
    if shell == "zsh":
        script = _write(home / ".zfunc" / f"_{PROGRAM}", text)
        start = Path(os.environ.get("ZDOTDIR") or home) / ".zshrc"
        return [
            script,
            *_append(
                start, [f"fpath+={shlex.quote(str(script.parent))}", "autoload -Uz compinit && compinit"]
            ),
        ]
    script = _write(home / ".bash_completions" / f"{PROGRAM}.sh", text)
    return [script, *_append(home / ".bashrc", [f"source {shlex.quote(str(script))}"])]


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _append(path: Path, added: list[str]) -> list[Path]:
    """Adds lines to a file of the user's; returns it where it did not have them yet."""
    before = path.read_text(encoding="utf-8", errors="surrogateescape") if path.exists() else ""
    if MARK in before:
        return []
    lines = "".join(f"{line}  {MARK}\n" for line in added)
    with open(path, "a", encoding="utf-8") as handle:
        handle.write("\n" * bool(before and not before.endswith("\n")) + lines)
    return [path]
