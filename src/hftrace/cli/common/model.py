"""The model of a command: which options say what to load, and what they mean.

A command that loads a model, or speaks of one that could be loaded, has them in one line::

    @click.command("plan")
    @click.argument("model")
    @model_options()
    def command(model: str, chosen: ModelOptions) -> int:
        spec = chosen.spec(model)
"""

from __future__ import annotations

import contextlib
import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hftrace.cli.common.values import keyword_value, max_memory
from hftrace.errors import UsageError
from hftrace.schema.redact import redact_arguments

if TYPE_CHECKING:
    from hftrace.launch.request import LoadSpec
    from hftrace.synth.planning import CheckpointPlan
    from hftrace.synth.writer import Progress

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
SYNTH_PREFIX = "synth:"
"""A model whose name begins so is a checkpoint with random weights, made on the spot."""


def _once(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> str | None:
    """Returns the value of an option that has one."""
    if len(values) > 1:
        raise UsageError(f"{parameter.opts[0]} is given twice: which of the two is meant?")
    return values[0] if values else None


def _option(name: str, *names: str, metavar: str, help: str) -> Callable[..., Any]:
    """Returns an option with a value that may be given once: the last of two would win without a word."""
    return click.option(name, *names, metavar=metavar, multiple=True, callback=_once, help=help)


_CLASS_OPTIONS = (
    _option(
        "--class",
        "class_name",
        metavar="NAME",
        help="Class to load with: a transformers name, or module:Class.",
    ),
    _option("--task", metavar="NAME", help="Choose the class by a pipeline task, such as text-generation."),
)

_KEYWORD_OPTIONS = (
    _option("--dtype", metavar="NAME", help="Dtype of the weights: bfloat16, float16, float32, auto."),
    _option("--device-map", metavar="MAP", help="auto, cpu, cuda:0, ..., a JSON object, or a JSON file."),
    _option(
        "--max-memory", metavar="JSON", help='Limit per device, such as \'{"cpu": "10GB", "0": "20GB"}\'.'
    ),
    _option("--revision", metavar="NAME", help="Branch, tag or commit."),
    _option("--variant", metavar="NAME", help="Weights of a variant, such as fp16."),
    _option("--subfolder", metavar="NAME", help="Folder in the repository."),
    _option("--attn-implementation", metavar="NAME", help="eager, sdpa, flash_attention_2, ..."),
    click.option(
        "--low-cpu-mem-usage/--no-low-cpu-mem-usage", default=None, help="Honoured by 4.36 to 4.50."
    ),
    click.option(
        "--fast-init/--no-fast-init", default=None, help="Skip random init. Honoured by 4.36 to 4.50."
    ),
    click.option(
        "--use-safetensors/--no-use-safetensors", default=None, help="Insist on, or refuse, safetensors."
    ),
    _option("--offload-folder", metavar="DIR", help="Where weights go that are offloaded to disk."),
    click.option(
        "--offload-state-dict/--no-offload-state-dict", default=None, help="Honoured by 4.36 to 4.56."
    ),
    click.option(
        "--ignore-mismatched-sizes", is_flag=True, default=None, help="Initialise what does not fit."
    ),
    click.option(
        "--trust-remote-code", is_flag=True, default=None, help="Run code that comes with the model."
    ),
    _option("--gguf-file", metavar="NAME", help="A GGUF file in the repository."),
    _option("--cache-dir", metavar="DIR", help="The Hub cache to use."),
    click.option("--local-files-only", is_flag=True, default=None, help="Do not ask the Hub."),
    click.option("--force-download", is_flag=True, default=None, help="Download again."),
    _option(
        "--quantization",
        metavar="METHOD",
        help="bnb-4bit, bnb-8bit, torchao-int8, quanto-int8, quanto-int4, compressed-tensors, fp8, mxfp4; "
        "with options as in 'bnb-4bit: bnb_4bit_quant_type=nf4, bnb_4bit_use_double_quant=true'.",
    ),
    _option("--tp-plan", metavar="PLAN", help="Tensor parallel plan: auto."),
    *(
        click.option(name, type=click.IntRange(1), metavar="N", help=f"{what} Under torchrun.")
        for name, what in (
            ("--tp-size", "Divide each layer among N ranks (tensor parallel)."),
            ("--fsdp-size", "Divide the model among N ranks (FSDP2)."),
        )
    ),
)

_EXTRA_OPTION = click.option(
    "--kwarg", "extra", metavar="KEY=JSON", multiple=True, help="Any other keyword of from_pretrained."
)

_SYNTH_NAMES = {
    "--size": "size",
    "--stored-dtype": "dtype",
    "--stored-format": "format",
    "--max-shard-size": "max_shard_size",
}
"""Options of a ``synth:NAME``, and what each of them decides."""


_SYNTH_OPTIONS = (
    click.option("--size", metavar="SIZE", help="With synth:NAME, scale the checkpoint to about this size."),
    click.option("--stored-dtype", metavar="NAME", help="With synth:NAME, dtype of the stored weights."),
    click.option(
        "--stored-format",
        type=click.Choice(["safetensors", "bin"]),
        help="With synth:NAME, the weight files.",
    ),
    click.option(
        "--max-shard-size",
        metavar="SIZE",
        help="With synth:NAME, begin another file above this size.",
    ),
)


@dataclass(frozen=True)
class ModelOptions:
    """What the options of :func:`model_options` say.

    Args:
        class_name: As ``--class`` says.
        task: As ``--task`` says.
        keywords: Keywords of ``from_pretrained`` as JSON values.
        synthetic: What was given for a ``synth:NAME``, by option.
    """

    class_name: str | None
    task: str | None
    keywords: Mapping[str, Any]
    synthetic: Mapping[str, str]

    @property
    def given(self) -> bool:
        """Whether there is any of them."""
        return bool(self.class_name or self.task or self.keywords or self.synthetic)

    def check(self, model: str) -> None:
        """Refuses what cannot be loaded, as far as a look at the file system says it; makes nothing.

        Args:
            model: A directory, a GGUF file, a Hub id, or ``synth:NAME``.

        Raises:
            UsageError: A path that does not exist or holds nothing to load, options that do not apply.
        """
        from hftrace.cli.common.refusals import refuse_path

        if model.startswith(SYNTH_PREFIX):
            return
        if self.synthetic:
            raise UsageError(f"{', '.join(self.synthetic)}: for synth:NAME alone, not to {model}")
        refuse_path(model, self.keywords)

    def spec(self, model: str) -> LoadSpec:
        """Returns what to load; makes the checkpoint first for ``synth:NAME``.

        Args:
            model: A directory, a GGUF file, a Hub id, or ``synth:NAME``.

        Raises:
            UsageError: A path that does not exist, an unknown name, options that do not apply, a
                directory that needs one that is not there.
        """
        from hftrace.launch.request import LoadSpec

        self.check(model)
        keywords = self.keywords
        path = Path(model).expanduser()
        if path.suffix == ".gguf" and path.is_file():
            keywords = {**keywords, "gguf_file": path.name}
            source = str(path.parent)
        else:
            source = self._source(model)
        return LoadSpec(
            model=source,
            asked=model,
            keywords=keywords,
            class_name=self.class_name,
            task=self.task,
        )

    def _source(self, model: str) -> str:
        """Returns the directory or Hub id to load."""
        if model.startswith(SYNTH_PREFIX):
            return str(self._synthesize(model[len(SYNTH_PREFIX) :]))
        path = Path(model).expanduser()
        return str(path) if path.is_dir() else model

    def _synthesize(self, name: str) -> Path:
        """Makes the checkpoint ``synth:NAME`` once in the cache; returns its directory."""
        from hftrace.synth.cache import cached_plan
        from hftrace.synth.planning import DEFAULT_MAX_SHARD_SIZE, plan

        asked = {_SYNTH_NAMES[option]: value for option, value in self.synthetic.items()}
        planned = plan(
            name, asked.get("size"), asked.get("dtype"), asked.get("max_shard_size", DEFAULT_MAX_SHARD_SIZE)
        )
        with progress_bar(planned) as progress:
            return cached_plan(planned, format=asked.get("format", "safetensors"), progress=progress)


def model_options(*, without: Sequence[str] = ()) -> Decorator:
    """Adds the options that say what to load; the command gets them as one argument, ``chosen``.

    Args:
        without: Keywords whose options the command has in another meaning; ``--kwarg`` still takes them.
    """
    everything = (*_CLASS_OPTIONS, *_KEYWORD_OPTIONS, _EXTRA_OPTION, *_SYNTH_OPTIONS)
    options = {_name_of(option): option for option in everything}
    for name in without:
        del options[name]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def collected(*arguments: Any, **values: Any) -> Any:
            mine = {name: values.pop(name) for name in options}
            return function(*arguments, chosen=_chosen(mine), **values)

        command: Callable[..., Any] = collected
        for option in reversed(options.values()):
            command = option(command)
        return command

    return decorate


def _name_of(option: Callable[..., Any]) -> str:
    """Returns the argument that click makes of an option."""

    def nothing() -> None: ...

    (parameter,) = option(nothing).__click_params__
    return str(parameter.name)


def _chosen(values: dict[str, Any]) -> ModelOptions:
    """Returns what options mean.

    Raises:
        UsageError: One cannot be read, or two of them contradict one another.
    """
    class_name, task = values.pop("class_name"), values.pop("task")
    if class_name and task:
        raise UsageError("--class and --task both choose the class: give one of them")
    if task:
        from hftrace.record.child.auto_classes import TASKS

        if task not in TASKS:
            raise UsageError(f"unknown task {task!r}: known are {', '.join(sorted(TASKS))}")
    synthetic = {
        "--size": values.pop("size"),
        "--stored-dtype": values.pop("stored_dtype"),
        "--stored-format": values.pop("stored_format"),
        "--max-shard-size": values.pop("max_shard_size"),
    }
    return ModelOptions(
        class_name,
        task,
        _keywords(values, values.pop("extra")),
        {option: value for option, value in synthetic.items() if value is not None},
    )


def _keywords(options: dict[str, Any], extra: tuple[str, ...]) -> dict[str, Any]:
    """Returns the keywords of ``from_pretrained``, as JSON values.

    Raises:
        UsageError: A value that cannot be read.
    """
    from hftrace.launch.quantization import parse_quantization
    from hftrace.launch.variants.specs import QUANTIZATION, keyword

    keywords = {keyword(name): value for name, value in options.items() if value is not None}
    if QUANTIZATION in keywords:
        keywords["quantization_config"] = parse_quantization(keywords.pop(QUANTIZATION))
    if "device_map" in keywords:
        keywords["device_map"] = _device_map(keywords["device_map"])
    if "max_memory" in keywords:
        keywords["max_memory"] = max_memory(keywords["max_memory"])
    for item in extra:
        name, equals, value = item.partition("=")
        if not equals or not name.isidentifier():
            shown = redact_arguments([item])[0]
            raise UsageError(f"--kwarg takes KEY=JSON, such as attn_implementation='\"sdpa\"'; got {shown!r}")
        if _same(name, keywords):
            raise UsageError(f"{name} is given twice: say it once, with --kwarg or an option of its own")
        keywords[name] = keyword_value(f"--kwarg {name}", value)
    return keywords


def _same(name: str, keywords: Mapping[str, Any]) -> bool:
    """Says whether a keyword was given already, by this name or the older one of a dtype."""
    from hftrace.launch.variants.specs import DTYPE_KEYWORDS

    names: set[str] | frozenset[str] = DTYPE_KEYWORDS if name in DTYPE_KEYWORDS else {name}
    return not names.isdisjoint(keywords)


def _device_map(text: str) -> Any:
    """Returns a device map: a name, a JSON object or number, or the content of a JSON file."""
    if text.endswith(".json"):
        try:
            return json.loads(Path(text).read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"cannot read the device map {text}: {error.strerror or error}") from None
        except (ValueError, RecursionError):
            raise UsageError(f"the device map {text} is not valid JSON") from None
    return keyword_value("--device-map", text)


@contextlib.contextmanager
def progress_bar(planned: CheckpointPlan) -> Iterator[Progress | None]:
    """Yields a callback that draws a bar on stderr; None where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"Writing {planned.name}", total=planned.data_bytes)
        yield lambda done, total: bar.update(task, completed=done, total=total)
