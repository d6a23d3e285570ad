"""The borders of DESIGN.md section 6: who may import whom, read from the source."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import hftrace

SOURCE = Path(hftrace.__file__).parent
TRACED = {"torch", "transformers", "accelerate", "safetensors", "huggingface_hub", "tokenizers", "numpy"}
"""Libraries that are traced, or that come with them: never imported when a module of ours is."""
OWN = {
    "": {"hftrace"},
    "errors": set(),
    "units": {"errors"},
    "schema": {"schema", "units"},
    "replay": {"replay", "schema", "units"},
    "system": {"system"},
    "record": {"record", "system", "schema", "units"},
    "analysis": {"analysis", "schema", "units"},
    "render": {"render", "analysis", "schema", "units"},
    "export": {"export", "render", "analysis", "schema", "units"},
    "launch": {"launch", "record", "system", "replay", "schema", "analysis", "units"},
    "synth": {"synth", "units"},
    "api": {"api", "launch", "schema"},
}
"""Parts of hftrace that each part may import; errors and the version are open to all, and all is to cli."""
OTHER = {
    "render": {"rich"},
    "launch": {"psutil"},
    "cli": {"click", "rich", "psutil"},
    "pytest_plugin": {"pytest"},
}
"""Third-party packages that each part may import when it is imported itself."""
NEVER = {"record": {"rich", "click", "psutil"}}
"""Packages that a part may not import even inside a function."""
PER_FUNCTION = {
    "": {"api", "record"},
    "synth": {"schema"},
    "api": {"analysis", "render", "export"},
    "pytest_plugin": {"api", "schema", "launch", "analysis", "record", "render", "synth", "units"},
}
"""Further parts of hftrace that a part may import inside a function."""
OPEN = {"errors", "_version"}
STANDARD_LIBRARY_ALONE = {"errors", "units", "schema", "replay", "system", "analysis"}
"""Parts that import nothing else, not even inside a function."""
MAX_LINES = 400


def part_of(path):
    relative = path.relative_to(SOURCE)
    return (
        relative.parts[0]
        if len(relative.parts) > 1
        else ("" if relative.stem == "__init__" else relative.stem)
    )


def imports(path):
    """Yields (module, line, whether it is imported with the module itself)."""
    tree = ast.parse(path.read_text("utf-8"))
    package = ["hftrace", *path.relative_to(SOURCE).parts[:-1]]

    def visit(node, at_import):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield alias.name, child.lineno, at_import
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else []
                module = ".".join([*base, *([child.module] if child.module else [])])
                if module == "hftrace":
                    for alias in child.names:
                        yield f"hftrace.{alias.name}", child.lineno, at_import
                else:
                    yield module, child.lineno, at_import
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                # Read by the type checker alone.
                for rest in child.orelse:
                    yield from visit(ast.Module([rest], []), at_import)
            else:
                function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
                yield from visit(child, at_import and not function)

    yield from visit(tree, True)


def wrong_imports(path):
    part = part_of(path)
    for module, line, at_import in imports(path):
        names = module.split(".")
        place = f"{path.relative_to(SOURCE)}:{line} imports {module}"
        if names[0] == "hftrace":
            target = names[1] if len(names) > 1 else ""
            if target == "cli" and part != "cli" and path != SOURCE / "__main__.py":
                yield f"{place}: nobody imports cli"
            elif part in OWN or part == "pytest_plugin":
                allowed = OWN.get(part, set()) | OPEN
                if not at_import:
                    allowed = allowed | PER_FUNCTION.get(part, set())
                if target not in allowed:
                    yield f"{place}: a border of DESIGN.md section 6"
        elif names[0] in sys.stdlib_module_names:
            continue
        elif names[0] in NEVER.get(part, ()):
            yield f"{place}: never there"
        elif at_import and names[0] in TRACED:
            yield f"{place} with the module: only inside a function"
        elif part in STANDARD_LIBRARY_ALONE:
            yield f"{place}: the standard library alone"
        elif at_import and names[0] not in OTHER.get(part, ()):
            yield f"{place} with the module"


def test_imports_stay_inside_the_borders():
    assert [wrong for path in sorted(SOURCE.rglob("*.py")) for wrong in wrong_imports(path)] == []


def module_name(path):
    parts = ["hftrace", *path.relative_to(SOURCE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def own_imports():
    """Returns which of our modules each of them imports, inside functions too."""
    paths = {module_name(path): path for path in SOURCE.rglob("*.py")}
    graph = {}
    for name, path in paths.items():
        graph[name] = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    # A package's module, or a name inside of a module.
                    graph[name] |= {f"{node.module}.{alias.name}", node.module} & paths.keys()
            elif isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names} & paths.keys()
        graph[name] -= {name, *(name.rsplit(".", count)[0] for count in range(1, name.count(".") + 1))}
    return graph


def circles(graph):
    """Yields the sets of modules that import each other, whichever way round."""
    reach = {}
    for start in graph:
        seen, todo = set(), [start]
        while todo:
            for target in graph[todo.pop()] - seen:
                seen.add(target)
                todo.append(target)
        reach[start] = seen
    done = set()
    for name in sorted(graph):
        if name in reach[name] and name not in done:
            circle = {other for other in reach[name] if name in reach[other]}
            done |= circle
            yield sorted(circle)


def test_no_import_comes_round_in_a_circle():
    assert list(circles(own_imports())) == []


def test_the_check_sees_a_circle():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"e"}}
    assert list(circles(graph)) == [["a", "b", "c"], ["e"]]


def test_no_module_is_longer_than_a_person_reads_at_once():
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in SOURCE.rglob("*.py")}
    assert len(lengths) > 100
    assert {
        str(path.relative_to(SOURCE)): lines for path, lines in lengths.items() if lines > MAX_LINES
    } == {}


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("schema/x.py", "import rich"),
        ("schema/x.py", "def f():\n    import torch"),
        ("schema/x.py", "from hftrace.analysis import y"),
        ("record/x.py", "import torch"),
        ("record/x.py", "def f():\n    import psutil"),
        ("record/x.py", "try:\n    import transformers\nexcept ImportError:\n    pass"),
        ("record/x.py", "class C:\n    from hftrace.render import y"),
        ("record/x.py", "from hftrace import Trace"),
        ("analysis/x.py", "from hftrace import launch"),
        ("analysis/x.py", "from ..render import units"),
        ("render/x.py", "import click"),
        ("launch/x.py", "def f():\n    from hftrace.cli import main"),
        ("cli/x.py", "import transformers"),
        ("synth/x.py", "import safetensors.torch"),
        ("__init__.py", "from hftrace.api.recording import trace"),
        ("launch/x.py", "def f():\n    from hftrace.api.trace import Trace"),
        ("api/x.py", "from hftrace.render import y"),
        ("api/x.py", "import pandas"),
    ],
)
def test_the_check_sees_what_is_wrong(place, text, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "SOURCE", tmp_path)
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert len(list(wrong_imports(path))) == 1


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("record/x.py", "def f():\n    import torch\n    from transformers import modeling_utils"),
        ("record/x.py", "from hftrace.schema.journal import y\nfrom hftrace.errors import z\nimport os"),
        ("render/x.py", "from rich.text import Text\nfrom ..analysis import z\nfrom . import w"),
        ("synth/x.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
        ("cli/x.py", "import click\nfrom hftrace import launch"),
    ],
)
def test_the_check_accepts_what_is_right(place, text, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "SOURCE", tmp_path)
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert list(wrong_imports(path)) == []


LIST_MODULES = (
    "; import json, sys; print('\\n' + json.dumps(sorted({n.partition('.')[0] for n in sys.modules})))"
)


def loaded_by(run_python, code):
    result = run_python("-c", code + LIST_MODULES)
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_importing_the_package_is_light(run_python):
    loaded = loaded_by(run_python, "import hftrace; hftrace.Trace")
    assert loaded & (TRACED | {"psutil", "rich", "click"}) == set()


COMMAND = """
import sys
from hftrace.cli.main import main
try:
    main({arguments!r})
except SystemExit as end:
    assert not end.code, end.code
"""


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["show", "--help"], ["show", "SAMPLE"], ["show", "SAMPLE", "--json"]],
    ids=" ".join,
)
def test_commands_on_files_load_no_traced_library(run_python, sample_trace, arguments):
    if arguments[0] == "show" and not (SOURCE / "cli" / "show.py").exists():
        pytest.skip("there is no show yet")
    arguments = [str(sample_trace) if argument == "SAMPLE" else argument for argument in arguments]
    loaded = loaded_by(run_python, f"exec({COMMAND.format(arguments=arguments)!r})")
    assert loaded & (TRACED | {"psutil"}) == set()


def test_the_installed_command_is_the_module(run_cli):
    installed = subprocess.run(
        [Path(sys.executable).with_name("hftrace"), "--version"], capture_output=True, text=True
    )
    module = run_cli("--version")
    assert (installed.returncode, installed.stderr) == (0, "")
    assert (module.returncode, module.stderr) == (0, "")
    assert hftrace.__version__ in installed.stdout
    assert installed.stdout == module.stdout
