"""Whole programs: ``hftrace run`` and ``HFTRACE``, held against the same program without either."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import venv
from importlib import metadata
from pathlib import Path

import pytest
import small_llama
from processes import environment

import hftrace
from hftrace.analysis.children import unrecorded_children

torch = pytest.importorskip("torch")

SOURCES = Path(hftrace.__file__).parents[1]
MODEL_TENSORS = 21  # of small_llama: nine per layer, the embedding, the norm and the head

STATE = """
    import builtins, faulthandler, gc, json, os, signal, sys, threading, warnings
    main = sys.modules["__main__"]
    print(json.dumps({
        "argv": sys.argv, "path": sys.path, "main": sorted(vars(main)), "file": main.__file__,
        "spec": repr(main.__spec__), "loader": type(main.__loader__).__name__,
        "finders": [repr(each) for each in sys.meta_path], "hooks": len(sys.path_hooks),
        "excepthook": repr(sys.excepthook), "trace": sys.gettrace(), "profile": sys.getprofile(),
        "signals": {each: repr(signal.getsignal(each)) for each in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
                    for each in [getattr(signal, each)]},
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), "flags": repr(sys.flags),
        "limit": sys.getrecursionlimit(), "collector": gc.get_threshold(), "filters": len(warnings.filters),
        "builtins": sorted(name for name in vars(builtins) if not name.startswith("__hftrace")),
        "threads": [each.name for each in threading.enumerate() if each.name != "hftrace-journal"],
        "terminal": [os.isatty(number) for number in range(3)], "cwd": os.getcwd(),
        "environment": {name: value for name, value in sorted(os.environ.items())
                        if name not in ("HFTRACE_RUN", "PYTHONPATH")},
        "stdin": sys.stdin.read(), "site": "sitecustomize" in sys.modules,
    }))
    assert os.environ.get("HFTRACE_RUN") or not os.environ.get("EXPECTED"), "it is not recorded"
