"""A small Hub on 127.0.0.1: the part of the real one's HTTP that loads a model, and faults on demand.

    with Hub(folder) as hub:            # folder/organisation/name/config.json, ...
        hub.fail("config.json", 503, times=2)
        ...                             # a process with hub.variables in its environment
        print(hub.log)

Large files are redirected to a "CDN", which is the same server by its other
name (localhost), as the real Hub's is on another host: the client must not
send its token there, and the address carries a signature. The server keeps a
log of every request, stops when the block is left, and at the latest after
``lifetime`` seconds.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

LARGE = (".safetensors", ".bin", ".gguf")
"""What the Hub keeps in its large-file storage, and redirects."""
CHUNK = 64 << 10
CLIENT_TIMEOUT_SECONDS = 20
MAX_SLEEP_SECONDS = 30
BRANCHES = ("main", "v1")
"""Of every repository, with one commit; kernels are asked for by their version's branch."""


@dataclass(frozen=True)
class Request:
    """One request, as the server saw it, and what it answered."""

    method: str
    path: str
    """Without the query."""
    status: int
    body: int
    """Bytes of the answer's body that were sent."""
    cdn: bool
    """Whether it came to the CDN's name."""
    authorization: str | None
    user_agent: str = field(repr=False, default="")
    began_ns: int = field(repr=False, default=0)
    """When it was here, by ``time.monotonic_ns``, which all processes of a machine share."""
    answered_ns: int = field(repr=False, default=0)
    """When its answer began to be sent."""
    cut: bool = field(repr=False, default=False)
    """Whether the connection was ended before the body was sent."""

    @property
    def repo(self) -> str:
        """The repository; empty where the path names none."""
        parts = self.path.removeprefix("/cdn").removeprefix("/api/models").strip("/").split("/")
        return "/".join(parts[:2])

    @property
    def file(self) -> str:
        """The file in its repository; empty for a question to the API."""
        return _file_of(self.path)


@dataclass
class _Fault:
    file: str
    status: int = 0
    times: int = 1 << 30
    method: str | None = None
    keep: float | None = None
    """The share of the body that is sent before the connection is cut."""
    rate: float | None = None
    """Bytes per second."""
    sleep: float = 0.0
    """Seconds before the answer."""
    repo: str = ""
    """The only repository that it is in; empty for all."""
    reset: bool = False
    """Whether the connection is reset where it is cut."""


