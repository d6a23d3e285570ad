"""Nothing secret gets through, and nothing harmless is taken out."""

import json
import re

import pytest

from hftrace.schema.redact import (
    REMOVED,
    is_secret_name,
    redact,
    redact_arguments,
    redact_value,
    split_secrets,
)

TOKEN = "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"
OPAQUE = "0paque-Value.of.no-known/shape"


@pytest.mark.parametrize(
    "secret",
    [
        TOKEN,
        "hf_abcdefghijklmnopqrstuvwxyzabcdefgh",
        "hf_short1234",
        "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",
        "ghp_0123456789abcdefABCDEF0123456789abcd",
        "github_pat_11ABCDEFG0abcdefghij_0123456789abcdef",
        "AKIAIOSFODNN7EXAMPLE",
    ],
)
@pytest.mark.parametrize("text", ["{}", "token {} was refused", "a={}&b", '"{}"', "x/{}/y", "<{}>", "{},{}"])
def test_tokens_are_removed_wherever_they_stand(secret, text):
    assert redact(text.replace("{}", secret)) == text.replace("{}", REMOVED)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://user:pass@host/x", "https://[removed]@host/x"),
        ("http://user@host:8080", "http://[removed]@host:8080"),
        ("https://user:p@ss:w@host/x", "https://[removed]@host/x"),
        ("https://:pass@host", "https://[removed]@host"),
        ("see 'https://u:p@a/', or 'http://v:q@b/'", "see 'https://[removed]@a/', or 'http://[removed]@b/'"),
        ("https://host/a?token=abc&x=1", "https://host/a?token=[removed]&x=1"),
        (
            "https://cdn/f?Expires=1&Signature=abc~_-&Key-Pair-Id=K2&Policy=eyJ",
            "https://cdn/f?Expires=1&Signature=[removed]&Key-Pair-Id=[removed]&Policy=[removed]",
        ),
        (
            "https://s3/f?X-Amz-Credential=AK%2F1&X-Amz-Signature=00ff&X-Amz-Security-Token=t",
            "https://s3/f?X-Amz-Credential=[removed]&X-Amz-Signature=[removed]&X-Amz-Security-Token=[removed]",
        ),
        ("https://blob/f?sv=2024&sig=a%2Fb", "https://blob/f?sv=2024&sig=[removed]"),
        ("authorization: Bearer abcdefgh1234", "authorization: Bearer [removed]"),
        ("{'authorization': 'Basic dXNlcjpwYXNz'}", "{'authorization': 'Basic [removed]'}"),
    ],
)
def test_credentials_in_urls_and_headers_are_removed(text, expected):
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "meta-llama/Llama-2-7b-hf",
        "hf-internal-testing/tiny-random-LlamaForCausalLM",
        "hf_quantizer.preprocess_model(model=model, device_map=device_map)",
        "hf_device_map, hf_home, HF_HUB_OFFLINE=1",
        "https://huggingface.co/org/model/resolve/main/config.json?download=true",
        "https://host/path@v1/x and me@example.org",
        "a bearer of bad news; basic assumptions about Basic authentication",
        "model.layers.0.self_attn.q_proj.weight",
        "pad_token_id=0, tokenizer=fast",
        "b24fabdb585ed68953e2cee9825b139bf3bc216b",
    ],
)
def test_ordinary_text_is_left_alone(text):
    assert redact(text) == text


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
def test_the_value_of_the_token_variable_is_removed_whatever_it_looks_like(monkeypatch, name):
    monkeypatch.setenv(name, OPAQUE)
    assert redact(f"refused: {OPAQUE}!") == f"refused: {REMOVED}!"
    assert redact_value({"message": [OPAQUE]}) == {"message": [REMOVED]}


def test_a_token_variable_too_short_to_be_one_does_not_eat_text(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "test")
    assert redact("the test of tests") == "the test of tests"


@pytest.mark.parametrize(
    "name",
    [
        *("token", "use_auth_token", "hf_token", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "access_token"),
        *(
            "api_key",
            "apikey",
            "AWS_SECRET_ACCESS_KEY",
            "password",
            "passwd",
            "authorization",
            "Authorization",
        ),
        *("credentials", "client_secret", "private_key", "X-Amz-Security-Token", "proxy_auth", "my_token"),
        *("tokenizer_auth_token", "X-Amz-Signature"),
    ],
)
def test_secret_names(name):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("tokenizer", "tokenizer_class", "tokenizer_name", "TOKENIZERS_PARALLELISM", "add_tokens_drop"),
        *("pad_token_id", "bos_token", "eos_token", "pad_token", "unk_token", "mask_token", "image_token"),
        *("decoder_start_token_id", "forced_bos_token_id", "additional_special_tokens", "suppress_tokens"),
        *("max_new_tokens", "max_tokens", "num_tokens", "split_special_tokens", "token_type_ids"),
        *("image_token_index", "tokens_per_second", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "author", "keys"),
        *("attn_implementation", "dtype", "revision", "HF_HOME", "_commit_hash"),
    ],
)
def test_harmless_names(name):
    assert not is_secret_name(name)


