"""The file ledger: every file that one load asked for, found or not."""

from __future__ import annotations

import os
import stat
from typing import Any

from hftrace.replay.contents import Content, Contents, became
from hftrace.replay.damage import SETTLED_NS, Damage, examine, least_bytes, read_index
from hftrace.replay.keys import CheckpointHeaders
from hftrace.replay.loads import LoadRecord
from hftrace.replay.weight_files import SEVERAL
from hftrace.schema.lines import Identity
from hftrace.schema.model import File, Table, Tensor


def file_format(name: str) -> str:
    """Returns a file's format by its name."""
    suffix = name.rpartition(".")[2].lower()
    return {"bin": "pickle", "pt": "pickle", "pth": "pickle", "jsonl": "json"}.get(suffix, suffix)


WEIGHT_STEMS = ("pytorch_model", "adapter_model", "diffusion_pytorch_model", "model")
"""What the names of weight files begin with, of those that are known before they are opened."""
INDEX_SUFFIX = ".index.json"


def build_file_ledger(
    record: LoadRecord,
    tensors: Table[Tensor],
    headers: CheckpointHeaders,
    *,
    complete: bool,
    until_ns: int | None = None,
) -> list[File]:
    """Returns the file ledger of one load.

    Args:
        record: What was recorded.
        tensors: Its tensor ledger, which says what was read from which file.
        headers: Of the weight files, and where the files can be read as the load found them.
        complete: False where the process died: of a file that was not seen
            opened nothing is known then.
        until_ns: When the load ended, by the wall clock: a file that was written to since is not what it
            found.
    """
    finished = complete and record.status == "ok"
    read_bytes: dict[str, int] = {}
    opened: set[str] = set()
    in_parts: set[str] = set()
    columns = ("file", "files", "read_start_ns", "asked_ns", "stored_bytes", "global_shape")
    figures = (tensors.column(name) for name in columns)
    for file, files, read_start, asked, size, whole in zip(*figures, strict=True):
        if read_start is None and asked is None:
            continue
        if whole is not None:
            # A rank reads its slice, or all of it: which was not seen.
            in_parts.update(files or (file,))
        for name, part in files.items() if files else ((file, size or 0),):
            if name is not None:
                read_bytes[name] = read_bytes.get(name, 0) + part
                opened.add(name)
    opened.update(record.span_files.values(), record.parts_read)
    read_bytes.update(record.parts_read)
    entries = FileEntries()
    for span, fields in record.asked:
        entries.add(span, fields)
    for index, (path, weights) in enumerate(record.checkpoint.items()):
        result = "local" if os.sep + "snapshots" + os.sep not in path else "cached"
        entry = entries.add(
            weights.span, {"name": os.path.basename(path), "path": path, "result": result}, again=False
        )
        entry.update(
            shard=index, resident_before=weights.resident_before, resident_after=weights.resident_after
        )
        entry.update(touched_bytes=weights.touched_bytes)
        entry.update(
            unread=headers.lost(path, weights) is not None or None,
            afterwards=became(path, weights.identity) if weights.identity is not None else None,
        )
        if weights.identity not in (None, SEVERAL):
            entry.update(modified_ns=weights.identity.mtime_ns, inode=weights.identity.inode)
        if entry["size_bytes"] is None and weights.identity not in (None, SEVERAL):
            entry["size_bytes"] = weights.identity.size
        elif entry["size_bytes"] is None:
            try:
                entry["size_bytes"] = os.stat(path).st_size
            except OSError:
                if weights.resident_before is None and weights.resident_after is None:
                    entry["result"] = "missing"  # named by an index, and not there when it was asked for
    for download in record.downloads:
        entries.record_download(download)
    damages = _Damages(entries, headers.contents, until_ns).found if record.status != "ok" else {}
    pending = dict(record.requests)
    # Weights are looked for by their path; what lies beside them was asked by its name, and first.
    named: dict[str, str] = {}
    for row in entries.rows:
        if row["path"] and row["told"]:
            named.setdefault(os.path.dirname(row["path"]), row["told"])
    ledger = []
    for entry in entries.rows:
        base = os.path.basename(entry["path"]) if entry["path"] else entry["name"]
        folder = os.path.dirname(entry["path"] or "")
        is_weights = "shard" in entry
        damage = damages.get(id(entry))
        absent = damage is not None and damage.problem == "missing"
        ledger.append(
            File(
                name=entry["name"],
                path=entry["path"],
                asked_by=entry["asked_by"],
                result=entry["result"] if damage is None else "missing" if absent else "damaged",
                size_bytes=entry["size_bytes"] if damage is None else damage.size_bytes,
                downloaded_bytes=entry.get("downloaded_bytes"),
                requests=pending.pop((entry["where"], entry["name"]), 0),
                shard=entry.get("shard"),
                format=file_format(entry["name"]),
                resident_before=entry.get("resident_before"),
                resident_after=entry.get("resident_after"),
                touched_bytes=entry.get("touched_bytes"),
                opened=(base in opened and not absent) if is_weights else None,
                read_bytes=read_bytes.get(base, 0)
                if is_weights and (finished or base in opened) and base not in in_parts and not absent
                else None,
                asked=entry["asked"] if entry.get("indexed") else max(1, entry["asked"]),
                expected_bytes=damage.expected_bytes if damage is not None else None,
                expected_exact=damage.exact if damage is not None else None,
                damage=damage.problem if damage is not None else None,
                damage_detail=damage.detail if damage is not None else None,
                afterwards=entry.get("afterwards"),
                modified_ns=entry.get("modified_ns"),
                inode=entry.get("inode"),
                unread=entry.get("unread"),
                source=named.get(folder or entry["told"] or "") or entry["told"] or folder or None,
            )
        )
    # Threads come back in any order; shards are shown in theirs.
    ledger.sort(key=lambda row: (row.asked_by or 0, -1 if row.shard is None else row.shard))
    return ledger


