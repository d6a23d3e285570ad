"""More than a hundred secrets are planted in real runs, and none is in any file or on any screen of ours.

That they were there to be found is held too: what the libraries themselves said has every one of them.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import pytest
import transformers
from processes import everything_under

import hftrace

pytestmark = pytest.mark.once
PROGRAM = Path(__file__).with_name("secretive.py")
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N{}"
PEM = (
    "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC{0}\nAoIBAQC7VJTUt9Us8cKj{0}\n"
    "-----END PRIVATE KEY-----"
)
_numbers = itertools.count(1)


def odd():
    """Returns a secret without any known shape, with what has to be escaped in it."""
    return f'v{next(_numbers):03d}-Qz"&/+ k{next(_numbers):03d}\\ö'


def plain():
    """Returns one that a URL and a command line take as it is."""
    return f"w{next(_numbers):03d}Zk.x-Y{next(_numbers):03d}_q"


def planted():
    """Returns all secrets: by group and name."""
    by_name = {
        "environment": [
            *(
                "API_KEY",
                "AWS_SECRET_ACCESS_KEY",
                "DB_PASSWORD",
                "PGPASSWORD",
                "MYSQL_PWD",
                "REDIS_PASS",
                "AZURE_PAT",
            ),
            *(
                "DOCKER_PASSWORD",
                "TWINE_PASSWORD",
                "NPM_TOKEN",
                "SENTRY_AUTH_TOKEN",
                "STRIPE_API_KEY",
                "ADMIN_PASS",
                "WIFI_PASSPHRASE",
                "MNEMONIC_PHRASE",
                "JWT_SIGNING_SECRET",
                "SESSION_SECRET",
                "ROOT_PW",
                "NGC_KEY",
                "X_BEARER",
                "SAS",
                "CRED",
                "TLS_PRIVATE_KEY",
                "OIDC_CLIENT_SECRET",
                "SERVICE_JWT",
                "BEARER",
                "SESSION_COOKIE",
                "AZURE_CRED",
                "STORAGE_SAS",
                "CLIENT_SECRET",
            ),
            *(
                "BASIC_AUTH",
                "OAUTH_TOKEN",
                "ACCOUNT_KEY",
                "MY_PASSPHRASE",
                "WANDBTOKEN",
                "LOGINPASS",
                "HF_TOKEN",
            ),
            *(
                "VAULT_CREDENTIALS",
                "PROXY_AUTHORIZATION",
                "COOKIES",
                "SIGNING_KEY",
                "SMTP_PW",
                "WEBHOOK_SIGNATURE",
            ),
        ],
        "keywords": [
            *(
                "token",
                "use_auth_token",
                "api_key",
                "key",
                "secret",
                "password",
                "passwd",
                "db_pass",
                "user_pwd",
            ),
            *(
                "pat",
                "jwt",
                "bearer",
                "cookie",
                "creds",
                "credentials",
                "sas",
                "sas_token",
                "client_secret",
                "phrase",
            ),
            *("passphrase", "auth", "authorization", "accessKey", "x_api_key", "signature", "privateKey"),
        ],
        "wrapped": ["attribute", "nested", "header", "field", "manifest", "bound", "in_json", "encoded"],
        "others": ["local_variable", "attribute"],
        "arguments": ["token", "password", "api-key", "header"],
    }
    found = {group: {name: odd() for name in names} for group, names in by_name.items()}
    found["environment"] |= {
        "SEED_PHRASE": "wolf juggle magnet coconut tribe",
        "PIN_CODE_PASSWORD": "48392017",
    }
    found["environment"]["HF_TOKEN"] = plain()
    found["shapes"] = {
        "UNRELATED": "hf_QwErTyUiOpAsDfGhJkLzXcVbNmQwErTyU1",
        "OPENAI": "sk-proj-AbCdEf0123456789AbCdEf0123456789",
        "AWS_ID": "AKIAIOSFODNN7EXAMPLE",
        "GITHUB": "ghp_0123456789abcdefABCDEF0123456789abcd",
        "GITLAB": "glpat-AbCdEf0123456789AbCd",
        "SLACK": "xoxb-123456789012-AbCdEfGhIjKl",
        "GOOGLE": "AIzaSyA1234567890abcdefghijklmnopqrstuv",
        "JSON_WEB": JWT.format("a1"),
        "MYKEYHOLDER": "9f86d081884c7d659a2feaa0c55ad015",
        "PEM": PEM.format("Xy12"),
    }
    found["wrapped"] |= {"proxy": plain(), "bare": plain()}
    found["others"] |= {"called_token": "inner-tok-z2", "in_a_path": "hf_PathTyUiOpAsDfGhJkLzXcVbNmQwErTyU2"}
    found["urls"] = {name: plain() for name in ("DATABASE_URL", "BROKER", "ENDPOINT_WITH_USER")}
    found["files"] = {name: plain() for name in ("token", "stored", "netrc", "git")}
    found["arguments"] |= {name: plain() for name in ("short", "user", "dsn", "queue", "json", "conf")}
    found["arguments"]["short"] = "w0rdZk4x"
    return found


@pytest.fixture(scope="module")
def secrets():
    """The secrets of this module."""
    found = planted()
    assert sum(len(group) for group in found.values()) >= 100
    return found


@pytest.fixture
def work(tmp_path, secrets):
    """A directory with a model below a folder that is called like a token, and files of tokens."""
    place = tmp_path / "work"
    for name in ("tmp", "home"):
        (place / name).mkdir(parents=True)
    model = place / secrets["others"]["in_a_path"] / "model"
    transformers.LlamaConfig().save_pretrained(model)
    home, files = tmp_path / "home", secrets["files"]
    home.mkdir()
    (home / "token").write_text(files["token"])
    (home / "stored_tokens").write_text(f"[work]\nhf_token = {files['stored']}\n")
    (home / ".netrc").write_text(f"machine example.org login me password {files['netrc']}\n")
    (home / ".git-credentials").write_text(f"https://me:{files['git']}@git.example.org\n")
    return place


def variables(work, secrets):
    """Returns the environment of a run with secrets."""
    urls = secrets["urls"]
    return {
        **secrets["environment"],
        **secrets["shapes"],
        "DATABASE_URL": f"postgres://me:{urls['DATABASE_URL']}@db.example.org:5432/x",
        "BROKER": f"me:{urls['BROKER']}@queue.example.org:5672",
        "ENDPOINT_WITH_USER": f"https://{urls['ENDPOINT_WITH_USER']}:x@example.org",
        "HF_TOKEN_PATH": str(work.parent / "home" / "token"),
        "HF_STORED_TOKENS_PATH": str(work.parent / "home" / "stored_tokens"),
        "HOME": str(work.parent / "home"),
        "TMPDIR": str(work / "tmp"),
        "HOST_SAID": str(work.parent / "said.txt"),
        "PYTHONPATH": os.pathsep.join([str(PROGRAM.parent), os.environ.get("PYTHONPATH", "")]),
    }


def options(secrets):
    """Returns a command line as programs are given secrets by it."""
    given = secrets["arguments"]
    return [
        *("--token", given["token"], f"--password={given['password']}", "--api-key", given["api-key"]),
        *("-p", given["short"], "-u", f"me:{given['user']}", "-H", f"Authorization: {given['header']}"),
        *(f"--dsn=postgres://me:{given['dsn']}@db/x", f"me:{given['queue']}@queue.example.org:5672"),
        *(
            "--options",
            json.dumps({"client": {"secret": given["json"]}}),
            "--conf",
            f"db.password={given['conf']}",
        ),
    ]


def watched(arguments, work, env):
    """Runs a program, and returns it, all that its files held at any time, and what it printed."""
    seen = {}
    with subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=work,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        while process.poll() is None:
            everything_under(work, seen)
            time.sleep(0.1)
        printed = process.stdout.read()
    everything_under(work, seen)
    return process.returncode, seen, printed


def forms(value):
    """Returns a secret as it may stand in a file: as it is, escaped, percent-encoded, in base64."""
    data = value.encode()
    texts = {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]}
    texts |= {json.dumps(text)[1:-1] for text in list(texts)}
    texts |= {urllib.parse.quote(value, safe=""), urllib.parse.quote(value), urllib.parse.quote_plus(value)}
    # Whole groups of three bytes, at each place where they may begin.
    for start in range(3):
        middle = data[start : start + (len(data) - start) // 3 * 3]
        texts.add(base64.b64encode(middle).decode())
    # A piece of it is too much already.
    if "\n" in value:
        texts |= set(value.splitlines()[1:-1])
    return [text.encode() for text in texts if len(text) >= 6]


def found_in(secrets, seen):
    """Returns which secrets are in what files held: group, name, file."""
    return [
        (group, name, str(path))
        for group, values in secrets.items()
        for name, value in values.items()
        for path, data in seen.items()
        if any(form in data for form in forms(value))
    ]


def without_model(seen, secrets):
    """Leaves out what the test itself has put there."""
    return {path: data for path, data in seen.items() if secrets["others"]["in_a_path"] not in str(path)}


def assert_nothing(secrets, seen, *printed):
    seen = {**without_model(seen, secrets), **{f"screen {at}": text for at, text in enumerate(printed)}}
    assert found_in(secrets, seen) == []
    names = {"names": "\n".join(map(str, seen)).encode()}
    assert found_in(secrets, names) == []


def screens(path, run_cli, work, **env):
    """Returns what the views of a trace print, in a process that knows none of the secrets."""
    shown = b""
    for view in ([], ["--json"], ["--view", "spans", "--json"], ["--view", "all"]):
        done = run_cli("show", path, *view, env=env)
        assert done.returncode == 0, done.stderr
        shown += done.stdout.encode() + done.stderr.encode()
    return shown


def host_said(work):
    return {Path("host"): (work.parent / "said.txt").read_bytes()}


def test_a_program_with_a_hundred_secrets(secrets, work, run_cli):
    env = {**variables(work, secrets), "PLANTED": json.dumps(secrets)}
    code, seen, printed = watched([PROGRAM, work, "raise", *options(secrets)], work, env)
    assert code == 1, printed
    assert b"secret" not in printed.replace(b"[removed]", b"")
    said = {(group, name) for group, name, _ in found_in(secrets, host_said(work))}
    assert len(said) == sum(len(group) for group in secrets.values())
    path = work / "trace.json"
    assert any(name.name.startswith("journal-") and data for name, data in seen.items())
    assert_nothing(secrets, seen, printed, screens(path, run_cli, work))
    trace = hftrace.Trace.open(path)
    assert trace.outcome.status == "error"
    # What stood around the secrets is still there.
    text = trace.outcome.error["message"] + trace.outcome.error["traceback"]
    assert text.count("cannot use [removed] for environment.API_KEY") >= 1
    assert [load.status for load in trace.loads] == ["ok", "error", "ok"]
    assert trace.loads[0].attributes["request"]["keywords"]["headers"] == {
        "Authorization": "[removed]",
        "accept": "*/*",
    }
    assert trace.loads[0].attributes["request"]["keywords"]["account"] == {
        "user": "me",
        "secret": "[removed]",
    }
    assert trace.loads[0].attributes["request"]["keywords"]["broker"] == "[removed]@queue.example.org:5672"
    # The file below the folder that is called like a token was found again for its facts.
    assert any(row.result == "local" and row.path and "[removed]/model" in row.path for row in trace.files)


def test_a_program_that_is_killed_leaves_no_secret_in_its_journal(secrets, work, run_cli):
    env = {**variables(work, secrets), "PLANTED": json.dumps(secrets)}
    code, seen, printed = watched([PROGRAM, work, "kill", *options(secrets)], work, env)
    assert code == -9, printed
    journals = list(work.rglob("journal-*.jsonl"))
    assert journals
    assert len(found_in(secrets, host_said(work))) >= 100
    assert_nothing(secrets, seen, printed)
    path = work / "recovered.json"
    done = run_cli("recover", journals[0].parent, "-o", path)
    assert done.returncode == 0, done.stderr
    everything_under(work, seen)
    assert_nothing(secrets, seen, done.stdout.encode(), done.stderr.encode())
    assert hftrace.Trace.open(path).outcome.status == "killed"


def test_a_command_that_is_given_secrets(secrets, work):
    env = variables(work, secrets)
    keywords = secrets["keywords"]
    say = [*secrets["environment"], *secrets["shapes"], *keywords, "DATABASE_URL", "BROKER"]
    model = work / secrets["others"]["in_a_path"] / "model"
    given = [word for name, value in keywords.items() for word in ("--kwarg", f"{name}={json.dumps(value)}")]
    arguments = [
        "-m",
        "hftrace.cli.main",
        "load",
        model,
        "--class",
        "secretive:Model",
        *given,
        "-o",
        "trace.json",
    ]
    code, seen, printed = watched(arguments, work, {**env, "SAY": ",".join(say), "COLUMNS": "200"})
    assert code == 1, printed
    assert len({name for _, name, _ in found_in(secrets, host_said(work))}) >= 60
    names = {path.name for path in seen}
    assert {"request.json", "supervisor.jsonl", "trace.json"} <= names
    assert_nothing(secrets, seen, printed)
    trace = hftrace.Trace.open(work / "trace.json")
    assert trace.outcome.status == "error"
    assert b"cannot use [removed] for password" in printed
    assert "cannot use [removed] for password" in trace.outcome.error["message"]
    assert trace.header.argv[2].endswith("/[removed]/model")


def test_what_sounds_like_a_secret_is_still_told(tmp_path, run_python):
    """A trace without what was asked for would be worth nothing."""
    transformers.LlamaConfig().save_pretrained(tmp_path / "monkey-token-model")
    keywords = {
        "pad_token_id": 7,
        "pad_token": "<pad>",
        "bos_token_id": 1,
        "max_new_tokens": 20,
        "tokenizer": "fast",
        "key_mapping": {"^model": "x"},
        "num_key_value_heads": 8,
        "passes": 3,
        "compat": "yes",
        "path": "/a/b",
        "pattern": "model-*.safetensors",
        "dispatch": "auto",
        "authors": ["A", "B"],
        "keyboard": "qwerty",
        "monkey": "patched",
        "patch_size": 14,
        "token": True,
        "revision": "a1b2c3d4e5f60718293a4b5c6d7e8f9012345678",
    }
    code = (
        "import hftrace, json, sys, transformers\n"
        "with hftrace.trace('out.json'):\n"
        "    transformers.AutoConfig.from_pretrained(sys.argv[1], **json.loads(sys.argv[2]))\n"
    )
    done = run_python("-c", code, tmp_path / "monkey-token-model", json.dumps(keywords))
    assert done.returncode == 0, done.stderr
    trace = hftrace.Trace.open(tmp_path / "out.json")
    assert trace.loads[0].request["keywords"] == keywords
    assert "[removed]" not in (tmp_path / "out.json").read_text()


def test_the_pytest_plugin_and_check_say_none(secrets, work, tmp_path, run_cli):
    """Names of files, figures and sentences of JUnit, and the summary of a step of GitHub's."""
    shape = secrets["shapes"]["UNRELATED"]
    (work / "test_them.py").write_text(
        "import os, pytest, transformers\n"
        f"@pytest.mark.parametrize('given', [{shape!r}])\n"
        "@pytest.mark.limit_load(seconds=1e-9)\n"
        "def test_one(given, hftrace):\n"
        "    with hftrace.trace(name=os.environ['DB_PASSWORD']):\n"
        f"        transformers.AutoConfig.from_pretrained({str(tmp_path / 'plain')!r}, token=given)\n"
    )
    transformers.LlamaConfig().save_pretrained(tmp_path / "plain")
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--hftrace-dir", work / "traces"]
    code, seen, _ = watched([*arguments, "--tb=no", work / "test_them.py"], work, variables(work, secrets))
    assert code == 1
    traces = {path: data for path, data in seen.items() if path.parent.name == "traces"}
    assert traces
    names = b"\n".join(str(path).encode() for path in traces)
    assert found_in(secrets, {**traces, Path("names"): names}) == []
    env = {
        **variables(work, secrets),
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(work / "summary.md"),
    }
    secretly = tmp_path / f"{shape}.json"
    secretly.write_bytes(next(data for path, data in traces.items() if path.suffix == ".json"))
    done = run_cli("check", secretly, "--max-time", "1ns", env=env)
    assert done.returncode == 3, done.stderr
    summary = (work / "summary.md").read_bytes()
    assert found_in(secrets, {Path("check"): done.stdout.encode() + done.stderr.encode() + summary}) == []
