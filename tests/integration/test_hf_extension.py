"""``hf trace``: the Hub's own command runs ours, laid where ``hf extensions install`` lays it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timezone

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.process, pytest.mark.once]
extensions = pytest.importorskip("huggingface_hub.cli.extensions")


@pytest.fixture
def hf(tmp_path):
    """Runs the real ``hf`` with a home in which the extension lies as its installer leaves it."""
    place = tmp_path / ".local" / "share" / "hf" / "extensions" / "hf-trace"
    script = place / "venv" / "bin" / "hf-trace"
    script.parent.mkdir(parents=True)
    # What pip writes for a console script.
    script.write_text(
        f"#!{sys.executable}\nimport sys\nfrom hftrace.cli.main import main\n"
        "if __name__ == '__main__':\n    sys.exit(main())\n"
    )
    script.chmod(0o755)
    extensions.ExtensionManifest(
        owner="hftrace",
        repo="hf-trace",
        repo_id="hftrace/hf-trace",
        short_name="trace",
        executable_path=str(script),
        type="python",
        installed_at=datetime.now(timezone.utc),
        description="Trace from_pretrained",
    ).save(place)
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "80",
    }

    def run(*arguments):
        code = "import sys\nfrom huggingface_hub.cli.hf import main\nsys.argv[0] = 'hf'\nsys.exit(main())"
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    return run


def test_hf_knows_it(hf):
    assert "trace" in hf("extensions", "list").stdout
    assert "Trace from_pretrained" in hf("--help").stdout


def test_hf_runs_it(hf, sample_trace):
    assert "hftrace, version" in hf("trace", "--version").stdout
    done = hf("trace", "show", sample_trace, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["wall_ns"] > 0


def test_its_exit_codes_are_those_of_hftrace(hf, sample_trace):
    assert hf("trace", "check", sample_trace, "--max-time", "1ms").returncode == 3
    assert hf("trace", "show", "no-such.json").returncode in (1, 2)
    assert hf("trace", "nothing").returncode == 2
