"""ONNX's reference evaluator: every operator as the standard defines it, in NumPy; slow and exact.

It is the yardstick of the other engines' tests.  Q/DQ models run as written: quantize, dequantize,
then a floating-point operator; nothing computes in integers unless the model says so.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from quantlab.engines import artifact
from quantlab.engines.base import NOTHING, PLAIN, Array, BuildContext, Recipe, Runner
from quantlab.engines.host import cpu_model
from quantlab.engines.layers import FLOAT_PRODUCTS, INTEGER_PRODUCTS, ran, short_type, shortfall
from quantlab.engines.signature import fitted, supported
from quantlab.errors import EngineError
from quantlab.records import Build, EngineInfo, Layer, Precision, TensorSpec

QDQ_OPSET = 19
"""The evaluator has DequantizeLinear from this opset on; older models are converted to it."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Runs the ONNX file in NumPy, on one thread."""

    name: ClassVar[str] = "reference"
    policy: ClassVar[str] = "tensorrt"
    recipe: ClassVar[Recipe] = PLAIN

    def available(self) -> str:
        """Return version and CPU; see ``Engine.available``."""
        import onnx

        return f"onnx.reference {onnx.__version__} on {cpu_model()}"

    def runnable(self) -> None:
        """Check what ``available`` does; see ``Engine.runnable``."""
        self.available()

    def build(
        self,
        model: Path,
        precision: Precision,
        folder: Path,
        context: BuildContext = NOTHING,  # noqa: ARG002  # the Engine protocol's signature
    ) -> Build:
        """Copy to ``<precision>.onnx``; see ``Engine.build``."""
        main = f"{precision}.onnx"

        def write(target: Path) -> None:
            _load(artifact.source(model))
            artifact.copy_model(model, target / main)

        return artifact.build(
            folder, precision, backend=self.name, device="CPU", main=main, write=write
        )

    @contextmanager
    def open(self, build: Build, root: Path) -> Iterator[Runner]:
        """Verify and load; see ``Engine.open``."""
        path = artifact.verify(build, root, backend=self.name)
        yield _Runner(*_load(path), build.precision)


class _Runner:
    def __init__(self, model: Any, evaluator: Any, precision: Precision) -> None:
        self._model = model
        self._evaluator = evaluator
        self._precision = precision
        self.inputs = _specs(model.graph, "input")
        self._ran = False

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch; see ``Runner.run``."""
        fed = fitted(inputs, self.inputs)
        with _translated("onnx.reference could not run the model"), np.errstate(all="ignore"):
            values = self._evaluator.run(None, fed)
        self._ran = True
        names = self._evaluator.output_names
        return {name: np.array(value) for name, value in zip(names, values, strict=True)}

    def describe(self) -> EngineInfo:
        """Return the nodes with the types that NumPy computes in; see ``Runner.describe``."""
        import onnx

        if not self._ran:
            raise EngineError("describe() needs a batch that was run before")
        with _translated("onnx.reference could not infer the types of the model"):
            layers = _layers(self._model)
        return EngineInfo(
            backend=f"onnx.reference {onnx.__version__}",
            device=cpu_model(),
            threads=1,
            precision=self._precision,
            ran=ran(layers),
            layers=layers,
            notes=tuple(
                shortfall(
                    self._precision, layers, reason="the reference evaluator runs nodes as written"
                )
            ),
        )


def _load(path: Path) -> tuple[Any, Any]:
    import onnx
    from google.protobuf.message import DecodeError
    from onnx.reference import ReferenceEvaluator

    try:
        model = onnx.load(path)
    except (DecodeError, OSError, onnx.checker.ValidationError) as error:
        raise EngineError(f"cannot read {path} as an ONNX model: {error}") from error
    opset = {entry.domain: entry.version for entry in model.opset_import}.get("")
    if opset is None:
        raise EngineError(f"{path} is no ONNX model: it does not import an operator set")
    supported((*_specs(model.graph, "input"), *_specs(model.graph, "output")), "onnx.reference")
    with _translated(f"onnx.reference cannot load {path.name}"):
        if opset < QDQ_OPSET:
            model = onnx.version_converter.convert_version(model, QDQ_OPSET)
        return model, ReferenceEvaluator(model)


def _specs(graph: Any, side: Literal["input", "output"]) -> tuple[TensorSpec, ...]:
    constants = {tensor.name for tensor in graph.initializer} if side == "input" else set()
    return tuple(
        TensorSpec(
            name=value.name,
            dtype=_dtype(value.type.tensor_type.elem_type),
            shape=tuple(
                axis.dim_value if axis.HasField("dim_value") else axis.dim_param or None
                for axis in value.type.tensor_type.shape.dim
            ),
        )
        for value in getattr(graph, side)
        if value.name not in constants
    )


def _dtype(element: int) -> str:
    """Return NumPy's name of an ONNX element type, "" for none, "string" for strings."""
    import onnx

    if element in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
        return "string" if element else ""
    return str(onnx.helper.tensor_dtype_to_np_dtype(element))


def _layers(model: Any) -> tuple[Layer, ...]:
    import onnx

    typed = onnx.shape_inference.infer_shapes(model).graph
    types = {tensor.name: tensor.data_type for tensor in typed.initializer}
    types |= {
        value.name: value.type.tensor_type.elem_type
        for value in (*typed.input, *typed.value_info, *typed.output)
    }
    return tuple(
        Layer(
            name=node.name or next(iter(node.output), node.op_type),
            type=node.op_type,
            precision=short_type(_dtype(types.get(next(iter(node.input), ""), 0))),
            weighted=node.op_type in FLOAT_PRODUCTS | INTEGER_PRODUCTS,
        )
        for node in typed.node
    )


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    """Turn what NumPy, onnx and the evaluator raise into an EngineError."""
    import onnx

    own = (onnx.version_converter.ConvertError, onnx.shape_inference.InferenceError)
    plain = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
    try:
        yield
    except (*own, *plain) as error:
        raise EngineError(f"{doing}: {error}") from error