class _Damages:
    """Finds what is wrong with files that a failed load asked for.

    A load that ended before it had resolved its shards has an index alone: what that names, and is not there
    or not whole, gets a row.

    Args:
        entries: The rows.
        contents: Where files can be read as the load found them.
        until_ns: See :func:`build_file_ledger`.
    """

    def __init__(self, entries: FileEntries, contents: Contents, until_ns: int | None) -> None:
        self._entries = entries
        self._contents = contents
        self._until_ns = until_ns
        self.found: dict[int, Damage] = {}
        """By the identity of a row."""
        for entry in entries.rows:
            if entry["result"] == "missing" and "shard" in entry:
                self.found[id(entry)] = Damage("missing")
            elif entry["path"]:
                weights = "shard" in entry or entry["name"].startswith(WEIGHT_STEMS)
                damage = self._examine(entry["path"], entry["identity"], weights=weights)
                if damage is not None:
                    self.found[id(entry)] = damage
        for entry in [row for row in entries.rows if row["path"] and row["name"].endswith(INDEX_SUFFIX)]:
            if id(entry) not in self.found:
                self._add_indexed(entry)

    def _examine(self, path: str, identity: Identity | None, *, weights: bool) -> Damage | None:
        if identity is None or os.path.isdir(path):
            return examine(path, weights=weights, until_ns=self._until_ns)
        content = self._content(path, identity)
        damage = examine(path, weights=weights, content=content) if content is not None else None
        return damage or self._cut_meanwhile(path, identity)

    def _cut_meanwhile(self, path: str, identity: Identity) -> Damage | None:
        """Returns the damage of a file that became shorter while the load used it: what is mapped is gone."""
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return None
        shorter = stat.S_ISREG(status.st_mode) and status.st_size < identity.size
        same = identity.inode in (None, status.st_ino)
        if not shorter or not same or not _is_settled(path, self._until_ns):
            return None
        return Damage("cut", status.st_size, identity.size, True, "it was longer when the load found it")

    def _content(self, path: str, identity: Identity) -> Content | None:
        """Returns where a file can be read as the load found it: all of it, if that can be."""
        return next(reversed(self._contents.headers_of(path, identity)), None)

    def _add_indexed(self, entry: dict[str, Any]) -> None:
        """Adds what an index says of shards that are not whole: their rows, and how much belongs in one."""
        place = self._contents.whole(entry["path"], entry["identity"])
        index = read_index(place) if place is not None else None
        if index is None:
            return
        folder, found = os.path.dirname(entry["path"]), self.found
        known = {row["path"]: row for row in self._entries.rows if row["path"]}
        bad: list[tuple[str, dict[str, Any]]] = []
        for name in index.files:
            path = os.path.join(folder, name)
            row = known.get(path)
            if row is None and not any(row["name"] == name for row in self._entries.rows):
                damage = examine(path, weights=True, until_ns=self._until_ns)
                from_hub = entry["result"] in ("cached", "downloaded")
                if damage is None and _is_absent(path, self._until_ns, from_hub=from_hub):
                    damage = Damage("missing")
                if damage is not None:
                    fields = {"name": name, "path": path, "where": folder}
                    row = self._entries.add(entry["asked_by"], fields, again=False)
                    row.update(indexed=True, shard=index.files.index(name))
                    found[id(row)] = damage
            if row is not None and id(row) in found:
                bad.append((name, row))
        if len(bad) != 1:
            return  # what is missing altogether is that of several

        def shard(other: str) -> Content | None:
            path = os.path.join(folder, other)
            row = known.get(path)
            if row is not None and row["identity"] is not None:
                return self._content(path, row["identity"])
            there = _is_settled(path, self._until_ns) and self._contents.whole(path, None) is not None
            return Content(path, None) if there else None

        name, row = bad[0]
        damage = found[id(row)]
        if not damage.exact:
            least = max(least_bytes(index, name, shard) or 0, damage.expected_bytes or 0)
            if least:
                found[id(row)] = damage._replace(expected_bytes=least, exact=False)


