"""The queries of docs/fleets.md, asked of a fleet in which slow releases and slow hosts were planted."""

import json
import os
import re
from pathlib import Path

import pytest

from readers import path_with

pytestmark = pytest.mark.once
ROOT = Path(__file__).resolve().parents[2]
QUERIES = re.findall(
    r"```sql\n-- (.*?)\n(.*?)```", (ROOT / "docs" / "fleets.md").read_text("utf-8"), re.DOTALL
)
ASK = """
import duckdb, json, sys
queries = json.load(sys.stdin)
print(json.dumps({name: duckdb.sql(query).fetchall() for name, query in queries}))
"""


@pytest.fixture(scope="module")
def environment():
    return {**os.environ, "PYTHONPATH": path_with("duckdb", "pyarrow")}


def test_the_queries_of_the_page_find_what_was_planted(run_python, environment, tmp_path):
    command = (ROOT / "scripts" / "make_fleet.py", "fleet", "--traces", "400", "--hosts", "20", "--parquet")
    done = run_python(*command, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    planted = json.loads((tmp_path / "fleet" / "planted.json").read_text())
    assert len(list((tmp_path / "fleet").glob("*.parquet"))) == 400

    done = run_python(
        "-c", f"import sys, io\nsys.stdin = io.StringIO({json.dumps(QUERIES)!r})\n{ASK}", env=environment
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"regressions by release", "slow hosts", "findings by release"}

    regressions = [(phase, release) for phase, release, *_ in found["regressions by release"]]
    assert regressions == [("import", "5.23.0")]
    (ratio,) = [row[-1] for row in found["regressions by release"]]
    assert ratio == pytest.approx(planted["regressions"]["5.23.0"][1], rel=0.05)
    assert sorted(host for host, *_ in found["slow hosts"]) == planted["slow_hosts"]
    assert {(rule, loads) for _, rule, _, loads in found["findings by release"]} == {("R02", 100)}

    # The same of one file that holds them all.
    traces = sorted((tmp_path / "fleet").glob("*.json.gz"))
    (tmp_path / "all").mkdir()
    done = run_python(
        *("-m", "hftrace", "export", *traces, "--table", "loads", "-o", "all/loads.parquet"), env=environment
    )
    assert (done.returncode, done.stderr) == (0, "Wrote all/loads.parquet\n")
    whole = json.dumps([(name, query.replace("fleet/", "all/")) for name, query in QUERIES])
    done = run_python("-c", f"import sys, io\nsys.stdin = io.StringIO({whole!r})\n{ASK}", env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == found
