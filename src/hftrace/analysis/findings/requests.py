"""Rules about requests: those that failed, and those that nothing was got for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hftrace import units
from hftrace.analysis.findings.rules import MOST_NAMED, WORTH_NS, Finding, Fix, Where, first_few, rule
from hftrace.analysis.time.phases import phase_times
from hftrace.analysis.time.requests import HostFailures, answered, failures, length, waited_for
from hftrace.analysis.time.session import session_wall_ns
from hftrace.schema.model import Request
from hftrace.schema.trace import Trace
from hftrace.units import duration

MAX_HOSTS = 3
WORTH_SHARE = 0.1
"""Of the session: asking whether a file is current is what every load does that was not told to be offline,
and nobody's question below this."""
MAX_REASONS = 3
OFFLINE = Fix(environment={"HF_HUB_OFFLINE": "1"})
SPARED = "set HF_HUB_OFFLINE=1 before the program starts, or pass local_files_only=True"
"""How a load asks its cache alone."""
IN_TIME = (
    "Set it in the environment of the process, or before anything imports huggingface_hub or transformers."
)


@rule(
    ("R35", "failed-requests", "Requests failed, or were sent again because they had failed."),
    concerns="time",
    severity="warning",
    of_session=True,
)
def failed_requests(trace: Trace) -> Iterator[Finding]:
    """R35: requests that got no answer, or one that says to try again later."""
    hosts = failures(trace)
    if not hosts:
        return
    failed = sum(host.failed for host in hosts)
    lost = length(stretch for host in hosts for stretch in host.stretches)
    parts = [_words(host) for host in hosts[:MAX_HOSTS]]
    if len(hosts) > MAX_HOSTS:
        parts.append(f"{units.count(len(hosts) - MAX_HOSTS, 'more host')}")
    where = f" to {hosts[0].host}" if len(hosts) == 1 and hosts[0].host else ""
    yield Finding(
        "R35",
        "failed-requests",
        f"{units.count(failed, 'request')}{where} failed",
        f"{'; '.join(parts)}. Time lost, with the waits before the next attempt: {duration(lost)}.",
        _advice(trace, hosts),
        cost_ns=lost,
        view="requests",
        fix=OFFLINE if _all_was_cached(trace) else None,
        numbers={
            "failed": failed,
            "requests": sum(host.requests for host in hosts),
            "hosts": len(hosts),
            "lost_ns": lost,
        },
        where=Where(spans=_asked_by(row for row in trace.requests if row.failed)),
    )


def _words(host: HostFailures) -> str:
    """Says of one host what failed, and why."""
    name = host.host or "a host that is not known"
    reasons = ", ".join(
        f"{count} times {reason}" if len(host.reasons) > 1 else reason
        for reason, count in host.reasons.most_common(MAX_REASONS)
    )
    if host.failed < host.requests:
        text = f"{host.failed:,} of {units.count(host.requests, 'request')}"
    else:
        text = "The only request" if host.failed == 1 else f"All {host.failed:,} requests"
    text += f" to {name} failed ({reasons})"
    return text + (f", {host.repeated:,} sent again after a failure" if host.repeated else "")


def _asked_by(rows: Iterable[Request]) -> list[int]:
    """Returns the first few spans that requests were sent in."""
    return list(dict.fromkeys(row.asked_by for row in rows if row.asked_by is not None))[:MOST_NAMED]


def _all_was_cached(trace: Trace) -> bool:
    """Returns whether a load got all that it needed from the cache."""
    results = set(trace.files.column("result"))
    return trace.outcome.get("status", "ok") == "ok" and "cached" in results and "downloaded" not in results


def _advice(trace: Trace, hosts: list[HostFailures]) -> str:
    if _all_was_cached(trace):
        return (
            f"All that was needed was in the cache: {SPARED}. "
            "Else check the network, HF_ENDPOINT and the proxy."
        )
    if all(reason.startswith("status ") for host in hosts for reason in host.reasons):
        return (
            "The host was reached and said to try again: load later, or with a token, which is allowed more "
            f"requests. Where the files are cached, {SPARED}."
        )
    return (
        "Check the network, HF_ENDPOINT and the proxy; HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT say "
        f"how long one answer is waited for. Where the files are cached, {SPARED}."
    )


