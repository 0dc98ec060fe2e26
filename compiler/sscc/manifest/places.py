"""Where in a YAML text something is said."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ssimage.lazy import lazy

if TYPE_CHECKING:
    from ruamel import yaml
    from ruamel.yaml.nodes import Node
else:  # A folder without a manifest needs none.
    yaml = lazy("ruamel.yaml")

Steps = tuple[int | str, ...]
KEY = "[key]"  # what pydantic has at the end of the place of a mistake in a key


class Place(NamedTuple):
    """Counted from 1. length: characters on that line."""

    line: int
    column: int
    length: int


def child_of(node: Node, step: int | str) -> tuple[Node, Node] | None:
    """A mapping's key and its value, or an entry of a list twice."""
    if isinstance(node, yaml.nodes.MappingNode):
        for key, value in node.value:
            if str(key.value) == str(step):
                return key, value
    if isinstance(node, yaml.nodes.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step]
    return None


def node_at(node: Node, steps: Steps, *, key: bool = False) -> Node:
    """The deepest node that there is on the way. key: of a mapping's entry, its key; so too where it has no value."""
    for position, step in enumerate(steps):
        child = child_of(node, step)
        if child is None:
            return node
        is_last = position == len(steps) - 1
        node = child[0] if is_last and (key or not child[1].value) else child[1]
    return node


def place_of(node: Node) -> Place:
    """Finds a node's place; a collection is meant by its first character."""
    start, end = node.start_mark, node.end_mark
    is_short = isinstance(node, yaml.nodes.ScalarNode) and start.line == end.line
    return Place(start.line + 1, start.column + 1, end.column - start.column if is_short else 1)
