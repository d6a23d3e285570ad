"""What of the call tree is shown: matches and what is above them, nothing too deep or too short."""

from __future__ import annotations

from collections.abc import Callable

from hftrace.analysis.time.tree_node import Node, walk


def matching(roots: list[Node], matches: Callable[[str], bool]) -> list[Node]:
    """Keeps nodes that match, everything above them, and what hangs below a match."""
    order = [node for _, node in walk(roots)]
    keep: set[int] = set()
    for node in order:
        texts = (node.label, node.name, node.phase)
        if any(text and matches(text) for text in texts):
            keep.update(id(below) for _, below in walk([node]) if below.kind != "span")
            keep.add(id(node))
    for node in reversed(order):
        if any(id(child) in keep for child in node.children):
            keep.add(id(node))
    for node in order:
        node.children = [child for child in node.children if id(child) in keep]
    return [root for root in roots if id(root) in keep]


AROUND = ("step", "import")
"""Phases of spans that loads may lie in."""


def hide(root: Node, depth: int | None, min_ns: int, misses: bool = True) -> list[Node]:
    """Replaces spans that are too deep or too short by one node that counts them; trouble stays visible.

    Args:
        root: The tree.
        depth: Levels of spans that are shown; None for all.
        min_ns: What is shorter is hidden.
        misses: Whether a file that was missing is trouble, as it is where nobody asked for less.

    Returns:
        The loads, steps and releases in the caller's steps, and in imports: however short, each is a root.
    """
    own: list[Node] = []
    order = list(walk([root]))
    troubled: set[int] = set()
    for _, node in reversed(order):
        harmless = ("ok", "downloaded") if misses else ("ok", "downloaded", "missing")
        if (
            node.status not in harmless
            or (node.kind == "file" and misses)
            or any(id(child) in troubled for child in node.children)
        ):
            troubled.add(id(node))
    stack = [(0, root)]
    while stack:
        level, node = stack.pop()
        too_deep = depth is not None and level + 1 >= depth
        kept: list[Node] = []
        short: list[Node] = []
        deep: list[Node] = []
        for child in node.children:
            if node.phase in AROUND and child.phase in ("load", "step", "release"):
                kept.append(child)
                own.append(child)
            elif child.kind != "span" or id(child) in troubled:
                kept.append(child)
            elif too_deep:
                deep.append(child)
            elif (child.duration_ns or 0) < min_ns:
                short.append(child)
            else:
                kept.append(child)
        for hidden, label, hint in (
            (short, "shorter calls", "--min-ms 0"),
            (deep, "deeper calls", f"--depth {(depth or 0) + 4}"),
        ):
            ids = [identity for _, below in walk(hidden) for identity in below.spans]
            if len(ids) == 1 and hidden is short:
                # A line that says "one more" is no shorter than that one.
                shown = {id(child) for child in (*kept, *short)}
                kept = [child for child in node.children if id(child) in shown]
            elif hidden:
                kept.append(
                    Node(
                        kind="hidden",
                        label=label.removesuffix("s") if len(ids) == 1 else label,
                        hint=hint,
                        count=len(ids),
                        duration_ns=sum(item.duration_ns or 0 for item in hidden),
                        spans=ids,
                    )
                )
        node.children = kept
        roots = {id(child) for child in own}
        stack.extend((level + 1, child) for child in kept if id(child) not in roots)
    return own


def fold_imports(roots: list[Node], min_ns: int) -> list[Node]:
    """Returns roots in which one node stands for all imports outside of loads that are short."""
    short = [
        node for node in roots if node.phase == "import" and (node.duration_ns or 0) < min_ns and _bare(node)
    ]
    if len(short) < 2:
        return roots
    hidden = Node(
        kind="hidden",
        label="shorter imports",
        hint="--min-ms 0",
        count=sum(node.count for node in short),
        start_ns=short[0].start_ns,
        duration_ns=sum(node.duration_ns or 0 for node in short),
        spans=[identity for node in short for identity in node.spans],
    )
    gone = {id(node) for node in short}
    return [*(node for node in roots if id(node) not in gone), hidden]


def _bare(node: Node) -> bool:
    """Says whether nothing of interest lies below an import."""
    return node.status == "ok" and all(child.kind == "packages" for child in node.children)
