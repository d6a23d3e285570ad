"""Signals are held back where they would leave something behind, and raised where a load is waited for."""

from __future__ import annotations

import os
import signal

import pytest

from hftrace.launch.interrupts import SIGNALS, Interrupts


def send(number=signal.SIGINT):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_one_waits_for_the_next_place_where_it_is_allowed(number):
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        send(number)
        assert interrupts.pending == 1
        with pytest.raises(KeyboardInterrupt), interrupts.allowed():
            raise AssertionError("not reached")
        assert interrupts.pending == 0
        interrupts.check()
    assert signal.getsignal(number) == before


def test_one_that_arrives_where_it_is_allowed_is_raised_there():
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt), interrupts.allowed():
            send()
        send()
        assert interrupts.pending == 1, "after the block it is held back again"
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()


def test_the_second_does_not_wait():
    with Interrupts():
        send()
        with pytest.raises(KeyboardInterrupt):
            send()


def test_after_the_second_none_cuts_off_what_is_kept():
    with Interrupts() as interrupts:
        send()
        with pytest.raises(KeyboardInterrupt):
            send()
        send()
        send()
        assert interrupts.pending == 2


def test_a_program_that_handles_it_itself_goes_on_doing_so():
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        with Interrupts() as interrupts:
            send()
        assert (heard, interrupts.pending) == ([1], 0)
    finally:
        signal.signal(signal.SIGINT, before)