class Hub:
    """The server.

    Args:
        folder: The repositories, as ``organisation/name`` folders.
        lifetime: Seconds after which it stops whatever happens.
    """

    xet_token = "xetAccessTokenOfTheStore0123456789"
    """What reads from the content store of hf_xet; nobody may keep it either."""
    signature = "5ignatureOfTheCdn0123456789abcdef"
    """Stands in the query of every redirect to the CDN; nobody may keep it."""

    def __init__(self, folder: Path, lifetime: float = 600) -> None:
        self.folder = folder
        self.log: list[Request] = []
        self.gates: dict[str, str] = {}
        self.xet_files: set[str] = set()
        """Names of files that are in the content store of hf_xet."""
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._timer = threading.Timer(lifetime, self._server.shutdown)
        self._timer.daemon = True

    def __enter__(self) -> Hub:
        self._thread.start()
        self._timer.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)

    # -- what a test says ------------------------------------------------------------------------

    @property
    def variables(self) -> dict[str, str | None]:
        """What a process needs in its environment to talk to this Hub and to nobody else."""
        proxies = ("http_proxy", "https_proxy", "all_proxy")
        return {
            "HF_ENDPOINT": self.url,
            "HF_HUB_OFFLINE": None,
            "TRANSFORMERS_OFFLINE": None,
            "NO_PROXY": "*",
            "no_proxy": "*",
            **dict.fromkeys([*proxies, *map(str.upper, proxies)]),
        }

    def gate(self, repo: str, token: str) -> None:
        """Lets into ``repo`` only who brings ``token``."""
        self.gates[repo] = token

    def fail(
        self, file: str, status: int, times: int = 1 << 30, method: str | None = None, repo: str = ""
    ) -> None:
        """Answers requests for ``file`` with ``status`` (404: it is not there), so many times."""
        self._faults.append(_Fault(file, status, times, method, repo=repo))

    def truncate(
        self, file: str, times: int = 1 << 30, keep: float = 0.5, repo: str = "", reset: bool = False
    ) -> None:
        """Cuts the connection in the middle of the body; resets it where that is asked for."""
        self._faults.append(_Fault(file, times=times, method="GET", keep=keep, repo=repo, reset=reset))

    def slow(self, file: str, rate: float, repo: str = "") -> None:
        """Sends the body at ``rate`` bytes per second."""
        self._faults.append(_Fault(file, method="GET", rate=rate, repo=repo))

    def hang(
        self, file: str, seconds: float, times: int = 1, method: str | None = None, repo: str = ""
    ) -> None:
        """Waits before it answers."""
        seconds = min(seconds, MAX_SLEEP_SECONDS)
        self._faults.append(_Fault(file, times=times, method=method, sleep=seconds, repo=repo))

    def of(self, file: str, method: str | None = None) -> list[Request]:
        """Returns the requests for a file."""
        return [entry for entry in self.log if entry.file == file and method in (None, entry.method)]

    def served(self, file: str) -> int:
        """Returns how many bytes of a file have been sent."""
        return sum(entry.body for entry in self.of(file, "GET") if entry.status in (200, 206))

    def forget(self) -> None:
        """Empties the log, and takes all faults back."""
        with self._lock:
            self.log.clear()
            self._faults.clear()

    @staticmethod
    def commit(repo: str) -> str:
        """Returns the only commit of a repository."""
        return hashlib.sha1(repo.encode()).hexdigest()

    # -- what the handler asks -------------------------------------------------------------------

    def take_fault(self, path: str, method: str) -> _Fault | None:
        """Returns the fault that applies to this request, and counts it."""
        file = _file_of(path)
        with self._lock:
            for fault in self._faults:
                if fault.repo and f"/{fault.repo}/" not in path:
                    continue
                if fault.file == file and fault.method in (None, method) and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def note(self, entry: Request) -> None:
        """Adds to the log."""
        with self._lock:
            self.log.append(entry)


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    timeout = CLIENT_TIMEOUT_SECONDS

    def do_GET(self) -> None:
        self._handle()

    def do_HEAD(self) -> None:
        self._handle()

    def log_message(self, format: str, *args: object) -> None:
        pass

    @property
    def _is_cdn(self) -> bool:
        return self.headers.get("Host", "").startswith("localhost")

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        self.began_ns = time.monotonic_ns()
        fault = self.hub.take_fault(path, self.command)
        try:
            if fault is not None and fault.sleep:
                time.sleep(fault.sleep)
            if fault is not None and fault.status == 404:
                self._error(404, "EntryNotFound", "Entry not found")
            elif fault is not None and fault.status:
                self._error(fault.status, None, "the test said so")
            elif "/xet-read-token/" in path:
                self._xet_token(path)
            elif path.startswith(("/api/models/", "/api/kernels/")):
                self._api(path.split("/", 3)[3], parts.query)
            elif path.startswith("/cdn/") and self._is_cdn:
                if parse_qs(parts.query).get("X-Amz-Signature") != [self.hub.signature]:
                    self._error(403, None, "no signature")
                else:
                    self._send_file(self.hub.folder / path.removeprefix("/cdn/"), {}, fault)
            elif "/resolve/" in path:
                self._resolve(path, fault)
            else:
                self._error(404, None, "Not found")
        except OSError:
            self.close_connection = True

    # -- answers ---------------------------------------------------------------------------------

    def _repository(self, repo: str) -> Path | None:
        """Returns the folder of a repository; None, with the answer sent, where there is no way in."""
        folder = self.hub.folder / repo
        sent = self.headers.get("Authorization")
        if repo.count("/") != 1 or ".." in repo or not folder.is_dir():
            # The real Hub does not say whether a repository is private or is not there.
            self._error(401 if sent is None else 404, "RepoNotFound", "Repository not found")
            return None
        token = self.hub.gates.get(repo)
        if token is not None and sent != f"Bearer {token}":
            message = f"Access to model {repo} is restricted."
            self._error(401 if sent is None else 403, "GatedRepo", message)
            return None
        return folder

    def _api(self, path: str, query: str) -> None:
        parts = path.split("/")
        repo, what = "/".join(parts[:2]), parts[2:]
        folder = self._repository(repo)
        if folder is None:
            return
        if what == ["refs"]:
            branches = [
                {"name": name, "ref": f"refs/heads/{name}", "targetCommit": self.hub.commit(repo)}
                for name in BRANCHES
            ]
            answer = {"branches": branches, "converts": [], "tags": []}
            self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})
            return
        if what[1:2] not in ([], *([name] for name in BRANCHES), [self.hub.commit(repo)]):
            self._error(404, "RevisionNotFound", "Revision not found")
            return
        files = sorted(item for item in folder.rglob("*") if item.is_file())
        if what[:1] == ["tree"]:
            tree = [self._tree_entry(folder, item) for item in files]
            if parse_qs(query).get("recursive", ["true"])[0].lower() != "true":
                below = folder.joinpath(*what[2:])
                if not below.is_dir():
                    self._error(404, "EntryNotFound", "Entry not found")
                    return
                tree = [self._tree_entry(folder, item) for item in sorted(below.iterdir())]
            self._send(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})
        elif what[:1] in ([], ["revision"]):
            info = {
                "_id": "0" * 24,
                "id": repo,
                "modelId": repo,
                "sha": self.hub.commit(repo),
                "private": False,
                "gated": "auto" if repo in self.hub.gates else False,
                "tags": [],
                "siblings": [
                    {"rfilename": item.relative_to(folder).as_posix(), "size": item.stat().st_size}
                    for item in files
                ],
            }
            self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})
        else:
            self._error(404, None, "Not found")

    def _xet_token(self, path: str) -> None:
        if self._repository("/".join(path.split("/")[3:5])) is None:
            return
        headers = {
            "X-Xet-Cas-Url": "http://cas.example.test:8443",
            "X-Xet-Access-Token": self.hub.xet_token,
            "X-Xet-Token-Expiration": str(int(time.time()) + 3600),
        }
        self._send(200, b"{}", headers)

    def _resolve(self, path: str, fault: _Fault | None) -> None:
        repo, _, rest = path.strip("/").removeprefix("kernels/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        folder = self._repository(repo)
        if folder is None:
            return
        commit = self.hub.commit(repo)
        headers = {"X-Repo-Commit": commit}
        if revision not in (*BRANCHES, commit):
            self._error(404, "RevisionNotFound", "Revision not found")
            return
        item = folder / name
        if ".." in name or not item.is_file():
            self._error(404, "EntryNotFound", "Entry not found", headers)
            return
        if not name.endswith(LARGE):
            self._send_file(item, headers, fault)
            return
        address = f"http://localhost:{self.hub.port}/cdn/{quote(f'{repo}/{name}')}"
        headers |= {
            "Location": f"{address}?Expires=1&X-Amz-Signature={self.hub.signature}&Key-Pair-Id=KEYPAIR",
            "X-Linked-Size": str(item.stat().st_size),
            "X-Linked-ETag": f'"{_digest(item)}"',
        }
        if name in self.hub.xet_files:
            headers["X-Xet-Hash"] = _digest(item)
            headers["X-Xet-Refresh-Route"] = f"{self.hub.url}/api/models/{repo}/xet-read-token/{commit}"
        self._send(302, b"", headers)

    def _send_file(self, item: Path, headers: dict[str, str], fault: _Fault | None) -> None:
        data = item.read_bytes()
        headers = {
            **headers,
            "ETag": f'"{_digest(item)}"',
            "Content-Type": "application/octet-stream",
            "Accept-Ranges": "bytes",
        }
        wanted = self.headers.get("Range", "")
        if wanted.startswith("bytes="):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first or 0), min(int(last or len(data)), len(data) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
            self._send(206, data[start : end + 1], headers, fault)
        else:
            self._send(200, data, headers, fault)

    def _tree_entry(self, folder: Path, item: Path) -> dict[str, object]:
        entry = _tree_entry(folder, item)
        if entry["path"] in self.hub.xet_files:
            entry["xetHash"] = _digest(item)
        return entry

    def _error(
        self, status: int, code: str | None, message: str, headers: dict[str, str] | None = None
    ) -> None:
        named = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}
        self._send(status, json.dumps({"error": message}).encode(), named)

    def _send(self, status: int, data: bytes, headers: dict[str, str], fault: _Fault | None = None) -> None:
        answered_ns, cut = time.monotonic_ns(), False
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        sent = 0
        try:
            if self.command == "GET":
                limit = len(data)
                if fault is not None and fault.keep is not None:
                    limit, self.close_connection, cut = int(limit * fault.keep), True, True
                while sent < limit:
                    piece = data[sent : min(sent + CHUNK, limit)]
                    self.wfile.write(piece)
                    sent += len(piece)
                    if fault is not None and fault.rate:
                        time.sleep(len(piece) / fault.rate)
                if fault is not None and fault.reset:
                    time.sleep(0.2)  # what has been sent is read before the reset takes it away
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
        finally:
            self.hub.note(
                Request(
                    self.command,
                    unquote(urlsplit(self.path).path),
                    status,
                    sent,
                    self._is_cdn,
                    self.headers.get("Authorization"),
                    self.headers.get("User-Agent", ""),
                    self.began_ns,
                    answered_ns,
                    cut,
                )
            )


def _file_of(path: str) -> str:
    if path.startswith("/cdn/"):
        return path.split("/", 4)[-1]
    return path.partition("/resolve/")[2].partition("/")[2]


def _digest(item: Path) -> str:
    return hashlib.sha256(item.read_bytes()).hexdigest()


def _tree_entry(folder: Path, item: Path) -> dict[str, object]:
    if item.is_dir():
        path = item.relative_to(folder).as_posix()
        return {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0}
    size, digest = item.stat().st_size, _digest(item)
    entry: dict[str, object] = {
        "type": "file",
        "path": item.relative_to(folder).as_posix(),
        "oid": digest[:40],
        "size": size,
    }
    if item.name.endswith(LARGE):
        entry["lfs"] = {"oid": digest, "size": size, "pointerSize": 135}
    return entry
