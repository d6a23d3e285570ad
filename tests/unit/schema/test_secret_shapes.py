"""What looks like a secret is taken out of any text, and what a trace says is left alone."""

import json
import time

import pytest

from hftrace.schema.redact import REMOVED, clean_line, clean_names, known, redact
from hftrace.schema.secrets.shapes import without_shapes

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PEM = (
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7bq\nxyz0123456789abcdef\n-----END RSA PRIVATE KEY-----"
)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("/data/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/model", "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"),
        ("cache_hf_QwErTyUiOpAsDfGhJkLzXcVbNmQwErTyUi", "QwErTyUiOpAsDfGhJkLzXcVbNmQwErTyUi"),
        ("key ASIAIOSFODNN7EXAMPLE.", "ASIAIOSFODNN7EXAMPLE"),
        ("sk-proj-abcDEF0123456789_abcdef-XYZ", "abcDEF0123456789"),
        ("sk-ant-api03-abcdefghijklmnop0123", "abcdefghijklmnop0123"),
        ("glpat-AbCdEfGhIjKlMnOpQrSt", "AbCdEfGhIjKlMnOpQrSt"),
        ("xoxb-123456789012-abcdefABCDEF", "abcdefABCDEF"),
        ("AIzaSyA1234567890abcdefghijklmnopqrstuv", "SyA1234567890"),
        (f"jwt {JWT} refused", "dozjgNryP4J3"),
        (PEM, "MIIEpAIBAAKCAQEA7bq"),
        (json.dumps(PEM), "xyz0123456789abcdef"),
        ("connect to svc:hunter2@db.internal:5432 failed", "hunter2"),
        ("svc:hunter2@localhost", "hunter2"),
        ("svc:hunter2@db:5432", "hunter2"),
        ("/mnt/user:hunter2pw@host:8080/model", "hunter2pw"),
        ("/x/admin:hunter2@host:80/y", "hunter2"),
        ("s3/x/admin:hunter2@files.example.org/y", "hunter2"),
        ("curl -u admin:letmein99 x", "letmein99"),
        ("POST https://hooks.slack.com/services/T0001/B0002/AbCdEf0123456789 failed", "AbCdEf0123456789"),
        ("https://discord.com/api/webhooks/123456789012345678/AbC-dEf_0123456789", "AbC-dEf_0123456789"),
        ("https://x.webhook.office.com/webhookb2/0a1b2c3d-0a1b@4e5f/IncomingWebhook/9f8e", "0a1b2c3d"),
        ("https://api.telegram.org/bot123456789:AAMindSIi1qzjq0ukEt3h8d3PnDrpmw995g/x", "AAMindSIi1qzj"),
        ("bot 123456789:AAMindSIi1qzjq0ukEt3h8d3PnDrpmw995g is gone", "AAMindSIi1qzj"),
        ("machine host login me password hunter2", "hunter2"),
        ("default login me password hunter2", "hunter2"),
        ("<server><password>hunter2</password></server>", "hunter2"),
        ("<c:clientSecret a='b'> hunter2 </c:clientSecret>", "hunter2"),
        ("env: {name: API_TOKEN, value: hunter2}", "hunter2"),
        ('[{"name": "API_TOKEN", "value": "hunter2"}]', "hunter2"),
        (json.dumps('{"key": "DB_PASSWORD","value":"hunter2"}'), "hunter2"),
        ('<add key="Password" value="hunter2"/>', "hunter2"),
        ('curl --user="admin:letmein99" x', "letmein99"),
        ("serve --password kartoffel7 --port 80", "kartoffel7"),
        ("serve --db-password 'two words' x", "two words"),
        ("serve --hf-token tok-99", "tok-99"),
        ("sshpass -p hunter2 ssh x", "hunter2"),
        ("docker login -u me -p hunter2 host", "hunter2"),
        ("mysql -u me -phunter2 db", "hunter2"),
        ("redis-cli -h x -a hunter2", "hunter2"),
        ("sk-lf-0123abcd-01ab-4def-8abc-0123456789ab", "4def-8abc"),
        ("sent Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("auth=Basic b3BhcXVlMTIz", "b3BhcXVlMTIz"),
        ("http://user:p/w:1@proxy:3128/x", "p/w:1"),
        ("https://oauth2:opaque-thing@git.example.org/x.git", "opaque-thing"),
        ("Authorization: opaque1", "opaque1"),
        ("Authorization: Digest username=\"x\", response='y123'", "username"),
        ("{'Authorization': 'Custom abc def'}", "abc def"),
        ("('authorization', 'opaque-1')", "opaque-1"),
        ("Cookie: session=opaque; other=more", "opaque"),
        ("x-api-key: opaque-1", "opaque-1"),
        ("Bearer opaquelowercase", "opaquelowercase"),
        ("connect(user='x', password='hunter')", "hunter"),
        ('{"client_secret": "hunter", "x": 1}', "hunter"),
        (json.dumps(json.dumps({"client_secret": "hunter"})), "hunter"),
        ('    client.login(api_key="opaque")', "opaque"),
        ("password=hunter22 for user x", "hunter22"),
        ("password: hunter22", "hunter22"),
        ("https://host/a#access_token=opaque&x=1", "opaque"),
        ("https://host/a?sv=1&sig=opaque%2F", "opaque"),
        ("AccountName=x;AccountKey=opaque0123==;EndpointSuffix=y", "opaque0123"),
    ],
)
def test_what_looks_like_a_secret(text, secret):
    cleaned, found = without_shapes(text)
    assert secret not in cleaned
    assert REMOVED in cleaned
    assert any(secret in value or value in text for value in found)


