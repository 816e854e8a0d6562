"""The FP16 model: ONNX Runtime's converter, with FP32 inputs and outputs.

The converter inserts Casts where an operator has no FP16 form, and clips what FP16 cannot hold.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from quantlab.errors import ModelError
from quantlab.graph.passes import copy

LARGEST = float(np.finfo(np.float16).max)
"""Largest finite FP16 value, 65504."""


@dataclass(frozen=True, slots=True)
class Fp16:
    """A model in FP16.

    Attributes:
        model: valid ONNX; inputs, outputs and inner tensors keep their names.
        clipped: initializers with finite values beyond LARGEST, which were clipped to it.
    """

    model: ir.Model
    clipped: tuple[str, ...]


def to_fp16(model: ir.Model) -> Fp16:
    """Convert a prepared FP32 model; ``model`` stays as it is.

    Raises:
        ModelError: the converter cannot handle the model.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    proto = ir.to_proto(ir.external_data.load_to_model(copy(model)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a line for each clipped value; `clipped` names them
        try:
            made = convert_float_to_float16(proto, keep_io_types=True, disable_shape_infer=True)
            converted = ir.from_proto(made)
        except (ValueError, KeyError, AttributeError, TypeError, ir.serde.SerdeError) as error:
            why = error.__cause__ or error  # what a SerdeError wraps says more than it does
            raise ModelError(f"the model cannot be converted to FP16: {why}") from error
    converted.graph.sort()  # the converter appends its Casts at the end
    halves = {
        str(name)
        for name, value in converted.graph.initializers.items()
        if value.dtype == ir.DataType.FLOAT16
    }
    clipped = tuple(
        str(name)
        for name, value in model.graph.initializers.items()
        if name in halves and value.const_value is not None and _exceeds(value.const_value)
    )
    return Fp16(converted, clipped)


def _exceeds(tensor: ir.TensorProtocol) -> bool:
    array = tensor.numpy()
    return bool((np.abs(array[np.isfinite(array)]) > LARGEST).any())
