"""A name is read word by word: what only sounds like a secret is none."""

import pytest

from hftrace.schema.secrets.names import is_secret_name, is_strong_name, is_suspect_name, words_of


def test_a_name_is_read_word_by_word_however_it_is_written():
    for name in (
        "accessKeyId",
        "ACCESS_KEY_ID",
        "access-key-id",
        "AccessKeyId",
        "access.key.id",
        "access key id",
    ):
        assert words_of(name) == ("access", "key", "id")


@pytest.mark.parametrize(
    "name",
    [
        *("key", "api_key", "apiKey", "X-Api-Key", "account_key", "AWS_ACCESS_KEY_ID", "ssh-key", "hostkey"),
        *("pass", "password", "passwd", "db_pass", "PGPASSWORD", "MYSQL_PWD", "pwd", "userPwd", "passcode"),
        *(
            "passphrase",
            "phrase",
            "seed_phrase",
            "pat",
            "GITHUB_PAT",
            "azurePat",
            "jwt",
            "JWT_ASSERTION",
            "authjwt",
        ),
        *("bearer", "bearer_value", "cookie", "cookies", "Set-Cookie", "session_cookie", "cred", "creds"),
        *(
            "credential",
            "aws_credentials",
            "sas",
            "sas_url",
            "SAS_TOKEN",
            "secret",
            "client-secret",
            "secrets",
        ),
        *(
            "auth",
            "basic_auth",
            "authorization",
            "Proxy-Authorization",
            "oauth",
            "oauth2_token",
            "X-Auth-Token",
        ),
        *(
            "token",
            "hf_token",
            "use_auth_token",
            "wandbtoken",
            "signature",
            "sig",
            "privateKey",
            "licence_key",
        ),
    ],
)
def test_what_is_called_a_secret(name):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "pad_token",
            "bos_token_id",
            "max_new_tokens",
            "tokenizer",
            "tokenizer_class",
            "cls_token",
            "tokens",
        ),
        *("key_mapping", "num_key_value_heads", "past_key_values", "keys_to_ignore_on_save", "key_dim"),
        *(
            "missing_keys",
            "state_dict_keys",
            "keyword",
            "keywords",
            "use_key",
            "key_padding_mask",
            "keyboard",
        ),
        *(
            "passes",
            "num_passes",
            "forward_pass",
            "pass_through",
            "bypass",
            "compass",
            "path",
            "pathlib",
            "PATH",
        ),
        *("compat", "pattern", "patterns", "patch_size", "spatial_merge_size", "dispatch", "dispatch_model"),
        *(
            "author",
            "authors",
            "monkey",
            "monkeypatch",
            "paraphrase",
            "use_cache",
            "disaster",
            "PWD",
            "OLDPWD",
        ),
        *(
            "cache_dir",
            "revision",
            "device_map",
            "dtype",
            "_attn_implementation",
            "low_cpu_mem_usage",
            "model",
        ),
        *("offload_folder", "trust_remote_code", "quantization_config", "forward_signature", "stop_phrases"),
    ],
)
def test_what_only_sounds_like_one(name):
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["mykeyvalue", "compassword", "mykeyholder", "tokenish", "credo", "sasha", "authy"]
)
def test_a_name_that_holds_such_a_word_is_suspect(name):
    assert is_suspect_name(name)


@pytest.mark.parametrize(
    "name", ["path", "patterns", "compat", "monkey", "dispatch", "authors", "keyboard", "tokenizer", "PWD"]
)
def test_words_that_are_known_to_be_harmless_are_not_suspect(name):
    assert not is_suspect_name(name)


def test_a_key_in_a_text_may_be_anything_and_a_password_may_not():
    assert is_strong_name("password")
    assert is_strong_name("api_key")
    assert not is_strong_name("key")
    assert not is_strong_name("pass")
