"""How each tool calibrates, called as its users call it."""

import shutil
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.peers.request import Request

LAZY = (
    *("numba", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "openvino"),
    *("scipy.stats", "quantlab.pipeline"),
)
"""What quantlab imports within its functions; imports are not measured."""

ORT_METHODS: dict[str, tuple[str, dict[str, int]]] = {
    "minmax": ("MinMax", {}),
    "percentile": ("Percentile", {}),
    "entropy": ("Entropy", {"num_bins": 2048, "num_quantized_bins": 128}),
}
"""ONNX Runtime's name and options; its defaults otherwise."""


def plain(request: Request, taps: str) -> Callable[[], int]:
    """Run the model, with ``taps`` the tapped one, by ONNX Runtime with its default options."""
    import onnxruntime

    def call() -> int:
        model = request.tapped if taps else request.model
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        for batch in request.batches():
            session.run(None, batch)
        return 0

    return call


def quantlab(request: Request, method: str) -> Callable[[], int]:
    """Calibrate from a config file, by the Python interface."""
    for name in LAZY:
        import_module(name)
    ql = import_module("quantlab")
    folder = Path(request.folder)
    config = folder / "model.yaml"
    config.write_text(
        f"model: {request.model}\n"
        "calibration:\n"
        f"  dataset: {{kind: npz, path: {request.samples}}}\n"
        f"  samples: {request.images}\n"
        f"  batch: {request.batch}\n"
        f"  method: {method}\n"
        f"output: {folder / 'run'}\n"
    )

    def call() -> int:
        cache: Path = ql.calibrate(config)
        return len(cache.read_text().splitlines()) - 1  # the first line is the header

    return call


def onnxruntime(request: Request, method: str) -> Callable[[], int]:
    """Calibrate by ``create_calibrator``, the tensors that ``quantize_static`` would take."""
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator
    from onnxruntime.quantization.registry import QDQRegistry

    kind, options = ORT_METHODS[method]

    def call() -> int:
        calibrator = create_calibrator(
            request.model,
            list(QDQRegistry),
            augmented_model_path=str(Path(request.folder) / "augmented.onnx"),
            calibrate_method=CalibrationMethod[kind],
            extra_options=options,
        )
        calibrator.collect_data(Reader(request.batches))
        return len(calibrator.compute_data().data)

    return call


def modelopt(request: Request, method: str) -> Callable[[], int]:
    """Quantize a copy: modelopt has no call that ends at the thresholds."""
    import onnx

    quantize = import_module("modelopt.onnx.quantization").quantize
    folder = Path(request.folder)
    model, output = folder / "copy.onnx", folder / "quantized.onnx"
    shutil.copy(request.model, model)

    def call() -> int:
        quantize(
            str(model),
            calibration_data_reader=Reader(request.batches),
            calibration_method=method,
            calibration_eps=["cpu"],
            high_precision_dtype="fp32",
            output_path=str(output),
        )
        graph = onnx.load(output).graph
        weights = {tensor.name for tensor in graph.initializer}
        quantized = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
        return len(quantized - weights)

    return call


class Reader:
    """Batches for ONNX Runtime's calibrators and modelopt's."""

    def __init__(self, batches: Callable[[], Iterator[dict[str, Any]]]) -> None:
        self._start = batches
        self._batches = batches()

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch's arrays, None after the last."""
        return next(self._batches, None)

    def get_first(self) -> dict[str, Any]:
        """Return the first batch, and leave the place in the batches as it is."""
        return next(self._start())

    def rewind(self) -> None:
        """Start again."""
        self._batches = self._start()


WORKS: dict[str, Callable[[Request, str], Callable[[], int]]] = {
    "plain": plain,
    "quantlab": quantlab,
    "ort": onnxruntime,
    "modelopt": modelopt,
}
"""By the first part of a tool's name; the rest is the method."""
