"""A value that is known to be a secret is found again, in any form."""

import base64
import dataclasses
import functools
import json
import urllib.parse
from types import SimpleNamespace

import pytest

from hftrace.schema import redact
from hftrace.schema.redact import REMOVED
from hftrace.schema.secrets import known as known_module
from hftrace.schema.secrets import options, sources, variables
from hftrace.schema.secrets.known import Known, is_hunted
from hftrace.schema.secrets.parts import decoded_pair
from hftrace.schema.secrets.shapes import looks_random

ODD = 'p"a\\s&s/w ö=1+2'
PLAIN = "Qz81-kfUw92.Lp"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    """Gives each test a process that knows no secret yet."""
    fresh = Known()
    for module in (redact, sources, options, variables, known_module):
        monkeypatch.setattr(module, "known", fresh)
    monkeypatch.setattr(redact, "_seen", redact._Seen())
    monkeypatch.setattr(sources, "_environment", [{}])
    monkeypatch.setattr(sources, "_files", {})
    return fresh


@pytest.mark.parametrize("value", [ODD, PLAIN])
@pytest.mark.parametrize(
    "form",
    [
        lambda value: value,
        lambda value: f"before{value}after",
        json.dumps,
        lambda value: json.dumps({"x": json.dumps([value])}),
        repr,
        lambda value: json.dumps(value, ensure_ascii=False),
        lambda value: urllib.parse.quote(value, safe=""),
        urllib.parse.quote,
        urllib.parse.quote_plus,
        lambda value: urllib.parse.quote(value, safe="").lower() if value == ODD else value,
        lambda value: base64.b64encode(f"user:{value}".encode()).decode(),
        lambda value: base64.b64encode(f"me:{value}".encode()).decode(),
        lambda value: base64.urlsafe_b64encode(f"m:{value}:rest".encode()).decode(),
        lambda value: value.encode().hex(),
        lambda value: str(value.encode("utf-8")) if value == PLAIN else value,
    ],
)
def test_a_value_is_found_in_each_form(nothing_known, value, form):
    nothing_known.learn(value)
    text = nothing_known.remove(f"it was {form(value)}!")
    assert REMOVED in text
    # Nothing of it is left that says anything.
    for at in range(len(value) - 5):
        assert value[at : at + 6] not in text
    decoded = base64.b64encode(value.encode()).decode()
    assert decoded[3:-6] not in text


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a",
        "yes",
        "True",
        "bfloat16",
        "cuda:0",
        "auto",
        "main",
        "1234",
        "3.14159",
        "2026-11-27",
        "hunter",
        "******",
    ],
)
def test_what_a_trace_is_full_of_is_not_hunted_for(value):
    assert not is_hunted(value)


def test_a_place_on_this_machine_is_not_hunted_for(tmp_path):
    assert not is_hunted(str(tmp_path))
    assert is_hunted("/9j4AAQSkZJRgABAQ")


@pytest.mark.parametrize(
    "value", ["swordfish", "correct horse battery", "hunter22", "483920175562", "p@ss/w0rd"]
)
def test_real_secrets_are_hunted_for(value):
    assert is_hunted(value)


def test_a_word_is_taken_out_as_a_word_alone(nothing_known):
    nothing_known.learn("swordfish")
    assert (
        nothing_known.remove("swordfish, swordfishes, my_swordfish")
        == f"{REMOVED}, swordfishes, my_swordfish"
    )
    nothing_known.learn("48392017")
    assert nothing_known.remove("48392017 of 1483920175") == f"{REMOVED} of 1483920175"


def test_the_name_of_what_is_loaded_is_not_hunted_for(nothing_known):
    redact.learn_call("org/model-7b-v2", {"key": "org/model-7b-v2", "password": PLAIN})
    assert nothing_known.values() == [PLAIN]


def test_only_the_newest_values_are_kept(nothing_known):
    for number in range(known_module.MAX_VALUES + 10):
        nothing_known.learn(f"secret-{number:06d}-x")
    assert len(nothing_known.values()) == known_module.MAX_VALUES
    assert nothing_known.remove("secret-000509-x") == REMOVED


def test_parts_of_a_secret_are_secrets(nothing_known):
    redact.learn_keywords(
        {
            "headers": {
                "Authorization": "Bearer abc-DEF-123456",
                "Cookie": "a=first-cookie-1; b=second-cookie-2",
            },
            "proxies": {"https": "http://user:pr0xy%2Fpass@host:3128"},
            "auth": ("someone", "Tupl3-Pass"),
            "basic_auth": "Basic " + base64.b64encode(b"me:B4sic-Pass").decode(),
        }
    )
    text = nothing_known.remove(
        "abc-DEF-123456 first-cookie-1 second-cookie-2 pr0xy/pass pr0xy%2Fpass Tupl3-Pass B4sic-Pass"
    )
    assert set(text.split()) == {REMOVED}


