"""Which names stand for secrets: of keywords, variables, options, headers, and parameters of URLs.

A name is read word by word (``accessKey``, ``ACCESS_KEY`` and ``access-key`` are two words), because
what a secret is called is a part of many harmless names: ``monkey``, ``passes``, ``compat``, ``pad_token``.
"""

from __future__ import annotations

import functools
from re import IGNORECASE, VERBOSE

from hftrace.schema.secrets.rules import Lazy, listed

_WORDS = Lazy(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

SECRET_WORDS = frozenset(
    listed("""
    token tokens secret secrets password passwords passwd passcode passphrase passphrases pass pwd pw psw
    pat pats jwt jwts bearer cookie cookies cred creds credential credentials sas phrase phrases
    auth oauth authorization authentication authorisation signature sig apikey apikeys key private
    """)
)
"""Words that make a name one of a secret."""
_STEMS = Lazy(
    r"passw|passphrase|passcode|secret|credential|authoriz|authenticat|bearer|cookie"
    r"|(?:api|access|private|secret|ssh|auth|account|master|shared|encryption|signing|license|service|host)keys?$"
    r"|(?:auth|access|api|hub|hf|id|user|session|refresh|security|github|gh|gitlab|bot|my|deploy|wandb)tokens?$"
    r"|(?:db|pg|my|user|root|admin|smtp|redis|sql|mysql|ftp|login|sudo|ssh|http|proxy)(?:pass|pwd|pw)$"
    r"|^jwt|jwt$|^oauth|seedphrase"
)
"""Words that were written together, and hold one of these without any doubt."""

_HARMLESS_TOKEN = Lazy(
    r"""
    tokeniz                                  # tokenizer, TOKENIZERS_PARALLELISM
    | tokens?_(ids?|idx|index|type|per|pos|embed|dim|size|length|count|counts|limit|drop|class|classification
        |mask|level|merge|shift|len|num|dropout|usage|budget|strategy|probs?|logits|choice)(_|$)
    | [a-z0-9]_tokens(_|$)                   # max_new_tokens, additional_special_tokens
    | (^|_)(bos|eos|unk|sep|pad|cls|mask|image|img|video|audio|vision|boi|eoi|eot|start|end|stop|prefix|suffix
        |middle|special|added|decoder|language|task|next|first|last|new|per|sub|word|text|query|speaker
        |tool|role|object|patch|class|dist|reg|distillation|separator|padding|no|timestamp|timestamps)_token(_|$)
    | implicit_token
    """,
    VERBOSE,
)
_TOKEN_OF_ITS_OWN = Lazy(r"(auth|access|api|hub|hf)_token")
_HARMLESS_KEY = Lazy(
    r"""
    (^|_)keys?_(mapping|map|value|values|query|padding|dims?|heads?|len|length|lengths|states?|cache|proj
        |projection|layers?|norm|error|words?|names?|types?|sizes?|rename|renames|renaming|prefix|prefixes
        |suffix|replacements?|patterns?|to|order|format|points?|frames?|board|bias|mask|masks|conv|fn|func|function
        |columns?|field|fields|index|indices|idx|list|count|multi|axis|rotary|embed|embedding|scale|features
        |is|in|on|of|from|for|as|not|shard|shards)(_|$)
    | (^|_)(past|state|dict|state_dict|missing|unexpected|mismatched|ignore|ignored|ignored?_mismatched|query
        |num|primary|foreign|sort|partition|group|row|column|unique|index|cache|lookup|join|model|checkpoint
        |weight|param|parameter|config|label|dataset|data|image|text|input|inputs|output|outputs|shortcut
        |hot|per|n|head|attention|attn|cross|self|rel|relative|register|main|first|last)_keys?(_|$)
    | use_key | keyword | (^|_)keys(_|$)
    """,
    VERBOSE,
)
_REALLY_KEYS = Lazy(
    r"(^|_)(api|access|secret|private|ssh|auth|account|master|shared|encryption|signing)_keys?(_|$)"
)
_HARMLESS_PASS = Lazy(
    r"""
    (^|_)pass_(through|thru|on|by|to|count|number|num|rate|filter|kwargs|args|model|inputs?|outputs?|config
        |all|n|index|idx|name|manager|managers|if)(_|$)
    | (^|_)(forward|backward|single|multi|two|one|first|second|last|low|high|band|num|n|by|model|full|each
        |warmup|extra|compile|fusion|pre|post|all|per)_pass(_|$)
    """,
    VERBOSE,
)
_HARMLESS_OTHERS = Lazy(
    r"""
    (^|_)(private|auth)_(api|mode|type|method|methods|scheme|use|dtype|attr|attributes|modules?|prefix|enabled
        |repo|pool|pools|backend|provider)(_|$)
    | (^|_)(is|make|allow|use)_private(_|$)
    | (^|_)(function|call|method|forward|model|input|default|op|serving)_(signature|sig)(_|$)
    | (^|_)signature_(columns?|name|def|defs|fn)(_|$)
    | (^|_)(key|noun|verb|target|task|trigger|stop|wake|end|prompt)_phrases?(_|$)
    | (^|_)phrases?_(length|len|list|matcher|score)(_|$)
    """,
    VERBOSE,
)
_EXACTLY_HARMLESS = frozenset({"hf_hub_disable_implicit_token", "keys", "tokens", "phrases", "ssh_auth_sock"})
"""A switch, a place, and plurals that are lists of anything."""
_WHERE_THE_SHELL_STANDS = ("PWD", "OLDPWD")

_SUSPECT = Lazy(
    r"token|key|pass|pwd|pat|jwt|bearer|cookie|cred|sas|secret|phrase|auth|private|signature", IGNORECASE
)
_HARMLESS_WORDS = frozenset(
    listed("""
    path paths pattern patterns patch patches patience compat compatible compatibility compatibilities
    dispatch dispatched dispatcher author authors authored authority monkey monkeys keyboard keyboards
    keyword keywords keynote keypoint keypoints keyframe keyframes keyed passes passed passing passage
    passages passive passthrough bypass compass surpass pathlib participation participant particle
    partial party spatial spatially batch repatch hotkey turkey donkey hockey occupation update
    tokenizer tokenizers tokenize tokenized tokenization tokenise disaster sass sassy paraphrase
    paraphrases paraphrasing rephrase filepath filepaths basepath rootpath datapath syspath pythonpath
    ldpath classpath homepath xpath relpath abspath realpath subpath pathname pathnames modelpath
    cachepath usecase depatch incompatible keys tokens phrases pat_match
    """)
)


@functools.lru_cache(maxsize=4096)
def words_of(name: str) -> tuple[str, ...]:
    """Returns the words of a name in small letters: ``access`` and ``key`` of ``accessKey``."""
    return tuple(word.lower() for word in _WORDS.pattern.findall(name[:200]))


@functools.lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Returns whether what stands under this name is a secret, whatever it looks like."""
    words = words_of(name)
    plain = "_".join(words)
    if plain in _EXACTLY_HARMLESS or name in _WHERE_THE_SHELL_STANDS:
        return False
    rest = set(words)
    if "token" in plain and _HARMLESS_TOKEN.search(plain):
        rest -= {"token", "tokens"}
        if any(word.startswith("tokeniz") for word in rest):
            # The tokenizer's own token is one; the tokenizer is none.
            rest |= {"token"} if _TOKEN_OF_ITS_OWN.search(plain) else set()
    if "key" in plain and _HARMLESS_KEY.search(plain) and not _REALLY_KEYS.search(plain):
        rest -= {"key"}
    elif _REALLY_KEYS.search(plain):
        return True
    if "pass" in rest and _HARMLESS_PASS.search(plain):
        rest -= {"pass"}
    if _HARMLESS_OTHERS.search(plain):
        rest -= {"private", "auth", "signature", "sig", "phrase", "phrases"}
    if rest & SECRET_WORDS:
        return True
    return any(_STEMS.search(word) for word in rest)


_WEAK_WORDS = frozenset(listed("pass pat pats sas phrase phrases key private sig signature auth cred creds"))


@functools.lru_cache(maxsize=4096)
def is_strong_name(name: str) -> bool:
    """Returns whether a name of a secret can mean nothing else in a text: ``password``, not ``key``."""
    words = words_of(name)
    if not is_secret_name(name):
        return False
    plain = "_".join(words)
    return bool(_REALLY_KEYS.search(plain)) or any(
        (word in SECRET_WORDS and word not in _WEAK_WORDS) or _STEMS.search(word) for word in words
    )


@functools.lru_cache(maxsize=4096)
def is_suspect_name(name: str) -> bool:
    """Returns whether what stands under this name is a secret where it looks like one.

    A part of some word says so, and no word is known to be something else.
    """
    return name not in _WHERE_THE_SHELL_STANDS and any(
        _SUSPECT.search(word) and word not in _HARMLESS_WORDS for word in words_of(name)
    )