def test_values_under_secret_names_are_removed_at_any_depth():
    value = {
        "token": OPAQUE,
        "headers": {"Authorization": OPAQUE, "accept": "*/*"},
        "list": [{"password": OPAQUE}, f"https://u:{OPAQUE.replace('/', '-')}@host"],
        "tuple": ({"api_key": [OPAQUE, {"deep": OPAQUE}]},),
        TOKEN: 1,
    }
    text = json.dumps(redact_value(value))
    assert "0paque" not in text
    assert TOKEN not in text
    assert json.loads(text)["headers"] == {"Authorization": REMOVED, "accept": "*/*"}


@pytest.mark.parametrize("value", [None, True, False, 0, 7, 1.5, "x", [], {}, {"a": [1, "b", None]}])
def test_values_without_secrets_stay_what_they_are(value):
    assert redact_value(value) == value


def test_use_the_stored_token_is_no_secret():
    assert redact_value({"token": True, "use_auth_token": None}) == {"token": True, "use_auth_token": None}


def test_values_are_json_afterwards():
    class Strange:
        def __str__(self):
            return f"Strange({TOKEN})"

    assert redact_value([float("nan"), float("inf"), Strange(), b"x", (1,)]) == [
        "nan",
        "inf",
        f"Strange({REMOVED})",
        "b'x'",
        [1],
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--token", OPAQUE], ["--token", REMOVED]),
        (["--token", OPAQUE, "--dtype", "auto"], ["--token", REMOVED, "--dtype", "auto"]),
        ([f"--token={OPAQUE}"], [f"--token={REMOVED}"]),
        (["--hf-token", "-dash-first"], ["--hf-token", REMOVED]),
        (["--token", "--json"], ["--token", "--json"]),
        (["--kwarg", f"token={OPAQUE}"], ["--kwarg", f"token={REMOVED}"]),
        ([f"--kwarg=token={OPAQUE}"], [f"--kwarg=token={REMOVED}"]),
        ([f'--kwarg=token="{OPAQUE}"'], [f"--kwarg=token={REMOVED}"]),
        (["HF_TOKEN=" + OPAQUE], ["HF_TOKEN=" + REMOVED]),
        (["--kwarg", f"x={TOKEN}"], ["--kwarg", f"x={REMOVED}"]),
        (["https://u:p@host/org/model"], [f"https://{REMOVED}@host/org/model"]),
    ],
)
def test_command_lines(given, expected):
    assert redact_arguments(["hftrace", "load", *given]) == ["hftrace", "load", *expected]


@pytest.mark.parametrize("form", ["--kwarg={}", "{}", "-x={}"])
def test_json_on_a_command_line(form):
    given = form.format(f"headers={json.dumps({'authorization': OPAQUE, 'accept': '*/*'})}")
    (argument,) = redact_arguments([given])
    assert OPAQUE not in argument
    value = json.loads(re.search(r"\{.*\}", argument).group())
    assert value == {"authorization": REMOVED, "accept": "*/*"}


@pytest.mark.parametrize(
    "argument",
    [
        "--kwarg=pad_token_id=0",
        "--kwarg=tokenizer=fast",
        "max_new_tokens=5",
        '--max-memory={"cpu": "10GB",  "0": "20GB"}',
        "{broken json",
        "--dtype=bfloat16",
        "org/model",
        "a=b=c",
        "=",
        "--",
        "",
    ],
)
def test_harmless_arguments_stay(argument):
    assert redact_arguments([argument, "next"]) == [argument, "next"]


def test_keywords_are_divided_into_public_and_secret_ones():
    public, secret = split_secrets(
        {
            "token": OPAQUE,
            "proxies": {"https": "https://u:p@host"},
            "dtype": "auto",
            "device_map": {"": "cpu"},
            "max_memory": {"0": 5},
            "revision": None,
        }
    )
    assert secret == {"token": OPAQUE, "proxies": {"https": "https://u:p@host"}}
    assert public == {"dtype": "auto", "device_map": {"": "cpu"}, "max_memory": {"0": 5}, "revision": None}
    assert split_secrets({"token": True}) == ({"token": True}, {})
