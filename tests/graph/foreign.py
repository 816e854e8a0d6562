"""Q/DQ models as other tools write them, and what TensorRT-RTX makes of a model.

``quantized`` is one convolution between Q/DQ that can be spoilt in one place.  ``by_onnxruntime``
is ONNX Runtime's own quantizer.
"""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper

from tests.models import Array, feeds

CHANNELS = 16


def constant(name: str, values: ArrayLike) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values), name)


@dataclass(frozen=True)
class Spoilt:
    """One convolution between Q/DQ; the defaults are what TensorRT wants."""

    scale: ArrayLike = field(default_factory=lambda: np.float32(0.02))
    zero: ArrayLike | None = field(default_factory=lambda: np.int8(0))
    axis: int | None = None
    weights: type = np.int8
    weight_scale: ArrayLike = field(default_factory=lambda: np.full(CHANNELS, 0.01, np.float32))
    weight_zero: int = 0
    weight_axis: int | None = 0
    bias: str = "float"
    groups: int = 1
    opset: int = 17

    def model(self) -> onnx.ModelProto:
        rng = np.random.default_rng(0)
        scales = np.asarray(self.weight_scale)
        weights = rng.integers(-127, 128, (CHANNELS, CHANNELS // self.groups, 3, 3))
        weights = (weights + (128 if self.weights is np.uint8 else 0)).astype(self.weights)
        stored = [
            constant("x_scale", self.scale),
            constant("w", weights),
            constant("w_scale", scales),
            constant("w_zero", np.full(scales.shape, self.weight_zero, self.weights)),
        ]
        grid = ["x_scale"]
        if self.zero is not None:
            stored.append(constant("x_zero", self.zero))
            grid.append("x_zero")
        along: dict[str, Any] = {} if self.axis is None else {"axis": self.axis}
        channel: dict[str, Any] = {} if self.weight_axis is None else {"axis": self.weight_axis}
        nodes = [
            helper.make_node("QuantizeLinear", ["x", *grid], ["x_q"], "quantize", **along),
            helper.make_node("DequantizeLinear", ["x_q", *grid], ["x_dq"], "dequantize", **along),
            helper.make_node(
                "DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_dq"], "weights", **channel
            ),
        ]
        read = ["x_dq", "w_dq"]
        if self.bias == "int32":
            stored += [
                constant("b", np.arange(CHANNELS, dtype=np.int32)),
                constant("b_scale", np.full(CHANNELS, 2e-4, np.float32)),
                constant("b_zero", np.zeros(CHANNELS, np.int32)),
            ]
            bias = ["b", "b_scale", "b_zero"]
            nodes.append(helper.make_node("DequantizeLinear", bias, ["b_dq"], "bias", axis=0))
            read.append("b_dq")
        nodes.append(helper.make_node("Conv", read, ["y"], "conv", pads=[1] * 4, group=self.groups))
        return graph(nodes, stored, opset=self.opset)


def graph(
    nodes: list[onnx.NodeProto],
    stored: list[onnx.TensorProto],
    *,
    opset: int = 17,
    given: int = TensorProto.FLOAT,
    made: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """Return a model from x to y, both (2, 16, 8, 8)."""
    shape = [2, CHANNELS, 8, 8]
    inputs = [helper.make_tensor_value_info("x", given, shape)]
    outputs = [helper.make_tensor_value_info("y", made, shape)]
    imports = [helper.make_opsetid("", opset)]
    body = helper.make_graph(nodes, "foreign", inputs, outputs, stored)
    return helper.make_model(body, opset_imports=imports, ir_version=10)


def by_onnxruntime(path: Path, folder: Path, **options: Any) -> Path:
    """Quantize a float model with ONNX Runtime's quantizer, on random samples."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
        def __init__(self) -> None:
            model = onnx.load(path)
            self._batches: Iterator[dict[str, Array]] = iter([feeds(model, seed=i) for i in (1, 2)])

        def get_next(self) -> dict[str, Array] | None:
            return next(self._batches, None)

    made = folder / f"{path.stem}.quantized.onnx"
    logging.disable(logging.WARNING)  # it advises to preprocess a model that is prepared
    try:
        quantize_static(path, made, Reader(), **options)
    finally:
        logging.disable(logging.NOTSET)
    return made


@dataclass(frozen=True)
class Outcome:
    """What TensorRT-RTX made of a model.

    Attributes:
        refused: what the parser said; "" if it took the model.
        warnings: of its log.
        plan: the bytes of the plan; empty if there is none.
    """

    refused: str
    warnings: tuple[str, ...]
    plan: bytes

    def types(self, layer: str = "conv") -> tuple[str, ...]:
        """Return the element types that a convolution reads in the plan: input, weights, ...

        They stand in the text of the compiled program, which is no interface of TensorRT-RTX's:
        read from 1.7, and the only place that tells without the plan's GPU.
        """
        types = dict(_TENSOR.findall(self.plan))
        reads = dict(_CONVOLUTION.findall(self.plan))
        names = re.findall(rb'"([^"]+)"', reads[layer.encode()])
        return tuple(types[name].decode() for name in names)


_TENSOR = re.compile(
    rb'tensor=\{(?:[^{}]|\{[^}]*\})*?name="([^"]+)"(?:[^{}]|\{[^}]*\})*? type=(\w+) \}'
)
_CONVOLUTION = re.compile(rb'corrltn=\{ name="([^"]+)" output=\{[^}]*\} input=\{([^}]*)\}')


def tensorrt(model: onnx.ModelProto) -> Outcome:
    """Parse and build a model of fixed shapes with TensorRT-RTX, for sm86."""
    trt = pytest.importorskip("tensorrt_rtx")
    said: list[str] = []

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity == trt.ILogger.WARNING:
                said.append(message)

    logger = Log()
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        return Outcome("; ".join(f"{e.node_name()}: {e.desc()}" for e in errors), tuple(said), b"")
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    plan = builder.build_serialized_network(network, config)
    return Outcome("", tuple(said), b"" if plan is None else bytes(plan))