@dataclasses.dataclass
class Credentials:
    """What a library of the caller's may wrap a secret in."""

    user: str
    password: str


class Slotted:
    """One without a dictionary; its property is code of the caller's and is not run."""

    __slots__ = ("secret",)

    def __init__(self, secret):
        self.secret = secret

    @property
    def token(self):
        raise AssertionError("the caller's code was run")


def test_secrets_are_found_in_what_they_are_wrapped_in(nothing_known):
    redact.learn_keywords(
        {
            "storage_options": {
                "client": Credentials("user", "wr4pped-1"),
                "list": [{"secret": b"wr4pped-2"}],
            },
            "session": SimpleNamespace(auth=SimpleNamespace(value="wr4pped-3")),
            "slotted": Slotted("wr4pped-4"),
            "pairs": [("x-api-key", "wr4pped-5"), ("accept", "*/*")],
            "mixed": [{"a": 1}, ("authToken", "wr4pped-7")],
            "deep": ({"a": ({"b": {"password": "wr4pped-6"}},)},),
        }
    )
    assert {f"wr4pped-{number}" for number in range(1, 8)} <= set(nothing_known.values())
    assert "*/*" not in nothing_known.values()


def test_secrets_are_found_in_texts_that_are_json_and_in_what_is_bound(nothing_known):
    pair = base64.b64encode(b"me:d0cker-Pass").decode()
    redact.learn_keywords(
        {
            "manifest": [{"name": "API_TOKEN", "value": "wr4pped-1"}, {"name": "MODE", "value": "plainly"}],
            "opener": functools.partial(print, token="wr4pped-2"),
            "auth_config": json.dumps({"auths": {"host": {"auth": pair}}}),
            "text": json.dumps({"a": json.dumps([{"password": "wr4pped-3"}])}),
            "headers": {"X": f"Authorization: Basic {pair}"},
        }
    )
    known = set(nothing_known.values())
    assert {"wr4pped-1", "wr4pped-2", "wr4pped-3", "d0cker-Pass"} <= known
    assert "plainly" not in known
    given = [{"name": "DB_PASSWORD", "value": "hunter"}, {"name": "layer", "value": "hunter"}]
    assert [item["value"] for item in redact.redact_value(given)] == [REMOVED, "hunter"]


@pytest.mark.parametrize("value", ["attention", "bW9kZWw=", "AAAAAAAA", "model_weights", "Zm9vOgo="])
def test_what_is_no_user_with_a_password(value):
    assert decoded_pair(value) is None


def test_a_state_dict_is_not_looked_through(nothing_known):
    class Tensor:
        __module__ = "torch.fake"

        def __getattribute__(self, name):
            raise AssertionError("a tensor was touched")

    redact.learn_keywords({"state_dict": {f"key.{number}": Tensor() for number in range(3)}})


def test_variables_and_files_of_tokens_are_known(nothing_known, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_SERVICE_PASSWORD", "env1r0nment")
    monkeypatch.setenv("UNRELATED", "ghp_0123456789abcdefABCDEF0123456789abcd")
    monkeypatch.setenv("DB_URL", "postgres://u:url-p4ss@db/x")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "token").write_text("file-t0ken-unusual\n")
    (tmp_path / "stored_tokens").write_text("[work]\nhf_token = st0red-token-unusual\n")
    (tmp_path / "netrc").write_text("machine huggingface.co login me password n3trc-password\n")
    monkeypatch.setattr(
        "sys.argv", ["serve.py", "--db-password=4rgument-1", "--auth", "4rgument-2", "--port", "8080"]
    )
    redact.learn_process()
    found = set(nothing_known.values())
    assert {
        "env1r0nment",
        "url-p4ss",
        "file-t0ken-unusual",
        "st0red-token-unusual",
        "n3trc-password",
    } <= found
    assert {"4rgument-1", "4rgument-2", "ghp_0123456789abcdefABCDEF0123456789abcd"} <= found
    assert not {"8080", "me", "huggingface.co", str(tmp_path / "token")} & found