"""
ENDS = {
    "return": "print('out'); print('err', file=__import__('sys').stderr)",
    "exit": "raise SystemExit(7)",
    "exit-words": "raise SystemExit('no work today')",
    "raise": "def f():\n    raise ValueError('no such thing')\n\ntry:\n    f()\nfinally:\n    print('left')",
    "interrupt": "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)",
    "leave": "import os\nos._exit(3)",
    "kill": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    "syntax": "this is no Python",
    "atexit": "import atexit, threading\natexit.register(print, 'at the end')\n"
    "threading.Timer(0.1, print, ['a thread']).start()",
}


def plain(*arguments, cwd, **options):
    """Runs a program without hftrace."""
    return _ran([sys.executable, *arguments], cwd, **options)


def run(*arguments, cwd, options=(), **rest):
    """Runs it with hftrace, which writes ``out.json``."""
    words = [sys.executable, "-m", "hftrace", "run", "-q", "--force", "-o", "out.json"]
    return _ran([*words, *options, *arguments], cwd, **rest)


def _ran(command, cwd, env=None, text="", **options):
    return subprocess.run(
        list(map(os.fspath, command)),
        cwd=cwd,
        env=environment(env),
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


def state(done):
    """Returns what STATE has printed, without the addresses of objects."""
    return json.loads(re.sub(r" at 0x[0-9a-f]+", "", done.stdout))


def own(stderr: str) -> str:
    """Returns what was written on stderr, without what hftrace says."""
    return "".join(line for line in stderr.splitlines(keepends=True) if not line.startswith("hftrace: "))


def trace_of(cwd, name="out.json") -> hftrace.Trace:
    return hftrace.Trace.open(cwd / name)


def write(folder, name, text) -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("programs") / "model"
    small_llama.write(path)
    return path


# -- as if hftrace were not there -----------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("how", ["script", "module"])
def test_a_program_finds_everything_as_it_is_without_hftrace(tmp_path, how):
    write(tmp_path, "state.py", STATE)
    words = ["state.py"] if how == "script" else ["-m", "state"]
    options = ["-m"] if how == "module" else []
    without = plain(*words, "-x", "--force", "a b", cwd=tmp_path, text="a word")
    traced = run(*words[-1:], "-x", "--force", "a b", cwd=tmp_path, options=options, text="a word")
    assert without.returncode == traced.returncode == 0, traced.stderr
    assert state(traced) == state(without)
    assert json.loads(traced.stdout)["stdin"] == "a word"
    trace = trace_of(tmp_path)
    assert (trace.header["command"], trace.outcome["status"], trace.outcome["exit_code"]) == ("run", "ok", 0)


@pytest.mark.once
@pytest.mark.parametrize("how", ENDS)
def test_a_program_ends_as_it_does_without_hftrace(tmp_path, how):
    write(tmp_path, "ends.py", ENDS[how])
    without, traced = plain("ends.py", cwd=tmp_path), run("ends.py", cwd=tmp_path)
    assert traced.stdout == without.stdout
    assert own(traced.stderr) == without.stderr
    code = without.returncode
    assert traced.returncode == (128 - code if code < 0 else code)
    outcome = trace_of(tmp_path).outcome
    assert outcome["exit_code"] == code
    status = {"raise": "error", "syntax": "error", "interrupt": "interrupted", "kill": "killed"}
    assert outcome["status"] == status.get(how, "ok")
    if how == "raise":
        assert outcome["error"]["message"] == "no such thing"
        assert "ends.py" in outcome["error"]["traceback"]
        assert "hftrace" not in outcome["error"]["traceback"]


@pytest.mark.once
def test_signals_are_the_programs(tmp_path):
    write(
        tmp_path,
        "signals.py",
        """
        import signal, sys, time
        got = []
        names = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGQUIT", "SIGINT")
        for name in names:
            signal.signal(getattr(signal, name), lambda number, _: got.append(signal.Signals(number).name))
        print("ready", flush=True)
        until = time.monotonic() + 60
        while len(got) < len(names) and time.monotonic() < until:
            time.sleep(0.01)
        print(got)
        sys.exit(5)
        """,
    )
    command = [sys.executable, "-m", "hftrace", "run", "-q", "-o", "out.json", "signals.py"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "ready\n"
    names = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGQUIT", "SIGINT")
    for name in names:
        process.send_signal(getattr(signal, name))
    said, _ = process.communicate(timeout=60)
    # A process that gets several at once takes them in an order of its own.
    assert sorted(json.loads(said.replace("'", '"'))) == sorted(names)
    assert process.returncode == 5
    assert trace_of(tmp_path).outcome["exit_code"] == 5


@pytest.mark.once
def test_a_descriptor_is_handed_on(tmp_path):
    write(tmp_path, "reads.py", "import os, sys\nprint(os.read(int(sys.argv[1]), 9).decode())")
    reads, writes = os.pipe()
    os.write(writes, b"from here")
    os.close(writes)
    try:
        done = run("reads.py", str(reads), cwd=tmp_path, pass_fds=[reads])
    finally:
        os.close(reads)
    assert done.stdout == "from here\n"


@pytest.mark.once
def test_the_sitecustomize_that_is_there_is_imported(tmp_path):
    (tmp_path / "lib").mkdir()
    # hftrace's own process imports it, too.
    only = "import sys\nif len(sys.orig_argv) == 2:\n    print('mine', __name__, __file__)\n"
    write(tmp_path / "lib", "sitecustomize.py", only)
    write(tmp_path, "empty.py", "import sitecustomize; print(sitecustomize.__file__)")
    after = os.environ.get("PYTHONPATH")
    env = {"PYTHONPATH": f"{tmp_path / 'lib'}{os.pathsep + after if after else ''}"}
    done = run("empty.py", cwd=tmp_path, env=env)
    assert done.stdout == plain("empty.py", cwd=tmp_path, env=env).stdout
    assert "mine sitecustomize" in done.stdout


@pytest.mark.once
def test_a_test_run_passes_with_warnings_as_errors(tmp_path):
    write(tmp_path, "test_it.py", "def test_it():\n    assert 1 + 1 == 2\n")
    words = ["-W", "error", "-q", "-p", "no:cacheprovider", "test_it.py"]
    done = run("pytest", *words, cwd=tmp_path, options=["-m"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


@pytest.mark.once
def test_an_installed_command_is_run_by_its_own_interpreter(tmp_path):
    command = write(tmp_path, "serve", f"#!{sys.executable}\nimport sys\nprint(sys.argv[1:])\n")
    command.chmod(0o755)
    env = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    (tmp_path / "elsewhere").mkdir()
    done = run("serve", "--port", "1", cwd=tmp_path / "elsewhere", env=env)
    assert (done.returncode, done.stdout) == (0, "['--port', '1']\n")


@pytest.mark.once
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.py"], "no such script: nowhere.py"),
        (["ls"], "is no Python program"),
        (["--python", "/nowhere/python", "empty.py"], "cannot start /nowhere/python"),
        (["-o", "-", "empty.py"], "standard output is the program's own"),
        ([], "Missing argument 'SCRIPT'"),
    ],
)
def test_what_cannot_be_run_is_refused_in_a_sentence(tmp_path, words, said):
    write(tmp_path, "empty.py", "")
    done = _ran([sys.executable, "-m", "hftrace", "run", *words], tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.json"))


# -- supervised -------------------------------------------------------------------------------------------


@pytest.mark.once
def test_a_program_is_ended_at_its_limits(tmp_path):
    write(tmp_path, "grows.py", "import time\nheld = bytearray(300_000_000)\ntime.sleep(60)")
    done = run("grows.py", cwd=tmp_path, options=["--memory-limit", "200MB"])
    assert done.returncode == 3
    assert "the program was stopped at --memory-limit 200 MB" in done.stderr
    done = run("grows.py", cwd=tmp_path, options=["--timeout", "1"])
    assert done.returncode == 3
    assert "the program was stopped after the 1 s of --timeout" in done.stderr
    assert "grows.py" in trace_of(tmp_path).outcome["stack"]


@pytest.mark.once
def test_a_program_that_waits_outside_of_loads_does_not_hang(tmp_path):
    write(tmp_path, "waits.py", "import time\ntime.sleep(1.5)")
    done = run("waits.py", cwd=tmp_path, options=["--stall", "0.3"])
    assert done.returncode == 0
    assert "no event" not in done.stderr
    assert "stalls" not in trace_of(tmp_path).outcome


# -- what it loads ------------------------------------------------------------------------------------------

FAMILY = """
    import multiprocessing, os, subprocess, sys
    from transformers import AutoModelForCausalLM

    def load(path):
        AutoModelForCausalLM.from_pretrained(path)

    if __name__ == "__main__":
        path = sys.argv[1]
        load(path)
        code = "import sys, transformers as t; t.AutoModelForCausalLM.from_pretrained(sys.argv[1])"
        subprocess.run([sys.executable, "-c", code, path], check=True)
        for method in ("spawn", "fork"):
            process = multiprocessing.get_context(method).Process(target=load, args=(path,))
            process.start()
            process.join()
            assert process.exitcode == 0
        child = os.fork()
        if not child:
            load(path)
            os._exit(0)
        os.waitpid(child, 0)
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        sys.exit(4)
"""


def check_family(trace: hftrace.Trace) -> None:
    """Asserts what FAMILY has loaded: five times the same model, each in a process of its own."""
    assert trace.outcome["status"] == "ok"
    assert len(trace.loads) == 5
    assert len({load.pid for load in trace.loads}) == 5
    assert [load.start_ns for load in trace.loads] == sorted(load.start_ns for load in trace.loads)
    for load in trace.loads:
        rows = [row for row in trace.tensors if row.load == load.span and row.kind == "parameter"]
        assert len(rows) == MODEL_TENSORS
        assert {row.provenance for row in rows} == {"checkpoint"}, load
        assert {span.pid for span in trace.spans if span.id == load.span} == {load.pid}
    unrecorded = unrecorded_children(trace)
    assert unrecorded is not None
    # torch with CUDA asks ldconfig for libraries.
    assert dict(unrecorded.names) | {("program", "ldconfig"): 0} == {
        ("fork", None): 1,
        ("program", "ldconfig"): 0,
    }
    assert trace.environment["transformers"] == metadata.version("transformers")


@pytest.mark.sparse
def test_children_are_in_the_same_trace(tmp_path, model):
    write(tmp_path, "family.py", FAMILY)
    done = run("family.py", model, cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    assert "of 5 loads" in done.stderr
    trace = trace_of(tmp_path)
    check_family(trace)
    assert trace.outcome["exit_code"] == 4
    assert not list(tmp_path.glob(".hftrace-run-*"))
    shown = _ran([sys.executable, "-m", "hftrace", "show", "out.json", "--view", "timeline"], tmp_path).stdout
    assert all(f"{load.pid} MainThread" in shown for load in trace.loads)


@pytest.mark.sparse
def test_a_program_that_starts_itself_anew_is_one_trace(tmp_path, model):
    write(
        tmp_path,
        "anew.py",
        """
        import os, sys
        if len(sys.argv) == 2:
            os.execv(sys.executable, [sys.executable, *sys.argv, "again"])
        from transformers import AutoConfig
        AutoConfig.from_pretrained(sys.argv[1])
        """,
    )
    done = run("anew.py", model, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    trace = trace_of(tmp_path)
    assert len(trace.loads) == 1
    assert len({process["pid"] for process in trace.header["processes"]}) == 1


@pytest.mark.once
def test_a_child_that_outlives_the_program_is_not_forgotten(tmp_path):
    write(
        tmp_path,
        "starts.py",
        """
        import subprocess, sys
        code = "import sys; print('up', flush=True); sys.stdin.read(); import safetensors"
        streams = {"stdin": open(sys.argv[1]), "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        child = subprocess.Popen([sys.executable, "-c", code], **streams)
        child.stdout.readline()
        """,
    )
    os.mkfifo(tmp_path / "go on")
    holds = os.open(tmp_path / "go on", os.O_RDWR)
    try:
        done = run("starts.py", "go on", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "1 process of this program still runs, and the trace ends here" in done.stderr
        (kept,) = tmp_path.glob(".hftrace-run-*")
        assert f"hftrace recover {kept.name}" in done.stderr.replace(f"{tmp_path}/", "")
        assert len(trace_of(tmp_path).header["processes"]) == 2
    finally:
        os.close(holds)  # the child reads an end, and ends
    journals = list(kept.glob("journal-*"))
    until = time.monotonic() + 60
    while time.monotonic() < until and not all(b'"stop"' in path.read_bytes() for path in journals):
        time.sleep(0.05)
    command = [sys.executable, "-m", "hftrace", "recover", kept, "-o", "later.json"]
    assert _ran(command, tmp_path).returncode == 0
    assert trace_of(tmp_path, "later.json").outcome["status"] == "ok"


# -- HFTRACE ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An interpreter that has hftrace installed: what its site-packages hold of it is the .pth alone."""
    place = tmp_path_factory.mktemp("installed")
    venv.create(place, with_pip=False, symlinks=True)
    (packages,) = place.glob("lib/python*/site-packages")
    places = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "a.pth").write_text("\n".join([os.fspath(SOURCES), *places]))
    (packages / "hftrace.pth").write_bytes((SOURCES / "hftrace.pth").read_bytes())
    return place / "bin" / "python"


