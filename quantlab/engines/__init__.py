"""Engines: backends that build a model for a precision, run it and say what ran."""

from quantlab.engines.base import Engine
from quantlab.engines.onnxruntime import OnnxRuntime
from quantlab.engines.openvino import OpenVino
from quantlab.engines.reference import Reference
from quantlab.engines.tensorrt import TensorRT, TensorRTRTX

ENGINES: dict[str, type[Engine]] = {
    "openvino": OpenVino,
    "onnxruntime": OnnxRuntime,
    "reference": Reference,
    "tensorrt": TensorRT,
    "tensorrt-rtx": TensorRTRTX,
}
"""By the config's ``engines.backend``."""

TENSORRT = ("tensorrt", "tensorrt-rtx")
"""Those that build plans."""
