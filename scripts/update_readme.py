"""Writes what hftrace prints for the recorded examples into README.md.

    python scripts/update_readme.py            rewrites README.md
    python scripts/update_readme.py --check    leaves with 1 where it differs from what would be printed

A block of text whose first line is ``$ hftrace show traces/...`` (or ``compare``)
holds that command's output at 80 columns. It may be an excerpt: sections, which
empty lines part, are known by the first words of their first line, and only those
that the block has already are written. A section of three dots stays.
"""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
BLOCK = re.compile(
    r"^```text\n(?P<command>\$ hftrace (?:show|compare) traces/[^\n]*)\n(?P<body>.*?)^```$", re.M | re.S
)
LEFT_OUT = "..."


def updated(text: str) -> str:
    """Returns the text with every block as it would be printed now."""
    return BLOCK.sub(_block, text)


def _block(found: re.Match[str]) -> str:
    command = found["command"]
    printed = _sections(_output(command))
    kept = []
    for section in _sections(found["body"]):
        if section == LEFT_OUT:
            kept.append(section)
            continue
        alike = max(printed, key=lambda other: _alike(section, other))
        if not _alike(section, alike):
            sys.exit(f"README.md: {command} prints no section that begins like {section[:40]!r}")
        kept.append(alike)
    body = "\n\n".join(kept or printed)
    return f"```text\n{command}\n{body}\n```"


def _output(command: str) -> str:
    words = shlex.split(command.removeprefix("$ hftrace "))
    done = subprocess.run(
        [sys.executable, "-m", "hftrace", *words, "--width", "80", "--color", "never"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env={"PATH": "", "PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(ROOT / "src")},
    )
    if done.returncode:
        sys.exit(f"{command}: {done.stderr}")
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


def main() -> None:
    """Rewrites README.md, or says whether it would be another."""
    before = README.read_text(encoding="utf-8")
    after = updated(before)
    if "--check" in sys.argv[1:]:
        sys.exit(after != before and "README.md is not what hftrace prints: python scripts/update_readme.py")
    README.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
