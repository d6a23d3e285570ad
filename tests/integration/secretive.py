"""A program that has a hundred secrets, and lets its libraries say them wherever they can.

Run as ``python secretive.py WORK MODE OPTION...`` with secrets in its environment, its command
line and its files, as test_secrets.py says; MODE is ``end``, ``raise`` or ``kill``. What its exceptions say
is written to HOST_SAID.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.parse
from pathlib import Path
from typing import NamedTuple

import transformers

import hftrace


@dataclasses.dataclass
class Wrapped:
    """What a client library keeps its secret in."""

    user: str
    password: str


class Account(NamedTuple):
    """What a library of the caller's may give a secret in."""

    user: str
    secret: str


def said(secrets):
    """Returns a text that has every secret in it, in the ways that libraries say them."""
    lines = []
    for name, value in secrets.items():
        lines += [
            f"cannot use {value} for {name}",
            f"GET https://api.example.org/v1?q={urllib.parse.quote(value, safe='')} failed",
            f"sent {base64.b64encode(f'user:{value}'.encode()).decode()}",
            f"{{{name!r}: {value!r}}} {json.dumps({'x': value})}",
        ]
    return "\n".join(lines)


class LeakyConfig(transformers.PretrainedConfig):
    """A config whose code fails, and says why in too many words."""

    model_type = "leaky"

    def __init__(self, **keywords):
        if not hasattr(type(self), "text"):
            super().__init__(**keywords)
            return
        try:
            connect("db", type(self).local, Client(type(self).attribute))
        except ConnectionError as error:
            raise ValueError(f"the config is no good:\n{type(self).text}") from error


class Client:
    """What a program keeps its connection in."""

    def __init__(self, password):
        self.password = password


def connect(host, client_secret, client):
    """Fails; what it holds is secret by its name alone."""
    token = LeakyConfig.token
    raise ConnectionError(f"{host} refused {client_secret} and {token} for {client.password}")


def load_model(path, secrets):
    """Makes every load that a program may make."""
    keywords = {**secrets["keywords"], "session": Wrapped("me", secrets["wrapped"]["attribute"])}
    keywords["storage_options"] = {"client": [{"secret": secrets["wrapped"]["nested"].encode()}]}
    keywords["account"] = Account("me", secrets["wrapped"]["field"])
    keywords["proxies"] = {"https": f"http://me:{secrets['wrapped']['proxy']}@proxy.example.org:3128"}
    keywords["headers"] = {"Authorization": f"Custom {secrets['wrapped']['header']}", "accept": "*/*"}
    keywords["broker"] = f"svc:{secrets['wrapped']['bare']}@queue.example.org:5672"
    keywords["manifest"] = [{"name": "API_TOKEN", "value": secrets["wrapped"]["manifest"]}]
    keywords["opener"] = functools.partial(print, password=secrets["wrapped"]["bound"])
    keywords["options"] = json.dumps({"client": {"secret": secrets["wrapped"]["in_json"]}})
    pair = base64.b64encode(f"me:{secrets['wrapped']['encoded']}".encode()).decode()
    keywords["registry"] = json.dumps({"auths": {"registry.example.org": {"auth": pair}}})
    transformers.AutoConfig.from_pretrained(path, **keywords)
    everything = {
        f"{group}.{name}": value for group, values in secrets.items() for name, value in values.items()
    }
    LeakyConfig.text = said(everything)
    LeakyConfig.local = secrets["others"]["local_variable"]
    LeakyConfig.token, LeakyConfig.attribute = (
        secrets["others"]["called_token"],
        secrets["others"]["attribute"],
    )
    try:
        LeakyConfig.from_pretrained(path, **keywords)
    except ValueError as error:
        Path(os.environ["HOST_SAID"]).write_text(f"{error}\n{error.__cause__}", encoding="utf-8")
    else:
        raise SystemExit("the load did not fail")
    return everything


def main():
    """Records all of it."""
    work, mode = Path(sys.argv[1]), sys.argv[2]
    secrets = json.loads(os.environ.pop("PLANTED"))
    path = work / secrets["others"]["in_a_path"] / "model"
    try:
        with hftrace.trace(work / "trace.json"):
            everything = load_model(path, secrets)
            with hftrace.step(f"step with {secrets['keywords']['token']}"):
                pass
            worker = threading.Thread(
                target=transformers.AutoConfig.from_pretrained,
                args=(path,),
                name=f"thread-{secrets['environment']['DB_PASSWORD']}",
            )
            worker.start()
            worker.join()
            subprocess.run(["/bin/true", "--token", secrets["keywords"]["token"]], check=True)
            if mode == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if mode == "raise":
                raise RuntimeError(said(everything))
    except RuntimeError as error:
        Path(os.environ["HOST_SAID"]).write_text(str(error), encoding="utf-8")
        raise SystemExit(1) from None


class Model:
    """What ``hftrace load --class secretive:Model`` loads."""

    @classmethod
    def from_pretrained(cls, path, **keywords):
        """Fails with all that it was given and all that its environment has."""
        secrets = {name: str(value) for name, value in [*keywords.items(), *os.environ.items()]}
        planted = {name: value for name, value in secrets.items() if name in os.environ["SAY"].split(",")}
        transformers.AutoConfig.from_pretrained(path)
        text = said({**planted, "path": str(path)})
        Path(os.environ["HOST_SAID"]).write_text(text, encoding="utf-8")
        print(text)
        raise ValueError(text)


if __name__ == "__main__":
    main()
