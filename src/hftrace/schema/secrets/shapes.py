"""Secrets that show by their shape, whatever they are called: tokens, keys, credentials in URLs, headers.

Each rule has words of which one is in every text that it applies to: text without them, which is nearly
all, costs a few searches for a word.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import NamedTuple

from hftrace.schema.secrets.names import is_secret_name, is_strong_name
from hftrace.schema.secrets.parts import decoded_pair
from hftrace.schema.secrets.rules import Lazy, listed

REMOVED = "[removed]"
LONGEST_SHAPE = 4200
"""No rule needs more characters to tell where a secret ends; those without an end go on to a text's."""
MIN_ASSIGNED = 4
"""What is assigned to a secret's name in a text is taken out from this length on."""

MIN_USER_TOKEN = 12
"""The user of a URL is a secret too from this length on, where it has digits."""

Found = list[str]


class _Rule(NamedTuple):
    triggers: tuple[str, ...]
    lazy: Lazy
    replace: Callable[[re.Match[str], Found], str]
    """Returns what stands there instead, and adds the secrets to what was found."""


def _whole(match: re.Match[str], found: Found) -> str:
    found.append(match.group())
    return REMOVED


_TOKENS = Lazy(
    r"""
    # Hugging Face user tokens; hf_quantizer and other words of source code are none.
    (?<![A-Za-z0-9])hf_(?![a-z]{1,19}(?![A-Za-z0-9]))[A-Za-z0-9]{8,}
    | hf_[A-Za-z0-9]{30,}
    | api_org_[A-Za-z0-9]{8,}                                    # and those of organisations
    | gh[pousr]_[A-Za-z0-9]{16,} | github_pat_[A-Za-z0-9_]{16,}  # GitHub
    | glpat-[A-Za-z0-9_-]{16,}                                   # GitLab
    | (?<![A-Za-z0-9])A(?:KIA|SIA|ROA|IDA)[0-9A-Z]{16}(?![A-Za-z0-9])  # AWS
    # OpenAI, Anthropic: one run of letters and digits is long; between the dashes of a name are words.
    | (?<![A-Za-z0-9])sk-(?=[A-Za-z0-9_-]{16})(?=(?:[A-Za-z0-9]{0,30}[_-]){0,12}(?:
        (?=[A-Za-z]{0,60}[0-9])(?=[0-9]{0,60}[A-Za-z])[A-Za-z0-9]{20}
        | (?=[A-Z0-9]{0,60}[a-z])(?=[a-z0-9]{0,60}[A-Z])(?=[A-Za-z]{0,60}[0-9])[A-Za-z0-9]{16}
        | [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-
      ))[A-Za-z0-9_-]+
    | (?<![A-Za-z0-9])(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{10,}      # Stripe
    | xox[abeoprs]-[A-Za-z0-9-]{10,}                             # Slack
    | AIza[A-Za-z0-9_-]{30,} | ya29\.[A-Za-z0-9_-]{16,}          # Google
    | npm_[A-Za-z0-9]{30,} | pypi-Ag[A-Za-z0-9_-]{30,}           # package registries
    | dckr_pat_[A-Za-z0-9_-]{16,} | dop_v1_[a-f0-9]{32,}
    | (?<![A-Za-z0-9])(?:r8|gsk|nvapi|pplx|fw|tgp_v1|xai)[_-](?=[A-Za-z0-9_-]{0,40}[0-9])[A-Za-z0-9_-]{20,}
    | (?<![A-Za-z0-9])SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,} # SendGrid
    | (?<![A-Za-z0-9])\d{8,10}:AA[A-Za-z0-9_-]{33}(?![A-Za-z0-9_-])      # Telegram
    | (?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)*  # JWT
    """,
    re.VERBOSE,
)
_TOKEN_TRIGGERS = listed(
    "hf_ api_org_ ghp_ gho_ ghu_ ghs_ ghr_ github_pat_ glpat- AKIA ASIA AROA AIDA sk- _live_ _test_ xox AIza "
    ":AA ya29. npm_ pypi-Ag dckr_pat_ dop_v1_ r8_ gsk_ nvapi- pplx- fw_ tgp_v1_ xai- SG. eyJ"
)

