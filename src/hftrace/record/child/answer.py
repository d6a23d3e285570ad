"""The first answer of a model: ``hftrace load MODEL --generate TEXT``.

After the load come the tokenizer, the prompt's tokens, and a call of
``generate``, whose prefill and tokens the hooks tell
(:mod:`hftrace.record.hooks.generating`). The choice of the next token is the
likeliest one, so that a run can be repeated and no random number is drawn.
"""

from __future__ import annotations

import copy
import importlib
from typing import Any

from hftrace.record.child.adapters import AdapterError, adapter_config, base_of
from hftrace.record.child.inputs import InputError, main_device
from hftrace.record.thread_state import OpenSpan
from hftrace.schema.redact import redact

MAX_TEXT = 1_000
"""Characters of the answer that are kept."""
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
"""What a generation config may say of sampling, and must not where there is none."""
TOKENIZER_KEYWORDS = (
    "gguf_file",
    "revision",
    "cache_dir",
    "token",
    "local_files_only",
    "subfolder",
    "trust_remote_code",
)
"""Keywords of a model's load that are its tokenizer's, too."""


class Answer:
    """Lets a model answer.

    Args:
        source: The model, as it was loaded.
        keywords: Those of its load.
        asked: ``text``; ``max_new_tokens``; ``chat``, whether the text is put into the chat template.
    """

    def __init__(self, source: str, keywords: dict[str, Any], asked: dict[str, Any]) -> None:
        self._source = source
        self._keywords = {name: keywords[name] for name in TOKENIZER_KEYWORDS if name in keywords}
        self._text = str(asked["text"])
        self._max_new_tokens = int(asked["max_new_tokens"])
        self._chat = bool(asked.get("chat"))
        self._tokenizer: Any = None
        self._inputs: dict[str, Any] = {}

    def load_tokenizer(self, span: OpenSpan, model: Any) -> None:
        """Loads the tokenizer that lies beside the model.

        Raises:
            InputError: The model generates nothing, or has no tokenizer.
        """
        if not _can_generate(model):
            raise InputError(f"{type(model).__name__} has nothing to generate with: load a class that has")
        transformers = importlib.import_module("transformers")
        problem: Exception | None = None
        for source in self._sources():
            for auto in (transformers.AutoTokenizer, transformers.AutoProcessor):
                try:
                    made = auto.from_pretrained(source, **self._keywords)
                except Exception as error:  # what is missing is told in many ways
                    problem = problem or error
                    continue
                self._tokenizer = getattr(made, "tokenizer", made)
                if callable(getattr(self._tokenizer, "decode", None)):
                    span.notes["returned"] = type(self._tokenizer).__name__
                    return
        reason = _first_sentence(problem)
        raise InputError(f"{self._source} has no tokenizer that can be loaded ({reason})")

    def _sources(self) -> list[str]:
        """Returns where the tokenizer may be: with the model, or with that which an adapter is for."""
        adapter = adapter_config(self._source, str(self._keywords.get("subfolder") or ""))
        if adapter is None:
            return [self._source]
        try:
            return [self._source, base_of(self._source, adapter)]
        except AdapterError:
            return [self._source]

    def tokenize(self, span: OpenSpan, model: Any) -> None:
        """Makes tokens of the text.

        Raises:
            InputError: There is no chat template, or no token.
        """
        text, special = self._text, {}
        span.notes["characters"] = len(text)
        if self._chat:
            text = self._in_template(text)
            # The template has written its own.
            special = {"add_special_tokens": False}
        made = self._tokenizer(text, return_tensors="pt", **special)
        device = main_device(model)
        self._inputs = {
            name: made[name].to(device) for name in ("input_ids", "attention_mask") if name in made
        }
        tokens = int(self._inputs["input_ids"].shape[-1])
        if not tokens:
            raise InputError("the tokenizer makes no token of this text: give a longer one")
        span.notes.update(tokens=tokens, chat=self._chat)

    def _in_template(self, text: str) -> str:
        messages = [{"role": "user", "content": text}]
        try:
            made = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:
            reason = _first_sentence(error)
            raise InputError(f"the tokenizer of {self._source} cannot write a chat ({reason})") from None
        return str(made)

    def generate(self, span: OpenSpan, model: Any) -> None:
        """Generates, and puts down the text that comes."""
        span.notes["device"] = str(main_device(model))
        own = getattr(model, "generation_config", None)
        # As the model's own: from 4.50 on, one that is handed over gives way to it where it says the usual.
        model.generation_config = _greedy(model, self._max_new_tokens)
        try:
            returned = model.generate(**self._inputs)
        finally:
            model.generation_config = own
        returned = getattr(returned, "sequences", returned)
        if getattr(returned, "ndim", 0) != 2 or returned.is_floating_point():
            return  # sound, or a picture
        repeats = not getattr(model.config, "is_encoder_decoder", False)
        begin = self._inputs["input_ids"].shape[-1] if repeats else 0
        text = str(self._tokenizer.decode(returned[0][begin:].tolist(), skip_special_tokens=True))
        span.notes.update(text=redact(text)[:MAX_TEXT], text_characters=len(text))


def _first_sentence(error: Exception | None) -> str:
    """Returns how an exception begins: transformers tells all that may be the matter."""
    words = str(error).strip().partition("\n")[0].partition(". ")[0]
    return (words or type(error).__name__)[:300].rstrip(".:")


def _can_generate(model: Any) -> bool:
    can = getattr(model, "can_generate", None)
    return callable(getattr(model, "generate", None)) and (not callable(can) or bool(can()))


def _greedy(model: Any, tokens: int) -> Any:
    """Returns the model's own generation config, for so many tokens and without sampling."""
    made = getattr(model, "generation_config", None)
    if made is None:
        owner = importlib.import_module("transformers").GenerationConfig
        made = owner.from_model_config(model.config)
    config = copy.deepcopy(made)
    usual = type(config)()
    for name in (*SAMPLING, "max_length", "min_length"):
        if hasattr(config, name):
            setattr(config, name, getattr(usual, name, None))
    config.do_sample = False
    config.max_new_tokens = tokens
    if config.pad_token_id is None:
        # As generate does itself, which says so on the screen.
        end = config.eos_token_id
        config.pad_token_id = end[0] if isinstance(end, (list, tuple)) and end else end
    return config
