"""The steps of the action, one at a time: ``python steps.py trace|check|compare|comment|keep``.

Each reads its inputs from variables, so that no text of a pull request is ever part of a shell's line.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

OUT, BASE = Path("hftrace-out"), Path("hftrace-base")
MAX_COMMENT = 60_000
"""GitHub takes 65,536 characters."""


def wanted(name: str) -> str:
    """Returns an input of the action; empty where it was not given."""
    return os.environ.get(f"HFTRACE_{name}", "").strip()


def trace_path(folder: Path) -> Path:
    """Returns where the trace of this name lies in a folder."""
    safe = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in wanted("NAME"))
    return folder / f"{safe.strip('.') or 'load'}.json"


def hftrace(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command of hftrace with this interpreter, where it is installed."""
    # What a step has for itself is none of hftrace's own variables.
    ours = {name: value for name, value in os.environ.items() if not name.startswith("HFTRACE_TOKEN")}
    command = [sys.executable, "-m", "hftrace", *arguments]
    return subprocess.run(command, text=True, env=ours, check=False, **options)


def output(name: str, value: str) -> None:
    """Sets an output of the step."""
    path = os.environ.get("GITHUB_OUTPUT")
    if path:
        with open(path, "a", encoding="utf-8") as handle:
            handle.write(f"{name}={value}\n")


def trace() -> int:
    """Loads the model, or runs the program."""
    model, program = wanted("MODEL"), shlex.split(wanted("PROGRAM"))
    if bool(model) == bool(program):
        print("::error title=hftrace::give the action either a model or a program")
        return 2
    OUT.mkdir(exist_ok=True)
    path = str(trace_path(OUT))
    options = shlex.split(wanted("OPTIONS"))
    what = ["load", model, *options] if model else ["run", *options]
    done = hftrace(*what, "-o", path, "--force", *(["--"] if program else []), *program)
    if Path(path).exists():
        output("trace", path)
        page(trace_path(OUT))
    return done.returncode


def page(*traces: Path) -> None:
    """Writes the report page beside the trace: of one load, or of what differs. It fails no job."""
    path = trace_path(OUT).with_suffix(".html")
    done = hftrace("export", *map(str, traces), "-o", str(path), "--force")
    if done.returncode:
        print(f"::warning title=hftrace::no report page could be written (status {done.returncode})")
    else:
        output("report", str(path))


def check() -> int:
    """Holds the trace against the budgets; hftrace itself writes annotations and the step's summary."""
    path = trace_path(OUT)
    return hftrace(
        "check", str(path), *shlex.split(wanted("CHECK")), "--junit", str(path.with_suffix(".junit.xml"))
    ).returncode


def compare() -> int:
    """Compares with the base branch's trace, where there is one."""
    new, base = trace_path(OUT), trace_path(BASE)
    if not base.exists():
        print(f"The base branch has no trace named {new.stem}: the next push to it keeps one.")
        return 0
    named = [f"base={base}", f"this={new}"]
    done = hftrace("compare", *named, "--format", "markdown", stdout=subprocess.PIPE)
    if done.returncode:
        return done.returncode
    page(base, new)
    path = new.with_suffix(".md")
    path.write_text(done.stdout, encoding="utf-8")
    output("comparison", str(path))
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with open(summary, "a", encoding="utf-8") as handle:
            handle.write(done.stdout)
    threshold = wanted("THRESHOLD")
    if not threshold:
        return 0
    return hftrace("check", str(new), "--baseline", str(base), "--tolerance", threshold).returncode


def comment() -> int:
    """Writes the comparison to the pull request, over the comment of the run before."""
    number = wanted("PULL_REQUEST")
    if not number.isdigit():
        print("::error title=hftrace::the number of the pull request is missing")
        return 2
    mark = f"<!-- hftrace {trace_path(OUT).stem} -->"
    text = trace_path(OUT).with_suffix(".md").read_text(encoding="utf-8")
    if len(text) > MAX_COMMENT:
        text = text[:MAX_COMMENT].rpartition("\n")[0] + "\n\n(the rest is in the artifact)\n"
    body = {"body": f"{mark}\n### hftrace: {trace_path(OUT).stem}\n\n{text}{where_the_page_is()}"}
    issues = f"repos/{os.environ['GITHUB_REPOSITORY']}/issues"
    try:
        for page in range(1, 11):
            found = request("GET", f"{issues}/{number}/comments?per_page=100&page={page}")
            ours = [each for each in found if str(each.get("body") or "").startswith(mark)]
            if ours:
                request("PATCH", f"{issues}/comments/{ours[0]['id']}", body)
                return 0
            if len(found) < 100:
                break
        request("POST", f"{issues}/{number}/comments", body)
    except urllib.error.HTTPError as error:
        # A pull request from a fork has a token that only reads: that is no fault of the load.
        if error.code in (401, 403, 404):
            print(f"::warning title=hftrace::no comment could be written (status {error.code})")
            return 0
        print(f"::error title=hftrace::no comment could be written (status {error.code})")
        return 1
    except OSError as error:
        print(f"::error title=hftrace::no comment could be written ({type(error).__name__})")
        return 1
    return 0


def where_the_page_is() -> str:
    """Returns a line that leads to the run, whose artifact holds the page; empty where there is none."""
    server, run = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_RUN_ID", "")
    if not server or not run.isdigit() or not trace_path(OUT).with_suffix(".html").exists():
        return ""
    place = f"{server}/{os.environ['GITHUB_REPOSITORY']}/actions/runs/{run}"
    return f"\nThe report page is in the artifact `hftrace-{trace_path(OUT).stem}` of [this run]({place}).\n"


def request(method: str, path: str, body: object | None = None) -> Any:
    """Sends one request to GitHub, and returns the JSON of its answer."""
    asked = urllib.request.Request(
        f"{os.environ['GITHUB_API_URL']}/{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {wanted('TOKEN')}",
            "Accept": "application/vnd.github+json",
            "Content-Type": "application/json",
        },
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return json.load(answer)


def keep() -> int:
    """Puts the trace where the next pull request finds it."""
    BASE.mkdir(exist_ok=True)
    shutil.copyfile(trace_path(OUT), trace_path(BASE))
    return 0


STEPS: dict[str, Callable[[], int]] = {
    "trace": trace,
    "check": check,
    "compare": compare,
    "comment": comment,
    "keep": keep,
}

if __name__ == "__main__":
    sys.exit(STEPS[sys.argv[1]]())