_PEM = Lazy(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?"
    r"(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)
_SCHEMES = Lazy(
    r"(?<![A-Za-z])((?i:token|apikey|splunk|negotiate) +)"
    r"(?=[A-Za-z_~+/=-]*[0-9])(?=[0-9_~+/=-]*[A-Za-z])([A-Za-z0-9_~+/=-]{16,})"
)
_LOWER_BEARER = Lazy(r"(?<=[Bb]earer )([A-Za-z0-9._~+/=-]{8,})")
_BASIC = Lazy(
    r"((?i:auth[a-z]{0,20})\\?[\"']?\s{0,3}[:=,]\s{0,3}\\?[\"']?|(?<![A-Za-z]))((?i:basic) )"
    r"(?=[A-Za-z0-9+/_-]*[0-9A-Z+/])([A-Za-z0-9+/_-]{8,}={0,2})"
)

# A colon before any slash says that a password follows, which may hold a slash; a port is none.
_URL_CREDENTIALS = Lazy(
    r"(?<=://)(?:[^/\s?#\"'<>@:]{0,200}:(?!\d{1,5}(?:[/?#]|$))[^\s\"'<>]{0,500}?(?=@[\w.\[\]-])"
    r"(?:@[^/\s?#\"'<>]{0,200}(?=@))?|[^/\s?#\"'<>]{0,500})(?=@)"
)
_BARE_CREDENTIALS = Lazy(
    r"(?<![\w/@.%+-])([\w.%+-]{1,200}:(?!/)[^\s:/@\"'<>,;()\[\]{}]{1,500}(?:@[^\s:/@\"'<>,;()]{1,100}){0,3}?)"
    r"(?=@(?!sha\d)(?:(?:[A-Za-z0-9-]{1,63}\.){1,9}[A-Za-z0-9-]{1,63}|localhost|[A-Za-z0-9-]{1,63}:\d+)(?![\w@]))"
)
# Below a folder a version may follow a name, "llama:7b@v1": a host has a port there, or a known ending.
_PATH_CREDENTIALS = Lazy(
    r"(?<=/)([\w.%+-]{1,100}:(?!/)[^\s:/@\"'<>,;()\[\]{}]{1,200}(?:@[^\s:/@\"'<>,;()]{1,100}){0,2}?)"
    r"(?=@(?!sha\d)(?:[A-Za-z0-9.-]{1,200}:\d{1,5}|localhost"
    r"|(?:[A-Za-z0-9-]{1,63}\.){1,9}(?:com|org|net|io|ai|dev|co|cloud|edu|gov|local|internal|lan|corp))"
    r"(?![\w@.-]))"
)
_QUERY = Lazy(r"([?&#;]([\w.~-]{1,60})=)([^&\s\"'<>#;]+)")
_QUERY_WORDS = ("policy",)

_HEADER = Lazy(
    r"(?i)(?<![A-Za-z])((?:proxy-)?authorization|(?:set-)?cookie|x-[a-z0-9-]{0,40}(?:key|token|auth|secret|signature))"
    r"(\\?[\"']?\s{0,3}[:=,]\s{0,3}(?:b?\\?[\"'])?)"
    r"((?:(?:bearer|basic|token|digest|negotiate|apikey)\ +)?)"
    r"(?!\[removed\])([^\r\n\"'\\]+)"
)

_NAMED = Lazy(
    r"""
    (?<![A-Za-z0-9_.-])
    (--?[A-Za-z][\w.-]{0,60}|[A-Za-z_][\w.-]{0,60})          # a name
    (\\?["']?\ {0,2}(?::\ {0,3}|=>?\ {0,3}))                              # which may be a key of a dictionary
    (?:
      [rbfuRBFU]{0,2}\\?(?P<quote>["'])(?P<quoted>(?:(?!(?P=quote))[^\r\n\\]|\\(?!["'])[^\r\n]){1,4000})\\?(?P=quote)
      | (?P<bare>[^\s"',;&()\[\]{}<>=]{1,500})(?=[\s"',;&)\]}>]|$)
    )
    """,
    re.VERBOSE,
)
_NAME_WORDS = listed("token secret pass pwd pw cred auth key cookie jwt bearer signature sas pat phrase")
"""One of them is in each name that such a rule applies to, in small letters."""


def _after_scheme(match: re.Match[str], found: Found) -> str:
    found.append(match.group(2))
    return f"{match.group(1)}{REMOVED}"


def _after_basic(match: re.Match[str], found: Found) -> str:
    header, scheme, value = match.groups()
    if not header and decoded_pair(value) is None:
        return match.group()  # words
    found.append(value)
    return f"{header}{scheme}{REMOVED}"


def _after_bearer(match: re.Match[str], found: Found) -> str:
    found.append(match.group(1))
    return REMOVED


def _userinfo(match: re.Match[str], found: Found) -> str:
    user, colon, password = match.group().partition(":")
    found.append(password if colon else user)
    # A token stands in the user's place, too, with anything for a password.
    if len(user) >= MIN_USER_TOKEN and any(map(str.isdigit, user)):
        found.append(user)
    return REMOVED


def _in_query(match: re.Match[str], found: Found) -> str:
    name = match.group(2)
    if not (is_secret_name(name) or name.lower() in _QUERY_WORDS):
        return match.group()
    found.append(match.group(3))
    return f"{match.group(1)}{REMOVED}"


def _of_header(match: re.Match[str], found: Found) -> str:
    name, between, scheme, value = match.groups()
    if REMOVED in value or len(value) < MIN_ASSIGNED:
        return match.group()
    rest = ""
    bare = not between.rstrip().endswith(("'", '"'))
    if bare and "cookie" not in name.lower() and not value.startswith(("AWS4", "Digest")):
        # The rest of the line is somebody else's sentence.
        value, space, rest = value.partition(" ")
        rest = space + rest
    found.append(value.strip())
    return f"{name}{between}{scheme}{REMOVED}{rest}"


# Options within a text. Behind "-u" is a user with a password; "-p" is one of too many things but for these.
_USER_OPTION = Lazy(
    r"((?<![\w-])(?:-[uU]|--(?:proxy-)?user)(?:\ {1,3}|=)\\?[\"']?[^\s:\"'\\/]{1,100}:)"
    r"(?!//|\d+(?!\S))([^\s\"'\\]{1,500})"
)
_LONG_OPTION = Lazy(
    r"((?<![\w-])--([A-Za-z][\w.-]{0,60})\ {1,3})"
    r"(?:\\?(?P<quote>[\"'])((?:(?!(?P=quote))[^\r\n\\]){1,1000})(?P=quote)"
    r"|([^\s\"'\\,;<>(){}\[\]$-][^\s\"'\\<>\]]{0,500}))"
)
_SHORT_OPTION = Lazy(
    r"((?<![\w-])(?:sshpass|(?:docker|podman|oras) login|mongo(?:sh|dump|restore)?|twine upload)\ "
    r"(?:[^\r\n|;&]{0,200}?\ )?-p\ {0,2}|(?<![\w-])redis-cli\ (?:[^\r\n|;&]{0,200}?\ )?-a\ {1,2}"
    r"|(?<![\w-])(?:mysql|mariadb)[a-z-]{0,12}\ (?:[^\r\n|;&]{0,200}?\ )?-p)(?!\ )"
    r"\\?[\"']?([^\s\"'\\]{3,200})"
)
_WORDS_OF_SENTENCES = frozenset(
    listed("""
    a an the to is are was were be has have had of or and nor but for from in on at as by with without if when
    not no must may can cannot should could will would option argument flag value expected expects requires
    required instead given set use used using and/or only too again here there this that it its you your
    """)
)


_WEBHOOK = Lazy(
    r"((?i:hooks\.slack\.com/(?:services|workflows|triggers)/(?:[A-Za-z0-9_-]{1,40}/){0,4}"
    r"|discord(?:app)?\.com/api/(?:v\d{1,2}/)?webhooks/\d{5,25}/|\.webhook\.office\.com/webhookb2/"
    r"|api\.telegram\.org/(?:file/)?bot))([A-Za-z0-9_:@/-]{16,300})"
)
"""Who has the address may write there."""
_NETRC = Lazy(
    r"((?<![\w-])(?:machine\s+\S{1,200}|default)\s+(?:(?:login|account)\s+\S{1,200}\s+){0,2}password\s+)"
    r"(\S{3,500})"
)
_ELEMENT = Lazy(
    r"(<(?:[\w.-]{1,40}:)?([A-Za-z_][\w.-]{0,60})(?:\s[^<>]{0,200})?>\s{0,20})([^<>]{4,1000}?)"
    r"(?=\s{0,20}</(?:[\w.-]{1,40}:)?\2>)"
)
# A name beside its value, as manifests have it: {"name": "API_TOKEN", "value": "X"}.
_PAIRED = Lazy(
    r"((?<![A-Za-z])(?:name|key)\\?[\"']?\s{0,3}[:=]\s{0,3}\\?[\"']?([A-Za-z_][\w.-]{0,80})\\?[\"']?,?\s{0,20}"
    r"(?:-\s)?\\?[\"']?value\\?[\"']?\s{0,3}[:=]\s{0,3}\\?[\"']?)([^\s\"'\\<>,;{}]{4,500})"
)


def _after_option(match: re.Match[str], found: Found) -> str:
    found.append(match.group(2))
    return f"{match.group(1)}{REMOVED}"


def _beside_name(match: re.Match[str], found: Found) -> str:
    before, name, value = match.groups()
    if not is_secret_name(name) or REMOVED in value or value.lower() in HARMLESS:
        return match.group()
    if not is_strong_name(name) and not looks_random(value):
        return match.group()
    found.append(value)
    return f"{before}{REMOVED}"


def _after_long_option(match: re.Match[str], found: Found) -> str:
    before, name, _, quoted, bare = match.groups()
    value = str(quoted or bare)
    words, names = value.strip(".:,;!?").lower(), name.lower().replace("-", "_")
    # The name of the value, as a help text has it, or the next word of a sentence.
    if words in _WORDS_OF_SENTENCES or (value.isupper() and value.lower() in names) or REMOVED in value:
        return match.group()
    if not is_secret_name(name) or not (is_strong_name(name) or ("." not in value and looks_random(value))):
        return match.group()
    if not value.isalpha():
        found.append(value)
    return f"{before}{REMOVED}"


_CODE = Lazy(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
"""An attribute of a variable stands there, and no value."""


def _under_name(match: re.Match[str], found: Found) -> str:
    name = match.group(1)
    quoted, bare = match.group("quoted"), match.group("bare")
    value = quoted if quoted is not None else bare
    if len(value) < MIN_ASSIGNED or REMOVED in value or not is_secret_name(name.lstrip("-")):
        return match.group()
    if not is_strong_name(name.lstrip("-")) and not looks_random(value):
        return match.group()
    if bare is not None and (
        _CODE.pattern.fullmatch(bare) or not any(map(str.isdigit, bare)) or bare.isdigit()
    ):
        return match.group()
    if quoted is not None and (quoted[0] in "<[{" or quoted.lower() in HARMLESS):
        return match.group()
    found.append(value)
    start, end = match.span("quoted" if quoted is not None else "bare")
    whole, at = match.group(), match.start()
    return f"{whole[: start - at]}{REMOVED}{whole[end - at :]}"


HARMLESS = frozenset(
    listed("""
    true false none null auto default yes no on off basic bearer digest token tokens password passwd secret
    string str bytes int float bool dict list tuple object type name value values path file
    float16 float32 float64 bfloat16 float8_e4m3fn float8_e5m2 int8 int16 int32 int64 uint8 fp16 fp32 bf16
    half double long cpu cuda cuda:0 cuda:1 disk meta mps xpu npu balanced balanced_low_0 sequential eager
    sdpa flash_attention_2 flash_attention_3 flex_attention main master refs/pr/1 safetensors pytorch torch
    transformers huggingface tokenizer tokenizers model models weights weight config python python3 import
    disabled enabled subprocess keyring example localhost pretrained attention embedding embeddings hidden
    linear decoder encoder layers layernorm generation checkpoint checkpoints pytorch_model model_type
    """)
)
"""Words that are never taken for a secret's value, whatever they stand under: a trace is full of them."""

_RULES: tuple[_Rule, ...] = (
    _Rule(("-----BEGIN",), _PEM, _whole),
    _Rule(_TOKEN_TRIGGERS, _TOKENS, _whole),
    _Rule(("@",), _URL_CREDENTIALS, _userinfo),
    _Rule(("@",), _BARE_CREDENTIALS, _userinfo),
    _Rule(("@",), _PATH_CREDENTIALS, _userinfo),
    _Rule(("=",), _QUERY, _in_query),
    _Rule(("hooks.slack.com/", "webhook", "api.telegram.org/"), _WEBHOOK, _after_option),
    _Rule(("</",), _ELEMENT, _beside_name),
)
_RULES_OF_WORDS: tuple[_Rule, ...] = (
    _Rule(("authorization", "cookie", "x-"), _HEADER, _of_header),
    _Rule(("bearer ",), _LOWER_BEARER, _after_bearer),
    _Rule(("token ", "apikey ", "splunk ", "negotiate "), _SCHEMES, _after_scheme),
    _Rule(("basic ",), _BASIC, _after_basic),
    _Rule(_NAME_WORDS, _NAMED, _under_name),
    _Rule(("-u ", "-u=", "--user", "--proxy-user"), _USER_OPTION, _after_option),
    _Rule(("--",), _LONG_OPTION, _after_long_option),
    _Rule((" -p", " -a "), _SHORT_OPTION, _after_option),
    _Rule(("password ",), _NETRC, _after_option),
    _Rule(("value",), _PAIRED, _beside_name),
)
"""Those whose words are looked for in small letters."""


def _holds(text: str, words: tuple[str, ...]) -> bool:
    for word in words:  # noqa: SIM110 (a generator takes twice as long)
        if word in text:
            return True
    return False


def without_shapes(text: str) -> tuple[str, Found]:
    """Returns a text without what looks like a secret in it, and what was taken out."""
    found: Found = []
    for rule in _RULES:
        if _holds(text, rule.triggers):
            text = _applied(rule, text, found)
    if " " in text or ":" in text or "=" in text:
        small = text.lower()
        for rule in _RULES_OF_WORDS:
            if _holds(small, rule.triggers):
                text = _applied(rule, text, found)
    return text, found


def _applied(rule: _Rule, text: str, found: Found) -> str:
    return rule.lazy.pattern.sub(lambda match: rule.replace(match, found), text)


_RUN = Lazy(r"[A-Za-z0-9_+/=.~!@#$%^&*-]{12,}")


def looks_random(text: str) -> bool:
    """Returns whether a value has the looks of a generated secret: long, of digits and letters, one word.

    Paths, names of models, versions, URLs and numbers have not.
    """
    text = text.strip()
    if not _RUN.pattern.fullmatch(text) or text.lower() in HARMLESS:
        return False
    if text.startswith(("/", "./", "~", "http")) or "://" in text or text.count(".") > 2:
        return False
    digits = sum(map(str.isdigit, text))
    letters = sum(map(str.isalpha, text))
    if digits < 2 or letters < 4:
        return False
    # A model's name has digits too, between its words; a generated value has them anywhere.
    changes = sum(_changes(left, right) for left, right in itertools.pairwise(text))
    return changes * 6 >= digits + letters


def _changes(left: str, right: str) -> bool:
    """Returns whether two characters are letter and digit, or a small letter and a capital one."""
    return (left.isdigit() and right.isalpha()) or (
        left.isalpha() and (right.isdigit() or (left.islower() and right.isupper()))
    )