def test_a_variable_that_is_set_later_is_known_too(nothing_known, monkeypatch):
    redact.learn_process()
    monkeypatch.setenv("LATE_SECRET", "l4te-secret-value")
    assert redact.redact("l4te-secret-value") == REMOVED


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (["-p", "h4nter2x"], ["-p", REMOVED]),
        (["-p", "8080"], ["-p", "8080"]),
        (["-p", "no:cacheprovider"], ["-p", "no:cacheprovider"]),
        (["-k", "test_one"], ["-k", "test_one"]),
        (["-pS3cr3tPa55w0rd"], ["-p" + REMOVED]),
        (["-u", "me:p4ssw"], ["-u", f"me:{REMOVED}"]),
        (["-H", "Authorization: Bearer abc123def"], ["-H", f"Authorization: {REMOVED}"]),
        (["--passphrase", "correct horse"], ["--passphrase", REMOVED]),
        (["--mode=fast", "--passes", "3"], ["--mode=fast", "--passes", "3"]),
        (["--pad_token", "<pad>"], ["--pad_token", "<pad>"]),
        (["UvLH5blWPfinH3nmQA09xyq8"], [REMOVED]),
        (["a1b2c3d4e5f60718293a4b5c6d7e8f9012345678"], ["a1b2c3d4e5f60718293a4b5c6d7e8f9012345678"]),
        (["LlamaForConditionalGeneration2"], ["LlamaForConditionalGeneration2"]),
        (["model_Llama2_7b_Chat_hf_fp16"], ["model_Llama2_7b_Chat_hf_fp16"]),
    ],
)
def test_options_of_any_program(arguments, kept):
    assert redact.redact_arguments(["serve.py", *arguments]) == ["serve.py", *kept]


def test_the_first_argument_that_shows_a_secret_takes_it_out_of_the_others():
    arguments = ["serve.py", "--url=http://x/W1-odd-value", "--token", "W1-odd-value"]
    assert redact.redact_arguments(arguments) == ["serve.py", f"--url=http://x/{REMOVED}", "--token", REMOVED]


@pytest.mark.parametrize(
    "value", ["Xy83js0aK2lq9Zd1", "9f86d081884c7d659a2feaa0c55ad015", "AbCdEf123456GhIj", "a1b2c3d4e5f6a7b8"]
)
def test_generated_values_look_random(value):
    assert looks_random(value)
    assert redact.redact_value({"mykeyholder": value}) == {"mykeyholder": REMOVED}


@pytest.mark.parametrize(
    "value",
    [
        *(
            "Meta-Llama-3-8B-Instruct",
            "/models/llama-2-7b",
            "model.layers.0.weight",
            "flash_attention_2",
            "refs/pr/12",
        ),
        *(
            "2026-11-27T10:20:30",
            "https://host/a1b2c3d4e5f6",
            "transformers",
            "balanced_low_0",
            "float8_e4m3fn",
        ),
    ],
)
def test_names_and_places_do_not(value):
    assert not looks_random(value)
    assert redact.redact_value({"mykeyholder": value}) == {"mykeyholder": value}


def test_a_path_is_no_secret_because_of_a_name_that_may_mean_something_else(nothing_known, monkeypatch):
    monkeypatch.setenv("S3_KEY", "models/llama7/model.safetensors")
    monkeypatch.setenv("STORE_KEY", "models/llama7")
    monkeypatch.setenv("MODEL_PASSWORD", "models/gpt99")
    monkeypatch.setenv("OTHER_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    redact.learn_process()
    redact.learn_call("/data/models/llama7", {"cache_key": "data/models/llama7"})
    redact.learn_call("/data/models/gpt99", {})
    place = "/data/models/llama7/model.safetensors"
    assert redact.redact(place) == place
    assert redact.redact("/data/models/gpt99") == f"/data/{REMOVED}"
    assert redact.redact("x wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY") == f"x {REMOVED}"
    # By a name that can mean nothing else it becomes one.
    redact.learn_keywords({"password": "models/llama7"})
    assert redact.redact("models/llama7") == REMOVED


def test_a_list_of_arguments_is_a_command_line(nothing_known):
    given = {"args": ["--token", "g1ven-token", "-u", "me:p4ssword1", "--port", "8080"]}
    assert redact.redact_value(given) == {
        "args": ["--token", REMOVED, "-u", f"me:{REMOVED}", "--port", "8080"]
    }
    redact.learn_keywords({"args": ["--token", "an0ther-token"]})
    assert set(nothing_known.values()) == {"g1ven-token", "p4ssword1", "an0ther-token"}


def test_a_folder_that_is_called_like_an_assignment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret=5").mkdir()
    assert redact.redact_arguments(["load", "secret=5", "password=5"]) == [
        "load",
        "secret=5",
        f"password={REMOVED}",
    ]
