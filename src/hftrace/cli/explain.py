"""``hftrace explain``: what a finding means, and what mends it."""

from __future__ import annotations

import click

from hftrace.cli.common.output import output_options, print_blocks, print_json


@click.command("explain", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("rule", required=False)
@output_options
def command(rule: str | None, as_json: bool, color: str, width: int | None) -> None:
    """Say what a finding means: its cause, how it looks in a trace, what mends it, where it was seen.

    RULE is the id that stands beside a finding, such as R02, or its name, such as dtype-widened.
    Without it all rules are listed.
    """
    from hftrace.analysis.findings.explained import explanation, explanations

    if as_json:
        print_json(explanation(rule).to_json() if rule else [each.to_json() for each in explanations()])
        return
    from hftrace.render.explained import overview, page

    print_blocks([page(explanation(rule)) if rule else overview()], color, width)
