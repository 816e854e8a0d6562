"""Rules for convolutions, matrix products and look-ups: the work that INT8 is about."""

import onnx_ir as ir

from quantlab.graph.attention import HEADS, TOKENS, has_kernel, in_attention
from quantlab.graph.elementwise import function_of
from quantlab.graph.moving import moved
from quantlab.graph.rules import FLOAT, GUIDE, POLICY, Choice, Known, Rule
from quantlab.graph.view import (
    CONVOLUTIONS,
    MATRIX,
    PRODUCTS,
    attribute_int,
    constant,
    graph_input,
)

SMALL = 16
"""Fewer channels, rows or columns than this do not fill a Tensor Core tile of INT8."""

ALIGNED = 8
"""Channel counts divisible by this have INT8 kernels where the other side is small."""

RECURRENT = frozenset({"LSTM", "GRU", "RNN"})


def weight_index(node: ir.Node) -> int | None:
    """Return which input of a layer is its constant weights, None if none is."""
    if constant(node.inputs[1]):
        return 1
    return 0 if node.op_type == "MatMul" and constant(node.inputs[0]) else None


def weights_shape(node: ir.Node) -> tuple[int, ...]:
    """Return the shape of a layer's constant weights, which earlier rules made sure of."""
    index = weight_index(node)
    value = None if index is None else node.inputs[index]
    if value is None or value.const_value is None:
        raise AssertionError(f"{node.name}: an earlier rule keeps computed weights away")
    return tuple(value.const_value.shape.numpy())


def in_integers(node: ir.Node) -> Choice | None:
    """Return how a convolution or product is quantized, whether or not that pays.

    None if its weights are computed and it is no product of activations.
    """
    index, groups = weight_index(node), attribute_int(node, "group", 1)
    if index is None:
        return Choice((0, 1)) if node.op_type == "MatMul" else None
    if node.op_type == "ConvTranspose":
        return Choice((0,), (1, 1 if groups == 1 else None))
    if node.op_type == "Conv":
        return Choice((0,), (1, 0))
    if index == 0 or len(weights_shape(node)) != MATRIX:
        return Choice((1 - index,), (index, None))
    return Choice((0,), (1, 0 if attribute_int(node, "transB", 0) else 1))


def first_layer(node: ir.Node) -> bool:
    """Whether all between a node and the model's input moves elements or changes each alone."""
    value = node.inputs[0]
    while value is not None and not graph_input(value):
        function, before = function_of(value), value.producer()
        if function is not None:
            value = function.source
        else:
            value = before.inputs[0] if before is not None and moved(before) == (0,) else None
    return value is not None


def _computed_weights(node: ir.Node, _: Known) -> Choice | None:
    if node.op_type in CONVOLUTIONS or node.op_type == "Gemm":
        return None if constant(node.inputs[1]) else FLOAT
    return None


def _small_channels(node: ir.Node, _: Known) -> Choice | None:
    if node.op_type not in CONVOLUTIONS:
        return None
    shape = weights_shape(node)
    groups = attribute_int(node, "group", 1)
    if node.op_type == "Conv":
        made, read = shape[0], shape[1]
    else:
        made, read = shape[1] * groups, shape[0] // groups
    if made >= SMALL and read >= SMALL:
        return None
    kernel = shape[2:]
    if groups > 1:
        fits = made % ALIGNED == 0 and min(kernel, default=1) >= 3
    else:
        aligned = made % ALIGNED == 0 or read % ALIGNED == 0
        wide = max(made, read) >= SMALL or first_layer(node)
        fits = aligned and wide and len(set(kernel)) <= 1
    return None if fits else FLOAT


def _conv(node: ir.Node, _: Known) -> Choice | None:
    return in_integers(node) if node.op_type == "Conv" else None


def _conv_transpose(node: ir.Node, _: Known) -> Choice | None:
    alone = node.op_type == "ConvTranspose" and attribute_int(node, "group", 1) == 1
    return in_integers(node) if alone else None


def _grouped_conv_transpose(node: ir.Node, _: Known) -> Choice | None:
    return in_integers(node) if node.op_type == "ConvTranspose" else None


def _of_activations(node: ir.Node) -> bool:
    return node.op_type == "MatMul" and not any(map(constant, node.inputs))


def _attention_kernel(node: ir.Node, _: Known) -> Choice | None:
    inside = _of_activations(node) and in_attention(node)
    return FLOAT if inside and has_kernel(node) else None