@rule(
    ("R35", "offline-too-late", "Offline mode was asked for after the Hub client had been imported."),
    concerns="time",
    severity="warning",
    of_session=True,
)
def offline_too_late(trace: Trace) -> Iterator[Finding]:
    """R35: requests were sent although the environment asks for none."""
    ignored = trace.environment.get("offline_ignored")
    names = [str(name) for name in ignored] if isinstance(ignored, list) else []
    if names and len(trace.requests):
        yield Finding(
            "R35",
            "offline-too-late",
            f"{names[0]} was set too late",
            f"{units.count(len(trace.requests), 'request')} went out although {' and '.join(names)} "
            f"{'is' if len(names) == 1 else 'are'} set: huggingface_hub reads it once, when it is imported.",
            IN_TIME,
            view="requests",
            fix=OFFLINE,
            numbers={"requests": len(trace.requests)},
        )


@rule(
    ("R22", "waited-for-downloads", "The program waited for files that came over the network."),
    concerns="time",
    severity="info",
    of_session=True,
)
def waited_for_downloads(trace: Trace) -> Iterator[Finding]:
    """R22: downloads on the path of the thread that loads; what came meanwhile cost nothing."""
    got = [file for file in trace.files if file.result == "downloaded"]
    if not got or trace.outcome.get("status", "ok") != "ok":
        return
    hosts, spent = waited_for(trace)
    if spent < WORTH_NS and spent < WORTH_SHARE * session_wall_ns(trace):
        return
    size = sum(file.downloaded_bytes or 0 for file in got)
    named = [
        f"{duration(host.spent_ns)} for {host.host or 'a host that is not known'}"
        + (f" ({units.byte_count(host.bytes)})" if host.bytes else "")
        for host in hosts[:MAX_HOSTS]
    ]
    more = len(hosts) - len(named)
    yield Finding(
        "R22",
        "waited-for-downloads",
        f"{duration(spent)} waiting for downloads",
        f"{units.count(len(got), 'file')}, {units.byte_count(size)}, came from the Hub. The program waited "
        f"{'; '.join(named)}{f'; {more:,} more' if more else ''}.",
        "Fetch them beforehand, where the image or the machine is made (hf download, or snapshot_download "
        "with the files that are loaded), keep HF_HOME between starts, and set HF_HUB_OFFLINE=1.",
        cost_ns=spent,
        cost_bytes=size,
        view="requests",
        numbers={
            "files": len(got),
            "downloaded_bytes": size,
            "spent_ns": spent,
            "hosts": len(hosts),
            "host": hosts[0].host if hosts else None,
        },
        where=Where(files=first_few(file.name for file in got)),
    )


@rule(
    ("R22", "hub-requests", "Requests went to the Hub although every file was here already."),
    concerns="time",
    severity="warning",
    of_session=True,
)
def hub_requests(trace: Trace) -> Iterator[Finding]:
    """R22: requests to the hub although every file was there already; those that failed are R35's."""
    results = set(trace.files.column("result"))
    if not results or "downloaded" in results or trace.outcome.get("status", "ok") != "ok":
        return
    if len(trace.requests):
        rows = answered(trace)
        count = len(rows)
        cost = length((row.time_ns, row.time_ns + (row.duration_ns or row.wait_ns or 0)) for row in rows)
    elif "error" not in results:
        # A trace before 1.2 has their number alone.
        count = sum(value or 0 for value in trace.files.column("requests"))
        cost = phase_times(trace).get("resolve", 0)
    else:
        return
    if count:
        worth = cost >= WORTH_NS or cost >= WORTH_SHARE * session_wall_ns(trace)
        asked_by = _asked_by(row for row in trace.requests if not row.failed)
        yield Finding(
            "R22",
            "hub-requests",
            f"{units.count(count, 'request')} to the hub, nothing downloaded",
            f"Every file was here already, and {units.count(count, 'request')} asked whether it is current.",
            "Set HF_HUB_OFFLINE=1, or pass local_files_only=True.",
            cost_ns=cost,
            severity="warning" if worth else "info",
            fix=OFFLINE,
            numbers={"requests": count, "spent_ns": cost},
            where=Where(spans=asked_by, files=first_few(row.file for row in trace.requests)),
        )
