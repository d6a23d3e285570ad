"""Sends what ``__main__`` defines to other processes and back, untraced and traced; test_tools.py runs this.

    python plain_tools.py

Without torch and transformers, which each process would have to import again.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import pickle
import subprocess
import sys


class Base:
    def __init__(self, value):
        self.value = value


class Mine(Base):
    def __init__(self, value, *, scale=2):
        super().__init__(value)
        self.scaled = value * scale, __class__.__name__

    @classmethod
    def from_pretrained(cls, path):
        return cls(len(path))


def sent(made):
    """Runs in the child: with what came, what it makes itself, and what goes back."""
    return made.scaled, Mine(made.value).scaled, Mine.from_pretrained("ab").scaled, made


def returned(found):
    *seen, made = found
    assert type(made).__name__ == "Mine"
    return seen, made.scaled


def by_spawn():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return returned(pool.apply(sent, (Mine(3),))), pool.apply(Mine, (4,)).scaled


def by_executor():
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return returned(pool.submit(sent, Mine(3)).result()), pool.submit(Mine, 4).result().scaled


def by_fork():
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return returned(pool.apply(sent, (Mine(3),))), pool.apply(Mine, (4,)).scaled


def by_loky():
    try:
        import joblib
    except ImportError:
        return None
    from joblib.externals.loky import get_reusable_executor

    try:
        calls = [joblib.delayed(sent)(Mine(value)) for value in (3, 4)]
        return [returned(found) for found in joblib.Parallel(n_jobs=2, backend="loky")(calls)]
    finally:
        get_reusable_executor().shutdown(wait=True)


READ = """
import pickle, sys
sys.modules["hftrace"] = None
cls, made, load = pickle.load(sys.stdin.buffer)
print(cls(5).scaled, made.scaled, load("abc").scaled)
"""


def by_value(name):
    """Sends the class with its code to a process that has neither this script nor hftrace."""
    try:
        pickler = __import__(name)
    except ImportError:
        return None
    options = [{}] if name == "cloudpickle" else [{"byref": False, "recurse": recurse} for recurse in (0, 1)]
    found = []
    for each in options:
        data = pickler.dumps([Mine, Mine(3), Mine.from_pretrained], **each)
        done = subprocess.run([sys.executable, "-c", READ], input=data, capture_output=True)
        found.append((done.stdout, done.stderr))
    assert all(out and not errors for out, errors in found), found
    return found


def main():
    ways = [by_spawn, by_executor, by_fork, by_loky]
    ways += [lambda: by_value("cloudpickle"), lambda: by_value("dill")]
    plain = [way() for way in ways]
    assert plain[0] == (([(6, "Mine"), (6, "Mine"), (4, "Mine")], (6, "Mine")), (8, "Mine")), plain

    import hftrace
    from hftrace.record.patching import patch

    calls = []

    def noting(original):
        def call(*arguments, **keywords):
            calls.append(arguments)
            return original(*arguments, **keywords)

        return call

    with hftrace.trace(sample_hz=0) as recorded:
        undo = patch(Mine.__init__, noting)  # as tracing does with the class of a model
        traced = [way() for way in ways]
        undo()
    assert traced == plain, (traced, plain)
    assert calls
    assert not recorded.trace.header["errors"]
    assert pickle.loads(pickle.dumps(Mine(1))).scaled == (2, "Mine")
    print("fine")


if __name__ == "__main__":
    main()
