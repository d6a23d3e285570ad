"""What a function held that an exception has left: its variables, and what stands in its objects."""

import sys
from collections import namedtuple

import pytest

from hftrace.schema.secrets import known as known_module
from hftrace.schema.secrets import sources, variables
from hftrace.schema.secrets.known import Known


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    """Gives each test a process that knows no secret yet."""
    fresh = Known()
    for module in (sources, variables, known_module):
        monkeypatch.setattr(module, "known", fresh)
    return fresh


@pytest.mark.parametrize("name", ["token", "tok", "inner_token", "auth_token", "api_token", "hf_token"])
@pytest.mark.parametrize(
    "value", ["inner-tok-z2", "abcdef-123456-abcdef", "tok_live_99x_kk", "glsa_8Hxx99yyzz", b"bytes-tok-1"]
)
def test_what_is_called_a_token_is_one(nothing_known, name, value):
    variables.learn_variables({name: value})
    assert nothing_known.values() == [value.decode() if isinstance(value, bytes) else value]


@pytest.mark.parametrize(
    "word", ["hello", "▁transformer1", "##isation-1", "<|end_of_text|>", "Tokenization", "[MASK]"]
)
def test_a_word_of_a_vocabulary_is_none(nothing_known, word):
    variables.learn_variables({"token": word, "tok": word, "prev_token": word})
    assert nothing_known.values() == []


def test_what_is_surely_no_word_is_hunted_for_whatever_it_looks_like(nothing_known):
    variables.learn_variables(
        {"auth_token": "kartoffel", "HF_TOKEN": "kartoffelsalat", "api_token": "Zwiebel"}
    )
    assert set(nothing_known.values()) == {"kartoffel", "kartoffelsalat", "Zwiebel"}


class Client:
    """What a program may keep its secrets in; its properties and methods are not run."""

    def __init__(self, **given):
        self.__dict__.update(given)

    @property
    def secret(self):
        raise AssertionError("the host's code was run")

    def __getattr__(self, name):
        raise AssertionError("the host's code was run")


class Slotted:
    """One without a dictionary."""

    __slots__ = ("__token", "password")

    def __init__(self, password):
        self.password = password


class Settings:
    """A class that is used as it is."""

    PASSWORD = "cl4ss-attribute"


class Strange:
    """One whose dictionary is code of the host's."""

    @property
    def __dict__(self):
        raise AssertionError("the host's code was run")


Pair = namedtuple("Pair", "user secret")
GLOBAL_PASSWORD = "gl0bal-variable"


def left(function, *arguments):
    """Returns the frame of a function that an exception has left."""
    try:
        function(*arguments)
    except ValueError:
        return sys.exc_info()[2].tb_next.tb_frame
    raise AssertionError("nothing was raised")


def raising(client, slotted, settings, pair, config, strange):
    closed = Client(password="cl0sed-over")
    password = "l0cal-variable"

    def later():
        return closed, password

    raise ValueError(GLOBAL_PASSWORD, later)


def test_objects_dictionaries_and_variables_that_are_closed_over(nothing_known):
    frame = left(
        raising,
        Client(password="attr1bute-x", auth=Client(token="two-l3vels"), key="layer1.conv2.bn3", port=8080),
        Slotted("sl0tted-one"),
        Settings,
        Pair("somebody-1", "f1eld-of-tuple"),
        {"api_key": "in-a-d1ctionary", 3: "x", "name": "model-7b-v1"},
        Strange(),
    )
    variables.learn_frame(frame)
    assert set(nothing_known.values()) == {
        *("attr1bute-x", "two-l3vels", "sl0tted-one", "cl4ss-attribute", "f1eld-of-tuple"),
        *("in-a-d1ctionary", "cl0sed-over", "l0cal-variable", "gl0bal-variable"),
    }


def test_what_a_function_has_got_from_locals_stays_as_it_was(nothing_known):
    def function():
        client = Client(password="attr1bute-y")
        given.append(locals())
        later = 1
        raise ValueError(client, later)

    given = []
    variables.learn_frame(left(function))
    assert nothing_known.values() == ["attr1bute-y"]
    assert "later" not in given[0]


def test_fields_of_a_named_tuple(nothing_known):
    sources.learn_keywords(
        {"given": [Pair("somebody-2", "t0-the-field")], "credentials": Pair("u", "wh0le-one")}
    )
    assert nothing_known.values() == ["t0-the-field", "wh0le-one"]
