"""Q/DQ that other tools wrote, held against what TensorRT makes of it.

TensorRT's grid is symmetric INT8 with one scale for an activation.  Other tools write UINT8, zero
points, INT32 biases, a scale for each channel of an activation.  Some of it the ONNX parser
refuses; some it takes, and computes something else or runs the layer in floating point.  ``RULES``
is the table of what is looked for, ``check`` names each place, and ``convert_qdq.convert`` repairs
what can be repaired.

Sources: what TensorRT-RTX 1.7.1 does when it is given a model for each rule
(tests/graph/test_foreign_qdq.py gives them to it), NvInfer.h (IQuantizeLayer, IDequantizeLayer),
and for TensorRT 10 onnx-tensorrt 96e7811, QuantDequantLinearHelper.
Limits: INT8.  FP8, INT4, FP4 and blocks of scales are left to TensorRT's own checks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from quantlab.graph.qdq_points import DEQUANTIZE, Point, alike, is_integer, is_pair, read

ELSE = "quantize the FP32 model with quantlab, or have the other tool write symmetric INT8 Q/DQ"

TAKEN = frozenset(
    {
        *(ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT4),
        *(ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT4E2M1),
    }
)
"""Quantized types that TensorRT has, or that rules of their own speak of."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A place in a model that TensorRT does not take as ONNX means it.

    Attributes:
        rule: name in RULES.
        node: the node, the first one if several of the same tensor have it; op: its type.
        tensor: what is quantized: the float tensor, or the name of stored integers.
        found: what is there.
        effect: what TensorRT does with it.
        convertible: whether ``convert_qdq.convert`` can repair it.
        remedy: what converting does, or why it cannot and what to do instead.
    """

    rule: str
    node: str
    op: str
    tensor: str
    found: str
    effect: str
    convertible: bool
    remedy: str

    def __str__(self) -> str:
        """Return e.g. ``QuantizeLinear 'q' of 'x': its zero point is INT8 5; TensorRT ...``."""
        return f"{self.op} {self.node!r} of {self.tensor!r}: {self.found}; {self.effect}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table.

    Attributes:
        name: what findings call it.
        effect: what TensorRT does, to follow a semicolon.
        repair: what converting does about it; "" if nothing can be done.
        found: what is wrong with a point in words; "" if nothing is.
    """

    name: str
    effect: str
    repair: str
    found: Callable[[Point], str]


def check(model: ir.Model) -> tuple[Finding, ...]:
    """Return what TensorRT would refuse or misread, in graph order; empty if the model is fit.

    Each rule speaks once of a tensor, however many nodes quantize or dequantize it.

    Args:
        model: settled; stays as it is.
    """
    found: dict[tuple[str, str], Finding] = {}
    for node in model.graph.all_nodes():
        if is_integer(node):
            name, tensor = str(node.name), str(node.outputs[0].name)
            found[name, tensor] = Finding(
                rule="integer-operator",
                node=name,
                op=node.op_type,
                tensor=tensor,
                found="it computes in integers by itself",
                effect="TensorRT has no such operator and refuses it",
                convertible=False,
                remedy=f"have the tool write its QDQ format, or {ELSE}",
            )
        elif is_pair(node):
            point = read(node)
            for rule in RULES:
                words = rule.found(point)
                if words:
                    made = _finding(model, rule, point, words)
                    found.setdefault((rule.name, point.tensor), made)
    return tuple(found.values())


def _finding(model: ir.Model, rule: Rule, point: Point, words: str) -> Finding:
    why_not = obstacle(model, point) if rule.repair else ELSE
    return Finding(
        rule=rule.name,
        node=str(point.node.name),
        op=point.node.op_type,
        tensor=point.tensor,
        found=words,
        effect=rule.effect,
        convertible=not why_not,
        remedy=why_not or rule.repair,
    )


def obstacle(model: ir.Model, point: Point) -> str:
    """Return why the Q/DQ of a tensor cannot be converted, "" if they can."""
    if point.node.graph is not model.graph:
        return f"it stands inside an If, Loop or Scan; {ELSE}"
    nodes = [point.node]
    if point.quantizer is not None:
        integers = point.quantizer.outputs[0]
        readers = [use.node for use in integers.uses()]
        if integers.is_graph_output() or any(node.op_type != DEQUANTIZE for node in readers):
            return f"its integers go elsewhere than to DequantizeLinear; {ELSE}"
        nodes = [point.quantizer, *readers]
    elif not point.weights:
        return f"the model is fed integers, and converting would change its input; {ELSE}"
    return next(filter(None, (_unfit(read(node), read(nodes[0])) for node in nodes)), "")


def _unfit(point: Point, first: Point) -> str:
    if point.scale is None or point.scale.ndim > 1 or not np.isfinite(point.scale).all():
        return f"its scale is no finite number, and no finite number a channel; {ELSE}"
    if not alike(point, first):
        return f"its QuantizeLinear and DequantizeLinear have different grids; {ELSE}"
    if point.scales > 1 and point.channel_axis is None:
        return f"its scales fit no axis of {point.tensor!r}; {ELSE}"
    if point.dtype == ir.DataType.INT32 and point.node.outputs[0].is_graph_output():
        return f"it is an output of the model; {ELSE}"
    return ""


