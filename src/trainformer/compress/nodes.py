"""Changes to the nodes of an ONNX graph: constants that nobody reads go, and the domains of operators are declared."""

from collections.abc import Iterable
from typing import Any


def replace(graph: Any, nodes: Iterable[Any], constants: Iterable[Any] = ()) -> None:
    """Other nodes in a graph, and more constants; of all constants those that are read stay, for the others would be loaded."""
    listed = list(nodes)
    read = names(listed)
    held = [tensor for tensor in [*graph.initializer, *constants] if tensor.name in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(listed)
    graph.initializer.extend(held)


def names(nodes: Iterable[Any]) -> set[str]:
    """What nodes read, in their branches too."""
    listed = list(nodes)
    inner = [each for node in listed for a in node.attribute for each in a.g.node]
    return {name for node in [*listed, *inner] for name in node.input}


def needed(nodes: list[Any], wanted: set[str]) -> list[Any]:
    """The nodes, in order, that the wanted names need: ONNX Runtime would run the others too."""
    found = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted = wanted | names([node])
            found.append(node)
    return found[::-1]


def declare(proto: Any, domain: str, onnx: Any) -> None:
    """Says that a graph has operators of a domain."""
    if domain not in {each.domain for each in proto.opset_import}:
        proto.opset_import.append(onnx.helper.make_opsetid(domain, 1))
