"""The examples of README, docs and the skill: found by their form, so that a new one is tested unasked.

A page shows commands in blocks of ``console`` (or ``text``, with output below) as lines that begin with
``$``, and programs in blocks of ``python``. :data:`NOT_RUN` names what no test runs here, and why.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SKILL = ROOT / "src" / "hftrace" / "skills" / "hftrace" / "SKILL.md"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "docs" / "llms.txt", SKILL)
BLOCK = re.compile(r"^```(?P<kind>\w+)\n(?P<body>.*?)^```$", re.M | re.S)
COMMAND = re.compile(r"^\$ (?P<command>(?:.*\\\n)*.+)$", re.M)
INLINE = re.compile(r"`(hftrace [a-z]+ [^`]+)`")
LOADS = re.compile(
    r"^hftrace (?:load|run|plan|doctor|compare .*--(?:variant|sweep))|torchrun|^HFTRACE=\S+ python"
)
"""What imports torch takes seconds or minutes, and is for the long run."""

NOT_RUN = {
    r"^bash tests/run\.sh$": "runs this suite",
    r"venv|^pip install|^pipx |^uvx ": "installs torch: tried by hand, docs/install.md says on what",
    r"^docker |^kubectl ": "needs a daemon, or a cluster",
    r"^hftrace run vllm ": "needs vllm",
    r"^HFTRACE=\S+ uvicorn ": "serves until it is stopped: test_programs.py has services",
    r"^hftrace attach ": "needs a process that waits: test_attach.py has some",
    r"--send\b": "needs a collector: test_otlp.py has a receiver",
    r"show TRACE --web": "opens a browser: test_page_in_browser.py drives the page",
    r"^hftrace tune ": "takes minutes: test_tune.py searches, with the same options",
    r"^hftrace bisect ": "installs releases: test_bisect.py bisects folders of them",
    r"^hftrace floor \./llama$": "reads gigabytes: test_floor.py measures a small model",
    r"--fsdp-size ": "needs a transformers that has it: test_distributed.py runs it where there is one",
    r"^hftrace recover ": "needs a load that was killed: test_deaths.py and test_recover.py kill some",
    r"python=/envs/old/": "needs a second environment: test_compare_runs.py makes one",
    r"env-4\.57\.6/bin/python|--size 2GB|^hftrace compare l2g ": "made the recorded examples",
    r"torchrun --nnodes 2 ": "needs two nodes: examples/two_nodes.sh, which a test runs",
    r"^hftrace merge ": "needs two nodes: examples/two_nodes.sh, which a test runs",
    r"^hftrace synth .*--size 500MB": "writes 500 MB: test_synth_loads.py makes smaller ones",
    r"^pytest ": "test_pytest_plugin.py runs pytest with these options",
    r"^hftrace completion --install$": "writes into the home directory: test_completion.py gives it one",
}
"""Commands that are not run from the page, by a pattern, and why; click reads them all the same."""


@dataclass(frozen=True)
class Example:
    """A command or a program that a page shows."""

    page: str
    line: int
    text: str

    @property
    def name(self) -> str:
        """Where it stands, and how it begins."""
        return f"{self.page}:{self.line}: {self.text.splitlines()[0][:60]}"

    @property
    def reason(self) -> str | None:
        """Why it is not run; None for what is."""
        return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, self.text)), None)

    @property
    def loads(self) -> bool:
        """Whether it starts a load."""
        return re.search(LOADS, self.text) is not None

    def words(self) -> list[str]:
        """Returns the command's words up to the first pipe, without comment and variables."""
        words = shlex.split(self.text.replace("\\\n", " "), comments=True)
        if "|" in words:
            words = words[: words.index("|")]
        return words


def _found(pattern: re.Pattern[str], group: str, *kinds: str) -> list[Example]:
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for block in BLOCK.finditer(text):
            if block["kind"] not in kinds:
                continue
            start = text.count("\n", 0, block.start()) + 2
            for each in pattern.finditer(block["body"]):
                line = start + block["body"].count("\n", 0, each.start())
                found.append(Example(page.name, line, each[group]))
    return found


def commands() -> list[Example]:
    """Returns the commands of all pages. Those of the reference are ``--help``."""
    return [
        each for each in _found(COMMAND, "command", "console", "text") if not each.text.endswith("--help")
    ]


def of_workflows() -> list[Example]:
    """Returns the commands of hftrace in workflows, which no GitHub runs here."""
    found = []
    for path in (*(ROOT / ".github" / "workflows").glob("*.yml"), *(ROOT / "examples" / "ci").glob("*.yml")):
        text = path.read_text("utf-8")
        for each in re.finditer(r"^ +(?:- )?(?:run: )?(hftrace (?:.*\\\n)*.+)$", text, re.M):
            found.append(Example(path.name, text.count("\n", 0, each.start()) + 1, each[1]))  # noqa: PERF401
    return found


def programs() -> list[Example]:
    """Returns the Python programs of all pages."""
    return _found(re.compile(r"\A(?P<program>.*)\Z", re.S), "program", "python")


def mentioned() -> list[Example]:
    """Returns commands of hftrace in the middle of a sentence."""
    found = []
    findings = sorted((ROOT / "src" / "hftrace" / "analysis" / "findings" / "pages").glob("*.md"))
    for page in (*PAGES, *findings, ROOT / "CONTRIBUTING.md"):
        text = BLOCK.sub(lambda block: "\n" * block[0].count("\n"), page.read_text("utf-8"))
        found += [
            Example(page.name, text.count("\n", 0, each.start()) + 1, " ".join(each[1].split()))
            for each in INLINE.finditer(text)
        ]
    return found