def _attention(node: ir.Node, _: Known) -> Choice | None:
    return FLOAT if _of_activations(node) and in_attention(node) else None


def _dynamic_product(node: ir.Node, _: Known) -> Choice | None:
    return FLOAT if _of_activations(node) else None


def _matrix_vector(node: ir.Node, _: Known) -> Choice | None:
    if node.op_type not in PRODUCTS:
        return None
    read = node.inputs[1 - (weight_index(node) or 0)]
    if read is None or read.shape is None or len(read.shape) == 0:
        return None
    rows = read.shape[:-1]
    if weight_index(node) == 0:
        rows = (*read.shape[:-2], *read.shape[-1:])  # they stand upright
    elif node.op_type == "Gemm" and attribute_int(node, "transA", 0):
        rows = read.shape[1:]
    return FLOAT if all(dim == 1 for dim in rows) else None


def _narrow_product(node: ir.Node, _: Known) -> Choice | None:
    if node.op_type not in PRODUCTS:
        return None
    shape = weights_shape(node)
    return FLOAT if len(shape) < MATRIX or min(shape[-MATRIX:]) < SMALL else None


def _left_weights(node: ir.Node, _: Known) -> Choice | None:
    return in_integers(node) if node.op_type == "MatMul" and weight_index(node) == 0 else None


def _stacked_product(node: ir.Node, _: Known) -> Choice | None:
    stacked = node.op_type == "MatMul" and len(weights_shape(node)) != MATRIX
    return in_integers(node) if stacked else None


def _product(node: ir.Node, _: Known) -> Choice | None:
    return in_integers(node) if node.op_type in PRODUCTS else None


def _embedding(node: ir.Node, _: Known) -> Choice | None:
    return FLOAT if node.op_type == "Gather" and constant(node.inputs[0]) else None


def _recurrent(node: ir.Node, _: Known) -> Choice | None:
    return FLOAT if node.op_type in RECURRENT else None


COMPUTED_WEIGHTS = Rule(
    "computed-weights",
    "its weights are computed at run time, so they have no scale beforehand",
    POLICY,
    _computed_weights,
)

LAYERS: tuple[Rule, ...] = (
    Rule(
        "small-channels",
        "too few channels to fill an INT8 tile: floating point is as fast and more precise",
        POLICY,
        _small_channels,
    ),
    Rule("conv", "INT8 convolution: input per tensor, weights per output channel", GUIDE, _conv),
    Rule(
        "conv-transpose",
        "INT8 deconvolution: input per tensor, weights per output channel",
        GUIDE,
        _conv_transpose,
    ),
    Rule(
        "grouped-conv-transpose",
        "its output channels are spread over groups, so one scale serves all weights",
        "ONNX QuantizeLinear has one axis; ConvTranspose weights are [in, out / groups, ...]",
        _grouped_conv_transpose,
    ),
    Rule(
        "attention-kernel",
        f"attention with heads of {', '.join(map(str, HEADS))} over at most {TOKENS} tokens: "
        "TensorRT has an INT8 kernel, but rounding the scores costs more than it saves",
        POLICY,
        _attention_kernel,
    ),
    Rule(
        "attention",
        "attention of a head size or length for which TensorRT has no INT8 kernel",
        POLICY,
        _attention,
    ),
    Rule(
        "dynamic-product",
        "both factors are computed: INT8 loses accuracy there and gains little",
        POLICY,
        _dynamic_product,
    ),
    Rule(
        "matrix-vector",
        "one row times a matrix is bound by memory, not by arithmetic",
        POLICY,
        _matrix_vector,
    ),
    Rule(
        "narrow-product",
        f"a side of the weights is shorter than {SMALL}: too narrow to fill an INT8 tile",
        POLICY,
        _narrow_product,
    ),
    Rule(
        "left-weights",
        "INT8 matrix product: its weights are the left factor, where one scale serves all",
        "what OpenVINO runs in integers, with a scale a row as well, but not a scale a column",
        _left_weights,
    ),
    Rule(
        "stacked-product",
        "a stack of matrices has no axis for a scale a column, so one scale serves all weights",
        "ONNX QuantizeLinear has one axis",
        _stacked_product,
    ),
    Rule("product", "INT8 matrix product: input per tensor, weights per column", GUIDE, _product),
    Rule(
        "embedding",
        "a look-up computes nothing: INT8 would only make its rows coarser",
        POLICY,
        _embedding,
    ),
    Rule("recurrent", "recurrent layers have no INT8 kernel", GUIDE, _recurrent),
)
