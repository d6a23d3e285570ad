"""``hftrace explain``: what a finding means, and what mends it."""

from __future__ import annotations

import click

from hftrace.cli.common.formats import Output, result_options


@click.command("explain", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("rule", required=False)
@result_options(quiet="rule and name, one a line")
def command(rule: str | None, out: Output) -> None:
    """Say what a finding means: its cause, how it looks in a trace, what mends it, where it was seen.

    RULE is the id that stands beside a finding, such as R02, or its name, such as dtype-widened.
    Without it all rules are listed.
    """
    from hftrace.analysis.findings.explained import explanation, explanations
    from hftrace.render.explained import names, overview, page

    chosen = [explanation(rule)] if rule else list(explanations())
    out.result(
        facts=lambda: chosen[0].to_json() if rule else [each.to_json() for each in chosen],
        blocks=lambda: [page(chosen[0]) if rule else overview()],
        quiet=lambda: [name for each in chosen for name in names(each)],
    )
