"""What a registry of views says of each: where it is, what it is good for, and which options it takes.

A registry holds strings, so that a view is imported when it is drawn and not before.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class View(NamedTuple):
    """One view: a module with ``draw`` and, of a trace's view, ``facts``."""

    module: str
    """Its name: ``hftrace.render.views.tree``."""
    help: str
    """What it shows, in one line."""
    takes: tuple[str, ...] = ()
    """Options that change it: ``filter``, ``limit``, ``depth``, ``min-ms``, ``stats``."""
    on_screen: bool = False
    """Whether the default screen has a part of it, which the module's ``brief`` draws."""
    in_all: bool = True
    """Whether ``--view all`` has it."""


ALL = "all"
"""The name that stands for every view that is ``in_all``."""


def shown_by(views: Mapping[str, View], name: str | None) -> list[str]:
    """Returns the names of the views that a ``--view`` stands for; None is the default screen."""
    if name is None:
        return [each for each, view in views.items() if view.on_screen]
    if name == ALL:
        return [each for each, view in views.items() if view.in_all]
    return [name]


def misplaced(views: Mapping[str, View], name: str | None, given: Iterable[str]) -> str | None:
    """Returns what is wrong with options that nothing shown takes, in one sentence; None if nothing is."""
    taken = {option for each in shown_by(views, name) for option in views[each].takes}
    for option in given:
        if option not in taken:
            takers = [each for each, view in views.items() if option in view.takes]
            place = "the default screen" if name is None else f"--view {name}"
            which = " or ".join([", ".join(takers[:-1]), takers[-1]] if len(takers) > 1 else takers)
            return f"--{option} does not apply to {place}: use it with {which}"
    return None