def _is_settled(path: str, until_ns: int | None) -> bool:
    """Returns whether nobody has written to a file since the load."""
    try:
        return until_ns is None or os.stat(path).st_mtime_ns <= until_ns + SETTLED_NS
    except (OSError, ValueError):
        return False


def _is_absent(path: str, until_ns: int | None, *, from_hub: bool) -> bool:
    """Returns whether a file is not there, and was not taken away after the load.

    What the cache of the Hub lacks was not downloaded: why not, the requests know. A link in it whose file
    is gone is a file that is not there.
    """
    if os.path.exists(path) or (from_hub and not os.path.islink(path)):
        return False
    try:
        changed = os.stat(os.path.dirname(path)).st_mtime_ns
    except OSError:
        return False
    return until_ns is None or changed <= until_ns


class FileEntries:
    """The rows of the file ledger while they are put together: one for each file, however often asked for.

    A file is known by its path where it was found, else by its name and the
    repository or directory that was asked.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._by_path: dict[str, dict[str, Any]] = {}
        self._by_name: dict[tuple[str, str], dict[str, Any]] = {}

    def add(self, span: int, fields: dict[str, Any], *, again: bool = True) -> dict[str, Any]:
        """Adds what was heard of a file to its row, and returns the row.

        Args:
            span: The span that asked.
            fields: Of a line :class:`hftrace.schema.lines.File`.
            again: Whether this is one more question for the file, and no more
                than news of it.
        """
        name, path = str(fields["name"]), fields.get("path")
        where = os.path.normpath(str(fields.get("where") or os.path.dirname(path or "") or "."))
        row = self._by_path.get(path) if path else None
        row = row or self._by_name.get((where, name))
        if row is None or (path and row["path"] not in (None, path)):
            row = {"name": name, "where": where, "path": None, "asked_by": span, "asked": 0, "certainty": -1}
            row["told"] = row["identity"] = None
            self.rows.append(row)
        row["told"] = row["told"] or fields.get("where") or None
        certainty, identity = _certainty(fields), Identity.of(fields.get("identity"))
        if certainty > row["certainty"]:
            row.update(certainty=certainty, result=fields.get("result", "error"), path=path)
        row["identity"] = row["identity"] or identity
        if row.get("size_bytes") is None:
            row["size_bytes"] = identity.size if identity is not None else fields.get("size")
        if again and not fields.get("client"):
            row["asked"] += 1
        if path:
            self._by_path.setdefault(path, row)
        self._by_name.setdefault((where, name), row)
        return row

    def record_download(self, download: dict[str, Any]) -> None:
        """Marks the file that a download was for."""
        name = str(download.get("name") or "")
        where = download.get("where")
        if where is not None:
            row = self._by_name.get((os.path.normpath(where), name))
        else:
            # Outside of hf_hub_download it is what the progress bar shows: the last 40 characters.
            shown = name.removeprefix("(…)")
            matches = (
                row["name"] == name or (shown != name and row["name"].endswith(shown)) for row in self.rows
            )
            row = next((row for row, match in zip(self.rows, matches, strict=True) if match), None)
        if row is None:
            return
        row["downloaded_bytes"] = (row.get("downloaded_bytes") or 0) + int(download.get("bytes") or 0)
        if download.get("ok", True) and row["path"]:
            row["result"] = "downloaded"


def _certainty(fields: dict[str, Any]) -> int:
    """Returns how much a note says: a file found is certain; else the client knows better than the loader."""
    if fields.get("path"):
        return 4
    return 2 * bool(fields.get("client")) + (fields.get("result") == "error")