@pytest.mark.parametrize(
    "text",
    [
        "KeyError: 'model.layers.0.self_attn.k_proj.weight'",
        'Missing key(s) in state_dict: "model.layers.0.weight", "lm_head.weight".',
        "Unexpected key: model.layers.11.bias",
        "pad_token='<pad>', eos_token: '</s>', bos_token_id=1, max_new_tokens=20",
        "    return model_class.from_pretrained(path, token=token, use_auth_token=use_auth_token)",
        "    password = os.environ['DB_PASSWORD']",
        "    token = kwargs.pop('token', None)",
        "    secret = read_secret(path)[0]",
        "size mismatch for key_proj: copying a param with shape torch.Size([4, 4]) from checkpoint",
        "image python:3.11@sha256:0123456789abcdef",
        "git@github.com:org/repo.git",
        "http://localhost:8080/models/x@main/config.json",
        'File "/usr/lib/python3.11/transformers/modeling_utils.py", line 12, in from_pretrained',
        "transformers/models/llama/modeling_llama.py:123",
        "tokenizer: LlamaTokenizerFast, authors: many, passes: 3, pattern: model-*.safetensors",
        "the key to it: patience; auth: none; a pass: two",
        "/models/llama:7b@v1.2/x, /x/gpt-key:v2@prod, /hub/image:tag@sha256:0123456789abcdef",
        "sk-learn-model-embedding-large-2024",
        "sk-learn-contrib_model_embedding_large_2024",
        "auth-basic base64model12345678",
        "a basic LlamaModel2024 of two",
        "docker run -u 1000:1000 x; tool -u http://host:80",
        "pytest -p no:cacheprovider -p 8080; mkdir -p models/x1y2z3; mysql -p db",
        "usage: serve [--token TOKEN] [--password PASSWORD] --port 80; set --token or --api-key instead",
        "argument --token: expected one argument, --key layer1.conv2",
        "sk-learn-contrib-something, task-1234567890123456",
        "/opt/xai-models/fw_layers/r8_test",
    ],
)
def test_what_a_trace_says_is_left_alone(text):
    assert without_shapes(text) == (text, [])


def test_what_has_shown_itself_once_is_known_from_then_on():
    assert redact("postgres://u:Sh0wn-once@db/x") == f"postgres://{REMOVED}@db/x"
    assert redact("then Sh0wn-once again") == f"then {REMOVED} again"


def _encode(value):
    return json.dumps(value, separators=(",", ":"))


def test_a_line_of_a_journal_loses_its_secrets_and_nothing_else():
    line = [
        "end",
        3,
        12,
        [1, 2, None],
        "error",
        {"error": "password='hunter'", "tensors": 3, "keys": ["a", "b"]},
    ]
    expected = [
        "end",
        3,
        12,
        [1, 2, None],
        "error",
        {"error": f"password='{REMOVED}'", "tensors": 3, "keys": ["a", "b"]},
    ]
    assert json.loads(clean_line(line, _encode)) == expected
    assert clean_line(["begin", 1, "weights", "key"], _encode) == b'["begin",1,"weights","key"]'


def test_names_of_tensors_lose_what_can_be_no_name():
    known.learn("Qz81kfUw92LpX")
    line = b'["places",7,"model.Qz81kfUw92LpX.weight,norm.weight","AAECAwQFBgc="]'
    assert clean_names(line) == f'["places",7,"model.{REMOVED}.weight,norm.weight","AAECAwQFBgc="]'.encode()
    known.learn("layernorm.attention")
    same = b'["places",7,"model.layernorm.attention","AAEC"]'
    assert clean_names(same) is same


@pytest.mark.parametrize(
    "text",
    [
        *(
            "a:b@" * 5000,
            "://" * 7000 + "@",
            "password=" * 2000,
            "x-" * 10000 + " cookie",
            "token_" * 3000 + "=",
        ),
        *("token='" + "a\\" * 10000, "http://a:" + "b" * 20000 + "@", "u:" * 10000 + "@h.com", "eyJ" * 7000),
        *("/a:b" * 5000 + "@", "-u a:" * 4000, "--token " * 3000, "mysql " * 4000 + " -p ", "sk-a1" * 5000),
        *("auth=" * 5000 + "basic ", "/" + "a." * 10000 + ":b@", "--x" * 8000, "sk-" + "a-" * 10000),
        *("-----BEGIN PRIVATE KEY-----" * 700, "sk-" * 7000, "key:" * 5000, "token" + " " * 20000 + "="),
        *(
            "<a>xxxxxxx" * 2000 + "</",
            "machine x login y " * 1200 + "password ",
            "name: " + "a" * 20000 + " value",
        ),
        *("hooks.slack.com/services/" + "a/" * 10000, "machine x" + " " * 20000 + "password "),
    ],
    ids=lambda text: text[:12],
)
def test_no_text_takes_long(text):
    """A search that begins anew at each place would take minutes for these."""
    started = time.process_time()
    without_shapes(text)
    assert time.process_time() - started < 2
