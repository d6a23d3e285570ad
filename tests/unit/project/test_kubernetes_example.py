"""The manifest of examples/kubernetes: valid by Kubernetes's own schema, and true to what hftrace does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from hftrace.cli.common.termination import VARIABLE
from hftrace.cli.run import command
from hftrace.units import parse_size
from readers import path_with

MANIFEST = Path(__file__).resolve().parents[3] / "examples" / "kubernetes" / "service.yaml"


@pytest.fixture
def container():
    (found,) = yaml.safe_load(MANIFEST.read_text("utf-8"))["spec"]["template"]["spec"]["containers"]
    return found


@pytest.mark.process
@pytest.mark.once
def test_it_is_valid_by_the_schema():
    environment = {**os.environ, "PYTHONPATH": path_with("kubernetes_validate")}
    code = (
        "import sys, yaml, kubernetes_validate as k\n"
        "k.validate(yaml.safe_load(open(sys.argv[1])), '1.37', strict=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, MANIFEST], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_message_goes_where_kubernetes_looks(container):
    variables = {each["name"]: each.get("value") for each in container["env"]}
    assert variables[VARIABLE] == container["terminationMessagePath"]


def test_the_command_is_one_and_its_limit_lies_below_the_containers(container):
    words = container["command"]
    assert words[:2] == ["hftrace", "run"]
    parsed = command.make_context("run", words[2:])
    limit = parse_size(words[words.index("--memory-limit") + 1])
    assert limit < parse_size(container["resources"]["limits"]["memory"] + "B") * 0.95
    assert parsed.params["output"].startswith(container["volumeMounts"][0]["mountPath"] + "/")
    assert CliRunner().invoke(command, ["--help"]).exit_code == 0
