"""How each tool quantizes, called as its users call it.

A call imports its libraries when it is looked up and quantizes when it is called, so that imports
are not measured.  It leaves ``int8.onnx`` in the request's folder.
"""

import json
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.accuracy.nncf_calls import nncf
from benchmarks.accuracy.request import FLOAT, INT8, Request
from benchmarks.accuracy.settings import TARGETS, Options
from benchmarks.peers.works import LAZY, Reader

Call = Callable[[], None]


def quantlab(request: Request, options: Options) -> Call:
    """Calibrate and build from a config file, by the Python interface."""
    for name in LAZY:
        import_module(name)
    ql = import_module("quantlab")
    folder = Path(request.folder)
    config = folder / "config.json"
    config.write_text(json.dumps(configuration(request, options), indent=1))

    def call() -> None:
        ql.calibrate(config)
        ql.build(config)
        run = folder / "run"
        repaired = run / "repaired.onnx"
        shutil.copy(repaired if repaired.exists() else run / "prepared.onnx", folder / FLOAT)
        shutil.copy(run / "int8.onnx", folder / INT8)

    return call


def configuration(request: Request, options: Options) -> dict[str, Any]:
    """Return the config of a setting; targets where something is repaired or searched for them."""
    calibration = {
        "dataset": {"kind": "npz", "path": request.samples},
        "batch": request.batch,
        **options["calibration"],
    }
    config = {"model": request.model, **options, "calibration": calibration}
    config |= {"output": str(Path(request.folder) / "run"), "benchmark": None}
    if "repair" in options:
        target, limit = TARGETS[request.metric]
        config["evaluation"] = {
            "dataset": {"kind": "npz", "path": request.evaluation},
            "metrics": [request.metric],
        }
        config["targets"] = {target: limit}
    return config


def ort(request: Request, options: Options) -> Call:
    """Preprocess and quantize statically: QDQ, weights S8 for each channel, else defaults."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    folder = Path(request.folder)
    signed = options["activations"] == "QInt8"

    def call() -> None:
        quant_pre_process(request.model, folder / FLOAT)
        quantize_static(
            folder / FLOAT,
            folder / INT8,
            Reader(request.batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType[options["activations"]],
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[options["method"]],
            extra_options={"ActivationSymmetric": signed},
        )

    return call


def modelopt(request: Request, options: Options) -> Call:
    """Quantize to INT8 with FP32 around it."""
    quantize = import_module("modelopt.onnx.quantization").quantize
    folder = Path(request.folder)
    model = folder / "copy.onnx"  # it writes beside its model
    shutil.copy(request.model, model)

    def call() -> None:
        quantize(
            str(model),
            calibration_data_reader=Reader(request.batches),
            calibration_method=options["method"],
            calibration_eps=["cpu"],
            high_precision_dtype="fp32",
            output_path=str(folder / INT8),
        )

    return call


CALLS: dict[str, Callable[[Request, Options], Call]] = {
    "quantlab": quantlab,
    "ort": ort,
    "modelopt": modelopt,
    "nncf": nncf,
}
"""By tool."""