def _type(point: Point) -> str:
    kinds = TAKEN | {ir.DataType.INT32} if point.node.op_type == DEQUANTIZE else TAKEN
    return "" if point.dtype in kinds else f"its integers are {point.dtype.name}"


def _computed(point: Point) -> str:
    if point.scale is None:
        return "its scale is computed at run time"
    given = len(point.node.inputs) > 2 and point.node.inputs[2] is not None
    return "its zero point is computed at run time" if given and point.zero is None else ""


def _integer_bias(point: Point) -> str:
    return "it stores INT32, as a bias" if point.dtype == ir.DataType.INT32 else ""


def _stored_unsigned(point: Point) -> str:
    unsigned = point.dtype == ir.DataType.UINT8 and point.quantizer is None
    return "its integers are stored or fed as UINT8" if unsigned else ""


def _unsigned(point: Point) -> str:
    if point.dtype != ir.DataType.UINT8 or point.quantizer is None or _shifted(point):
        return ""
    if point.zero is not None:
        return "its integers are UINT8 with zero point 0"
    return "it has no zero point, which ONNX reads as UINT8 and TensorRT as INT8"


def _shifted(point: Point) -> bool:
    return point.zero is not None and bool(np.any(point.zero != 0))


def _asymmetric(point: Point) -> str:
    eight = point.dtype in (ir.DataType.INT8, ir.DataType.UINT8)
    if not eight or point.zero is None or not _shifted(point) or _stored_unsigned(point):
        return ""
    return f"its zero point is {point.dtype.name} {point.zero[point.zero != 0].flat[0]:g}"


def _scale(point: Point) -> str:
    if point.scale is None:
        return ""
    bad = point.scale[~(point.scale > 0) | np.isinf(point.scale)]
    if bad.size == 0:
        return ""
    share = "its scale is" if point.scales == 1 else f"{bad.size} of its {point.scales} scales are"
    return f"{share} {bad[0]:g}, which is no positive number"


def _per_channel(point: Point) -> str:
    many = not point.weights and point.scale is not None and point.scale.ndim == 1
    return f"it has {point.scales} scales, one a channel" if many and point.scales > 1 else ""


def _one_element(point: Point) -> str:
    vector = point.scale is not None and point.scale.shape == (1,)
    return "its scale is a vector of one element" if vector and not point.weights else ""


def _axis(point: Point) -> str:
    many = point.scale is not None and point.scale.ndim == 1 and point.scale.size > 1
    if not many or not point.weights or point.axis is not None or _integer_bias(point):
        return ""
    return f"it has {point.scales} scales and no axis"


def _output_axis(point: Point) -> str:
    wanted, axis = point.output_axis, point.channel_axis
    many = point.scale is not None and point.scale.ndim == 1 and point.scale.size > 1
    if not many or wanted is None or axis is None or axis == wanted:
        return ""
    return f"its scales run along axis {axis}, the layer's output channels along {wanted}"


RULES: tuple[Rule, ...] = (
    Rule("type", "TensorRT refuses it", "", _type),
    Rule("computed", "where a layer reads it TensorRT-RTX 1.7 ends the process", "", _computed),
    Rule(
        "integer-bias",
        "TensorRT dequantizes no INT32 and refuses it",
        "it becomes a float bias of the same values",
        _integer_bias,
    ),
    Rule(
        "stored-unsigned",
        "TensorRT reads no UINT8 and refuses it",
        "it is stored again as INT8, exactly where the steps fit",
        _stored_unsigned,
    ),
    Rule(
        "unsigned",
        "TensorRT takes it as INT8, with a warning that names no node: steps above 127 saturate "
        "and nothing is cut off at 0",
        "it becomes INT8 over the same range, in steps 255 / 127 as wide, behind a Relu",
        _unsigned,
    ),
    Rule(
        "asymmetric",
        "TensorRT has no zero point but 0 and refuses it",
        "it becomes INT8 with zero point 0 over the same range, behind a Relu where that begins "
        "at 0; UINT8 with zero point 128 stays exact",
        _asymmetric,
    ),
    Rule(
        "scale",
        "TensorRT refuses it, unless it is infinite",
        "a scale of 0 becomes 1, a negative one positive",
        _scale,
    ),
    Rule(
        "per-channel",
        "TensorRT quantizes activations per tensor: the layer silently runs in floating point",
        "one scale, the largest, serves all channels",
        _per_channel,
    ),
    Rule(
        "one-element",
        "TensorRT-RTX 1.7 reads a scale a channel: the layer silently runs in floating point",
        "it becomes a scalar",
        _one_element,
    ),
    Rule(
        "axis",
        "ONNX and TensorRT-RTX 1.7 take axis 1, the parser of TensorRT 10 took 0",
        "the axis is written out",
        _axis,
    ),
    Rule(
        "output-axis",
        "TensorRT needs a scale an output channel: the layer silently runs in floating point",
        "the weights are stored again with a scale an output channel",
        _output_axis,
    ),
)
"""What is looked for, in the order in which it is told."""
