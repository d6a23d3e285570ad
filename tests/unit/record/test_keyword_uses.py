"""Where a keyword went, found from signatures and code: proven, or said to be unknown."""

from __future__ import annotations

import functools

import pytest

from hftrace.record.hooks.capture import given_keywords
from hftrace.record.hooks.points import Call
from hftrace.record.keyword_uses import keyword_uses
from hftrace.record.patching import patch


class Config:
    use_cache = True


def decorated(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


class Base:
    def __init__(self, config, *inputs, **kwargs):
        self.config = config

    @classmethod
    @decorated
    def from_pretrained(cls, path, *model_args, config=None, revision="main", **kwargs):
        dtype = kwargs.pop("dtype", None)
        _ = kwargs.pop("mirror", None)
        for name in ["fast", "slow"]:
            _ = kwargs.pop(name, None)
        if "state" in kwargs:
            return kwargs["state"]
        options = {name: kwargs.pop(name) for name in ("token", "cache") if name in kwargs}
        again = kwargs.pop("twice", None)
        _ = kwargs.pop("twice", None)
        facts = {"other": 1}
        return dtype, options, again, facts["other"], facts.get("another")


class Plain(Base):
    def __init__(self, config):
        super().__init__(config)


class Named(Base):
    def __init__(self, config, labels=None, **kwargs):
        super().__init__(config, **kwargs)


class Takes(Base):
    def __init__(self, config, **kwargs):
        super().__init__(config)
        self.size = kwargs.get("size")


class Forwards(Base):
    def __init__(self, config, **kwargs):
        super().__init__(config)
        self.inner = Plain(config, **kwargs)


class Drops(Base):
    def __init__(self, config, **kwargs):
        super().__init__(config)


class Auto:
    @classmethod
    def from_pretrained(cls, path, *model_args, **kwargs):
        return kwargs.pop("trust", None)


def use(name, model_class=Plain, owner=Base):
    return keyword_uses([name], owner, model_class(Config()))[name]


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("dtype", "loader"),
        ("revision", "loader"),
        ("state", "loader"),
        ("token", "loader"),
        ("twice", "loader"),
        ("mirror", "nowhere"),
        ("fast", "nowhere"),
        ("slow", "nowhere"),
        ("use_cache", "config"),
        ("other", "unknown"),
        ("another", "unknown"),
        ("main", "unknown"),
    ],
)
def test_what_the_loader_does_with_it(name, where):
    assert use(name) == where


@pytest.mark.parametrize(
    ("model_class", "name", "where"),
    [
        (Named, "labels", "model"),
        (Named, "lables", "nowhere"),
        (Drops, "size", "nowhere"),
        (Takes, "size", "unknown"),
        (Forwards, "size", "unknown"),
        (Plain, "size", "unknown"),
    ],
)
def test_what_the_model_does_with_it(model_class, name, where):
    assert use(name, model_class) == where


def test_an_auto_class_takes_some_itself():
    assert use("trust", owner=Auto) == "loader"
    assert use("dtype", owner=Auto) == "loader", "handed on to the model's class"
    assert use("mirror", owner=Auto) == "nowhere"


def test_a_traced_function_is_read_as_it_is():
    undo = patch(Base.from_pretrained.__func__.__wrapped__, lambda original: original)
    try:
        assert (use("dtype"), use("mirror"), use("other")) == ("loader", "nowhere", "unknown")
    finally:
        undo()


def test_defaults_of_a_signature_were_not_given():
    def load(cls, path, cache=None, *rest, force=False, revision="main", token=None, size=0, **kwargs):
        pass

    names = ("cls", "path", "cache")
    everything = {"force": False, "revision": "main", "token": None, "size": False, "dtype": "auto"}
    given = given_keywords(Call(names, (object, "m", None), everything), load)
    assert given == {"size": False, "dtype": "auto"}, "False is not 0"
    given = given_keywords(Call(names, (object, "m", "c"), {**everything, "revision": "v2"}), load)
    assert given == {"cache": "c", "revision": "v2", "size": False, "dtype": "auto"}
