"""Writes into README.md and docs/ what hftrace prints, and what its code says of itself.

    python scripts/update_docs.py            rewrites the pages
    python scripts/update_docs.py --check    exits with 1 where a page would be another, and names it

Three things are written, and the rest of a page is left alone:

- A block of text whose first line is ``$ hftrace show traces/...`` (or ``compare``,
  ``check``, ``synth --list``) holds that command's output at 80 columns. It may be an
  excerpt: sections, which empty lines part, are known by the first words of their first
  line, and only those that the block has already are written. A section of three dots stays.
- Between ``<!-- commands:begin -->`` and ``<!-- commands:end -->`` stands what ``--help``
  says of every command.
- Between ``<!-- columns TABLE:begin -->`` and its end stand the columns of a table of the
  trace with types and units, from the rows in hftrace.schema.model. The meaning of a column is the docstring
  under its field; where there is none, the page's own words stay, and none is an error.
"""

from __future__ import annotations

import ast
import difflib
import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
MODELS = tuple(SOURCE / "hftrace" / "schema" / name for name in ("model.py", "import_model.py", "sample.py"))
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
BLOCK = re.compile(
    r"^```text\n(?P<command>\$ hftrace (?:(?:show|compare|check) traces/[^\n]*|synth --list))\n"
    r"(?P<body>.*?)^```$",
    re.M | re.S,
)
COMMANDS = re.compile(r"(?<=<!-- commands:begin -->\n)(.*?)(?=<!-- commands:end -->)", re.S)
COLUMNS = re.compile(
    r"<!-- columns (?P<table>\w+):begin -->\n(?P<body>.*?)<!-- columns (?P=table):end -->", re.S
)
LEFT_OUT = "..."
EXIT_CODES = (0, 3)
"""What a command that is shown may exit with: 3 is a broken budget, which is a result."""
ROWS = {
    "spans": "Span",
    "tensors": "Tensor",
    "files": "File",
    "requests": "Request",
    "samples": "Sample",
    "imports": "Import",
}
"""The tables of a trace, and the class of their rows."""


class UpdateError(Exception):
    """A page that cannot be written, in one sentence."""


def updated(text: str) -> str:
    """Returns a page with everything in it as it would be written now.

    Raises:
        UpdateError: A command fails, prints no such section, or a column has no meaning.
    """
    text = BLOCK.sub(_block, text)
    text = COMMANDS.sub(lambda _: _helps(), text)
    return COLUMNS.sub(_columns, text)


def _block(found: re.Match[str]) -> str:
    command = found["command"]
    printed = _sections(_output([*shlex.split(command)[2:], "--width", "80", "--color", "never"]))
    kept = []
    for section in _sections(found["body"]):
        if section == LEFT_OUT:
            kept.append(section)
            continue
        alike = max(printed, key=lambda other: _alike(section, other))
        if not _alike(section, alike):
            raise UpdateError(f"{command} prints no section that begins like {section[:40]!r}")
        kept.append(alike)
    body = "\n\n".join(kept or printed)
    return f"```text\n{command}\n{body}\n```"


def _output(words: list[str]) -> str:
    if words[0] == "synth":
        words = [word for word in words if word not in ("--width", "80", "--color", "never")]
    done = subprocess.run(
        [sys.executable, "-m", "hftrace", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env={"PATH": "", "PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(SOURCE), "COLUMNS": "80"},
    )
    if done.returncode not in EXIT_CODES:
        raise UpdateError(f"hftrace {shlex.join(words)} exits with {done.returncode}: {done.stderr}")
    return done.stdout


def _sections(text: str) -> list[str]:
    return [section.strip("\n") for section in re.split(r"\n\s*\n", text.strip("\n")) if section.strip()]


def _alike(section: str, other: str) -> int:
    """Returns how many words at their beginning two sections share."""
    same = itertools.takewhile(
        lambda pair: pair[0] == pair[1], zip(_title(section), _title(other), strict=False)
    )
    return sum(1 for _ in same)


def _title(section: str) -> list[str]:
    return [word for word in section.partition("\n")[0].split() if set(word) != {"─"}]


def _helps() -> str:
    """Returns what ``--help`` says: of hftrace, then of each of its commands."""
    overview = _output(["--help"])
    names = re.findall(r"^  (\w+) {2,}", overview.partition("Commands:")[2], re.M)
    parts = [f"```text\n$ hftrace --help\n{overview.rstrip()}\n```\n"]
    for name in names:
        text = _output([name, "--help"]).rstrip()
        parts.append(f"## hftrace {name}\n\n```text\n$ hftrace {name} --help\n{text}\n```\n")
    return "\n" + "\n".join(parts) + "\n"


def _columns(found: re.Match[str]) -> str:
    table = found["table"]
    if table not in ROWS:
        raise UpdateError(f"a trace has no table {table!r}: {', '.join(ROWS)}")
    own = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| (.*) \|$", found["body"], re.M))
    lines = ["| column | type, unit | meaning |", "| --- | --- | --- |"]
    for name, hint, doc in _fields(ROWS[table]):
        meaning = doc or own.get(name, "")
        if not meaning.strip():
            raise UpdateError(
                f"{table}.{name} has no meaning: give the field a docstring in schema/model.py, "
                "or write its row in docs/trace-format.md"
            )
        lines.append(f"| `{name}` | {hint} | {meaning} |")
    body = "\n".join(lines)
    return f"<!-- columns {table}:begin -->\n{body}\n<!-- columns {table}:end -->"


def _fields(row: str) -> list[tuple[str, str, str]]:
    """Returns name, type and docstring of each column of a row, read from the source."""
    classes = (node for path in MODELS for node in ast.parse(path.read_text("utf-8")).body)
    body = next(node for node in classes if isinstance(node, ast.ClassDef) and node.name == row).body
    fields = []
    for node, after in itertools.zip_longest(body, body[1:]):
        if not isinstance(node, ast.AnnAssign):
            continue
        doc = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            doc = re.sub(r"``(.*?)``", r"`\1`", " ".join(str(after.value.value).split()))
        assert isinstance(node.target, ast.Name)
        hint = ast.unparse(node.annotation).replace(" | None", " or null")
        fields.append((node.target.id, hint + _unit(node.target.id, hint), doc))
    return fields


def _unit(name: str, hint: str) -> str:
    """Returns the unit of a column that counts something, by its name, as the end of its type."""
    if "int" in hint:
        for end, unit in (("_ns", ", ns"), ("bytes", ", bytes")):
            if name.endswith(end):
                return unit
        if name in ("files", "offset"):
            return ", bytes"
    return ", 0 to 1" if name.startswith("resident_") else ""


def main() -> int:
    """Rewrites the pages, or says which would be another."""
    check = "--check" in sys.argv[1:]
    wrong = 0
    for page in PAGES:
        name = page.relative_to(ROOT)
        before = page.read_text(encoding="utf-8")
        try:
            after = updated(before)
        except UpdateError as error:
            sys.stderr.write(f"{name}: {error}\n")
            return 1
        if after == before:
            continue
        if check:
            lines = difflib.unified_diff(before.splitlines(), after.splitlines(), str(name), "printed", n=1)
            sys.stderr.write("\n".join(itertools.islice(lines, 40)) + "\n")
            sys.stderr.write(f"{name} is not what hftrace prints: python scripts/update_docs.py\n")
            wrong += 1
        else:
            page.write_text(after, encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