@pytest.mark.once
def test_the_line_that_begins_it_is_installed():
    files = metadata.files("hftrace") or []
    (line,) = [path for path in files if path.name == "hftrace.pth"]
    assert line.read_text() == (SOURCES / "hftrace.pth").read_text()


@pytest.mark.sparse
def test_a_variable_traces_a_program_and_its_children(tmp_path, installed, model):
    write(tmp_path, "family.py", FAMILY)
    done = _ran([installed, "family.py", model], tmp_path, env={"HFTRACE": "traces/{pid}.json"})
    assert done.returncode == 4, done.stderr
    assert "hftrace" not in done.stderr
    (path,) = (tmp_path / "traces").iterdir()
    trace = hftrace.Trace.open(path)
    check_family(trace)
    assert path.stem == str(trace.loads[0].pid)
    assert len({sample.pid for sample in trace.samples}) >= 1


@pytest.mark.once
def test_what_loads_nothing_leaves_nothing(tmp_path, installed):
    write(tmp_path, "empty.py", "print('here')")
    done = _ran([installed, "empty.py"], tmp_path, env={"HFTRACE": "traces/{pid}.json"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "here\n", "")
    assert not list((tmp_path / "traces").iterdir())


@pytest.mark.once
def test_a_name_that_is_taken_is_no_reason_to_lose_a_trace(tmp_path, installed, model):
    write(
        tmp_path,
        "reads.py",
        "import sys\nfrom safetensors import safe_open\nsafe_open(sys.argv[1], 'pt').keys()",
    )
    (tmp_path / "out.json").write_text("mine")
    shard = next(iter(sorted(model.glob("*.safetensors"))))
    done = _ran([installed, "reads.py", shard], tmp_path, env={"HFTRACE": "out.json"})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.json").read_text() == "mine"
    assert trace_of(tmp_path, "out-2.json").header["command"] == "run"


@pytest.mark.once
@pytest.mark.parametrize("asked", ["traces/out", "/proc/nowhere/out.json"])
def test_a_place_that_cannot_be_is_said_once_and_the_program_runs(tmp_path, installed, asked):
    write(tmp_path, "empty.py", "print('here')")
    done = _ran([installed, "empty.py"], tmp_path, env={"HFTRACE": asked})
    assert (done.returncode, done.stdout) == (0, "here\n")
    assert re.fullmatch(r"hftrace: nothing is recorded: [^\n]+\n", done.stderr)


@pytest.mark.once
def test_a_program_that_is_killed_leaves_what_recover_needs(tmp_path, installed, model):
    write(
        tmp_path,
        "dies.py",
        """
        import os, sys
        from transformers import AutoConfig
        AutoConfig.from_pretrained(sys.argv[1])
        os.kill(os.getpid(), 9)
        """,
    )
    done = _ran([installed, "dies.py", model], tmp_path, env={"HFTRACE": "traces/out.json"})
    assert done.returncode == -signal.SIGKILL
    command = [sys.executable, "-m", "hftrace", "recover", "traces", "-o", "out.json"]
    recovered = _ran(command, tmp_path)
    assert recovered.returncode == 0, recovered.stderr
    trace = trace_of(tmp_path)
    assert (len(trace.loads), trace.loads[0].status, trace.outcome["status"]) == (1, "ok", "killed")
