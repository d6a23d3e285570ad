"""Findings about requests: what failed, what was for nothing, and offline mode that came too late."""

from __future__ import annotations

import pytest

from handmade import MAIN, MS, Builder
from hftrace.analysis.findings.registry import findings


def load(**attributes):
    """One load of a model from the cache."""
    made = Builder()
    root = made.span(None, "load", "LlamaForCausalLM", 0, 60_000)
    made.asker = made.span(root, "resolve", "config.json", 10, 50_000, **attributes)
    made.span(root, "weights", "weights", 50_000, 60_000)
    made.file("config.json", "cached", 500)
    return made


def found(made):
    return {finding.name: finding for finding in findings(made.trace())}


def refused(made, start, attempt, **more):
    made.request_row(start, 2, None, error="ConnectionError", attempt=attempt, asked_by=made.asker, **more)


def test_a_dead_hub_costs_its_retries():
    made = load()
    for attempt, start in enumerate((100, 1_100, 3_100, 7_100), start=1):
        refused(made, start, attempt)
    finding = found(made)["failed-requests"]
    assert finding.rule == "R35"
    assert finding.view == "requests"
    assert finding.title == "4 requests to hub.example failed"
    assert "All 4 requests to hub.example failed (ConnectionError), 3 sent again" in finding.evidence
    assert finding.cost_ns == (7_100 + 2 - 100) * MS, "the waits between them are lost too"
    assert "HF_HUB_OFFLINE=1" in finding.advice
    assert "local_files_only=True" in finding.advice
    assert "hub-requests" not in found(made), "no request was answered"


def test_what_ran_at_the_same_time_is_lost_once():
    made = load()
    for thread in (MAIN, MAIN + 1, MAIN + 2):
        made.request_row(100, 400, None, error="ReadTimeout", asked_by=made.asker, thread=thread)
    assert found(made)["failed-requests"].cost_ns == 400 * MS


def test_a_status_that_says_to_try_again():
    made = load()
    made.file("model.safetensors", "downloaded", 500)
    made.request_row(100, 5, 503, asked_by=made.asker)
    made.request_row(1_100, 5, 200, attempt=2, asked_by=made.asker)
    finding = found(made)["failed-requests"]
    assert "1 of 2 requests to hub.example failed (status 503), 1 sent again" in finding.evidence
    assert finding.cost_ns == 1_000 * MS
    assert "load later" in finding.advice


@pytest.mark.parametrize("status", [200, 302, 401, 403, 404])
def test_other_statuses_are_answers(status):
    made = load()
    made.request_row(100, 5, status, asked_by=made.asker)
    assert "failed-requests" not in found(made)


def test_hosts_are_told_apart():
    made = load()
    refused(made, 100, 1)
    refused(made, 200, 1, host="cdn.example", path="/x")
    finding = found(made)["failed-requests"]
    assert finding.title == "2 requests failed"
    assert "hub.example" in finding.evidence
    assert "cdn.example" in finding.evidence


@pytest.mark.parametrize(("seconds", "expected"), [(1, False), (40, True)])
def test_a_request_that_was_open_when_the_process_was_killed(seconds, expected):
    """A younger one may well have been answered."""
    made = Builder()
    root = made.span(None, "load", "LlamaForCausalLM", 0, 10 + seconds * 1000, status="killed")
    asker = made.span(root, "resolve", "config.json", 10, 10 + seconds * 1000, status="killed")
    made.request_row(10, None, None, asked_by=asker)
    made.outcome = {"status": "killed", "killer": "timeout"}
    finding = found(made).get("failed-requests")
    assert (finding is not None) == expected
    if expected:
        assert "no answer" in finding.evidence
        assert finding.cost_ns == seconds * 1000 * MS


def test_answers_for_nothing_are_found_beside_failures():
    made = load()
    refused(made, 100, 1)
    made.request_row(500, 20, 200, asked_by=made.asker)
    made.file("generation_config.json", "error")
    assert found(made)["hub-requests"].cost_ns == 20 * MS
    assert "1 request" in found(made)["hub-requests"].title
    assert "failed-requests" in found(made)


def test_a_download_is_not_for_nothing():
    made = load()
    made.request_row(500, 20, 200, asked_by=made.asker)
    made.file("model.safetensors", "downloaded", 7)
    assert "hub-requests" not in found(made)


def test_offline_mode_that_came_too_late():
    made = load()
    made.environment["offline_ignored"] = ["HF_HUB_OFFLINE"]
    assert "offline-too-late" not in found(made), "and no request went out"
    made.request_row(500, 20, 200, asked_by=made.asker)
    finding = found(made)["offline-too-late"]
    assert finding.title == "HF_HUB_OFFLINE was set too late"
    assert "before anything imports" in finding.advice
    made.environment["offline_ignored"] = "junk"
    assert "offline-too-late" not in found(made)
