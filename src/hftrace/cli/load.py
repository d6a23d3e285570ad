"""``hftrace load``: traces one load in a fresh process, and draws it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from hftrace.cli.common.chosen import finding_options
from hftrace.cli.common.finish import REPORT, TITLE, joined, present, save
from hftrace.cli.common.formats import Output, result_options
from hftrace.cli.common.model import ModelOptions, model_options
from hftrace.cli.common.output import print_error
from hftrace.cli.common.paths import output_path
from hftrace.cli.common.torch_files import TorchFiles, torch_options
from hftrace.cli.common.values import cache_choice, json_inputs
from hftrace.cli.common.watching import watch_options
from hftrace.errors import EXIT_FAILED, EXIT_HANGUP, EXIT_OF_SIGNAL, EXIT_OK, UsageError
from hftrace.record.ranks import mark_job
from hftrace.schema.redact import redact_arguments

if TYPE_CHECKING:
    from hftrace.launch.request import WatchOptions
    from hftrace.schema.trace import Trace


DEFAULT_TOKENS = 16


@click.command("load", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model")
@model_options()
@click.option(
    "--cold",
    is_flag=True,
    help="Drop the weight files from the page cache before the load, so that it reads from storage.",
)
@click.option("--warm", is_flag=True, help="Read the weight files into the page cache before the load.")
@click.option(
    "--touch",
    is_flag=True,
    help="After the load, read every page of the weights: with a memory map, the load itself reads none.",
)
@click.option(
    "--forward",
    is_flag=True,
    help="After that, one forward pass on inputs built from the config: the time until the model is ready.",
)
@click.option(
    "--input",
    "given",
    metavar="JSON",
    help="Its inputs, such as '{\"input_ids\": [[1, 2, 3]]}', or a JSON file. Implies --forward.",
)
@click.option(
    "--generate",
    "prompt",
    metavar="TEXT",
    help="After that, the first answer: tokenizer, prefill and tokens of a call of generate with TEXT.",
)
@click.option(
    "--max-new-tokens",
    type=click.IntRange(1),
    metavar="N",
    help="The most tokens of that answer.  [default: 16]",
)
@click.option("--chat", is_flag=True, help="Write the prompt as a message in the tokenizer's chat template.")
@click.option(
    "--verify",
    is_flag=True,
    help="After that, hold every tensor of the model against the bytes of the files.",
)
@click.option(
    "--stats",
    is_flag=True,
    help="After that, measure the values of tensors that no file has, such as a new head; "
    "'hftrace show TRACE --view tensors --stats' has them, and reads the others from their files.",
)
@click.option(
    "--release", is_flag=True, help="At the end, let go of the model, and show what memory is not given back."
)
@click.option(
    "--python",
    default=sys.executable,
    metavar="PATH",
    help="Interpreter of the loading process.  [default: this one]",
)
@watch_options("load")
@torch_options
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Where the trace goes; .gz compresses, - is stdout.  [default: traces/...]",
)
@click.option("--force", is_flag=True, help="Overwrite the output file.")
@click.option("-q", "--quiet", is_flag=True, help="Write the trace and draw nothing.")
@finding_options
@result_options(quiet=TITLE, markdown=REPORT)
def command(
    model: str,
    chosen: ModelOptions,
    cold: bool,
    warm: bool,
    touch: bool,
    forward: bool,
    given: str | None,
    prompt: str | None,
    max_new_tokens: int | None,
    chat: bool,
    verify: bool,
    stats: bool,
    release: bool,
    python: str,
    watch: Callable[[], WatchOptions],
    torch_files: Callable[[bool], TorchFiles],
    output: str | None,
    force: bool,
    quiet: bool,
    choose: Callable[[Trace], None],
    out: Output,
) -> int:
    """Trace one load of MODEL in a fresh process.

    MODEL is a directory, a GGUF file, a Hub id, or synth:NAME for a checkpoint with random
    weights that is made on the spot (hftrace synth --list names them). The
    trace is written before anything is drawn; the last line on stderr says where.
    """
    cache = cache_choice(cold, warm)
    inputs = None if given is None else json_inputs(given)
    if prompt is None and (chat or max_new_tokens is not None):
        option = "--chat" if chat else "--max-new-tokens"
        raise UsageError(f"{option} is about the answer to a prompt: give one with --generate")
    chosen.check(model)
    target = output_path(output, model, force)
    files = torch_files(force)
    if target is not None and target in files:
        raise UsageError(f"{target} is where the trace goes: name another file for what torch records")

    from hftrace.cli.common.live import HeldView, live_view
    from hftrace.launch.interrupts import Interrupts
    from hftrace.launch.kept import RunDirectory
    from hftrace.launch.request import LoadRequest, Prompt
    from hftrace.launch.supervisor import run_load, working_directory

    mark_job()
    request = LoadRequest(
        load=chosen.spec(model),
        watch=watch(),
        python=python,
        # On a terminal the live view shows the progress; anywhere else a bar is noise, and
        # leaves the line unfinished that a killed load was in.
        quiet_bars=True,
        cache=cache,
        touch=touch,
        forward=forward or inputs is not None,
        inputs=inputs,
        generate=None if prompt is None else Prompt(prompt, max_new_tokens or DEFAULT_TOKENS, chat),
        verify=verify,
        stats=stats,
        release=release,
        torch_profile=files.profile is not None,
        memory_snapshot=files.snapshot is not None,
    )
    with Interrupts() as interrupts:
        with RunDirectory(working_directory(target)) as run:
            with live_view(out.color, out.width, quiet=quiet) as live:
                result = run_load(
                    request,
                    interrupts,
                    run=run,
                    header={"command": "load", "argv": redact_arguments(["hftrace", *sys.argv[1:]])},
                    listener=live.listener(),
                )
            saved = joined(save(result.trace, target), force)
            complete = files.save(result.trace, run.path)
            choose(saved.whole or result.trace)
        if isinstance(live, HeldView):
            live.release(working_directory(target))
        try:
            with interrupts.allowed():
                code = present(result.trace, saved, quiet, out)
                return EXIT_FAILED if code == EXIT_OK and not complete else code
        except KeyboardInterrupt:
            # While the trace was being made, or drawn: it is written all the same.
            by = interrupts.first or "SIGINT"
            where = f"; the trace is in {saved.target}" if saved.written else ""
            print_error(("interrupted" if by == "SIGINT" else f"ended by {by}") + where)
            return EXIT_OF_SIGNAL[by]
        except OSError:
            if interrupts.first != "SIGHUP":
                raise
            return EXIT_HANGUP  # the trace is written, and the terminal is gone
