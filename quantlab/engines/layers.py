"""What the executed layers say together: the precision that really ran, and what fell short."""

import platform
from collections import Counter
from collections.abc import Sequence

from quantlab.engines.host import cpu_flags, int8_saturates
from quantlab.records import Layer, Precision

NAMED = 8
"""Layers that a note names; the report's layer table has them all."""

FLOAT_PRODUCTS = frozenset(
    {
        *("Conv", "ConvTranspose", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul"),
        *("FusedMatMul", "FusedMatMulActivation", "Einsum", "MatMulNBits", "NhwcConv"),
        *("Attention", "MultiHeadAttention", "LSTM", "GRU", "RNN"),
    }
)
INTEGER_PRODUCTS = frozenset(
    {
        *("QLinearConv", "ConvInteger", "QGemm", "QLinearMatMul", "MatMulInteger"),
        *("MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QAttention"),
    }
)
"""Operators that are convolutions or matrix products, by the arithmetic of their kernel:
ONNX's own and those that ONNX Runtime fuses."""

FLOATS = {"fp32": "f32", "fp16": "f16"}

SATURATES = (
    "this CPU has neither VNNI nor AMX: its INT8 kernels add pairs of products in 16 bits, which "
    "can saturate, so accuracy may be lower here than on TensorRT or a newer CPU"
)


def short_type(name: str) -> str:
    """Return "f32" for "float32" and ONNX Runtime's "float", "u8" for "uint8"; others as given."""
    widths = {"float": "f32", "double": "f64"}
    letters = {"float": "f", "bfloat": "bf", "int": "i", "uint": "u"}
    kind = name.rstrip("0123456789")
    return widths.get(name) or letters.get(kind, kind) + name[len(kind) :]


def ran(layers: Sequence[Layer]) -> str:
    """Return the precisions of the weighted layers, e.g. "i8" or "f32 + i8".

    Signed and unsigned 8-bit integers are both "i8".  Without weighted layers all layers count;
    "nothing" if there is none.
    """
    counted = [layer for layer in layers if layer.weighted] or layers
    return " + ".join(sorted({_short(layer) for layer in counted})) or "nothing"


def shortfall(precision: Precision, layers: Sequence[Layer], *, reason: str = "") -> list[str]:
    """Return a note if weighted layers computed in another precision than was asked for.

    Args:
        precision: what was asked for.
        layers: executed layers.
        reason: why, where the backend's limits are known; "" if not.
    """
    weighted = [layer for layer in layers if layer.weighted]
    wanted = FLOATS.get(precision, "i8")
    short = [layer for layer in weighted if _short(layer) != wanted]
    if not weighted:
        return [f"{precision}: no convolution or matrix product among the executed layers"]
    if not short:
        return []
    kinds = Counter(_short(layer) for layer in short)
    what = " and ".join(f"{count} in {kind}" for kind, count in sorted(kinds.items()))
    names = ", ".join(layer.name for layer in short[:NAMED])
    more = f" and {len(short) - NAMED} more" if len(short) > NAMED else ""
    because = f" because {reason}" if reason else ""
    head = f"{precision}: of {len(weighted)} weighted layers {what} instead of {wanted}{because}"
    return [f"{head}: {names}{more}"]


def saturation(layers: Sequence[Layer]) -> list[str]:
    """Return a note if the integer layers ran on a CPU whose INT8 products can saturate."""
    if not any(layer.integer for layer in layers if layer.weighted):
        return []
    if not int8_saturates(platform.machine(), cpu_flags()):
        return []
    return [SATURATES]


def _short(layer: Layer) -> str:
    return "i8" if layer.integer else layer.precision
