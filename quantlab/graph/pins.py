"""What the config says of single nodes, by patterns of their names: fp32, fp16 or int8.

A node with a floating-point type is not quantized, and one with "fp32" stays there when the model
around it becomes FP16.  A node with "int8" is quantized where the policy would leave it in floating
point, if it can be; if it cannot, and is called by its own name, that is an error.  Pins are a mark
on the nodes of a model in memory, which placement and ``to_fp16`` read; no file holds them.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Literal

import onnx_ir as ir

from quantlab.errors import ConfigError
from quantlab.graph.moving import COPIES
from quantlab.graph.passes import copy
from quantlab.graph.view import WEIGHTED, is_average

Float = Literal["fp32", "fp16"]
Kind = Literal["fp32", "fp16", "int8"]

MARK = "quantlab.pin"
"""Key in a node's ``meta``: its type."""

NAMED = "quantlab.pin.named"
"""Key in a node's ``meta``: whether it was called by its own name, not by a wider pattern."""

FORCIBLE = WEIGHTED | COPIES | frozenset({"Add", "Mul", "MaxPool"})
"""Operators that have a form in INT8, beside the average pools."""


def pin(model: ir.Model, pins: Mapping[str, Kind], key: str = "pins") -> ir.Model:
    """Return the model with the nodes marked that a pattern names; the last pattern counts.

    Args:
        model: stays as it is.
        pins: a pattern of node names, in which ``*``, ``?`` and ``[...]`` stand for others, to the
            type.  "int8" passes over the operators that have no form in INT8.
        key: of the config that the pins come from.

    Raises:
        ConfigError: a pattern that no node's name matches, or for "int8" none with a form in it.
    """
    if not pins:
        return model
    marked = copy(model)
    unused = dict.fromkeys(pins)
    for node in marked.graph.all_nodes():
        for pattern, kind in pins.items():
            if fnmatchcase(str(node.name), pattern) and (kind != "int8" or _forcible(node)):
                node.meta[MARK], node.meta[NAMED] = kind, pattern == node.name
                unused.pop(pattern, None)
    if unused:
        listed = ", ".join(map(repr, unused))
        raise ConfigError(
            f"no node of the prepared model has a name like {listed}"
            f"{' and a form in INT8' if any(pins[p] == 'int8' for p in unused) else ''}; "
            "'quantlab explain MODEL' and the report's placement table list the names",
            key,
        )
    return marked


def pinned(node: ir.Node) -> bool:
    """Whether the config keeps a node in floating point."""
    return node.meta.get(MARK) in ("fp32", "fp16")


def forced(node: ir.Node) -> bool:
    """Whether the config wants a node in INT8."""
    return node.meta.get(MARK) == "int8"


def demanded(node: ir.Node) -> bool:
    """Whether the config calls a node by its own name for INT8."""
    return forced(node) and bool(node.meta.get(NAMED))


def kept_in_fp32(model: ir.Model) -> tuple[str, ...]:
    """Return the names of the nodes that are pinned to FP32."""
    return tuple(
        str(node.name) for node in model.graph.all_nodes() if node.meta.get(MARK) == "fp32"
    )


def _forcible(node: ir.Node) -> bool:
    return node.op_type in FORCIBLE or is_average(node)
