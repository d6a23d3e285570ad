"""Whose line it is: the first frame that is neither a library's nor Python's nor ours."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import types

import pytest

from hftrace.record.callers import caller_facts, caller_frame, place
from hftrace.record.frames import FRAME_FILE

pytestmark = pytest.mark.once


def in_module(name, file, call):
    """Calls a function from a frame of a module of this name and file."""
    code = compile("def run(call):\n    return call()\n", file, "exec")
    module = types.ModuleType(name)
    exec(code, vars(module))
    return module.run(call)


def test_the_line_and_the_function_that_call():
    assert caller_facts() == {
        "caller": f"{__file__}:{inspect.currentframe().f_lineno - 1}",
        "caller_function": "test_the_line_and_the_function_that_call",
    }


@pytest.mark.parametrize("name", ["torch.nn", "transformers", "hftrace.x", "peft.peft_model"])
def test_frames_of_libraries_are_passed_over(name):
    found = in_module(name, "/lib/x.py", functools.partial(in_module, "peft", "/lib/y.py", caller_facts))
    assert found["caller_function"] == "in_module"


def test_a_frame_that_is_not_a_library_s_is_the_caller_s():
    assert place(in_module("my_service", "/srv/my_service.py", caller_frame)) == "/srv/my_service.py:2"
    assert place(in_module("torch.nn", "/lib/nn.py", caller_frame)).startswith(f"{__file__}:")
    assert place(in_module("__main__", "<stdin>", caller_frame)) == "<stdin>:2"


def test_a_module_by_the_name_of_one_of_python_s():
    assert place(in_module("queue", "/srv/queue.py", caller_frame)) == "/srv/queue.py:2"
    assert place(in_module("queue", contextlib.__file__, caller_frame)).startswith(f"{__file__}:")


def test_what_stands_around_a_function_is_not_its_line():
    """A decorated function, or one of the caller's own classes that is hooked: the globals are its own."""
    assert place(in_module("my_service", FRAME_FILE, caller_frame)).startswith(f"{__file__}:")


def test_hftrace_may_be_the_program():
    file = caller_frame.__code__.co_filename
    assert place(in_module("__main__", file, caller_frame)).startswith(f"{__file__}:")


def test_a_thread_without_a_line_of_the_caller_s():
    found = []
    of_library = {"__name__": "transformers.x", "facts": caller_facts}
    exec(compile("def run(found):\n    found.append(facts())\n", "/lib/x.py", "exec"), of_library)
    thread = threading.Thread(target=of_library["run"], args=(found,))
    thread.start()
    thread.join()
    assert found == [{}]


@pytest.mark.parametrize("module", ["multiprocessing.popen_fork", "my_service"])
def test_the_frame_of_a_hooked_function_is_nobodys_line(module):
    assert place(in_module(module, FRAME_FILE, caller_frame)).startswith(f"{__file__}:")
