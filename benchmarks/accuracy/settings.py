"""What is compared: every tool with every setting, as data.

A setting of quantlab is a piece of a config file; ``calls.py`` and ``nncf_calls.py`` say what the
options of the peers mean.  A new setting is a line here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.accuracy.request import FORMS, Form

Options = Mapping[str, Any]

QUANTLAB = "quantlab"

TARGETS: dict[str, tuple[str, float]] = {
    "top1": ("top1_drop", 0.3),
    "psnr": ("psnr_drop", 0.05),
    "cosine": ("cosine", 0.997),
}
"""Target of repair and search by metric: points, dB, cosine."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A tool and how it is called.

    Attributes:
        name: in tables.
        tool: name in CALLS.
        environment: its virtual environment.
        options: of the call.
        forms: that it quantizes: the types of a runtime are compared in the ordinary form alone.
    """

    name: str
    tool: str
    environment: str
    options: Options
    forms: tuple[Form, ...] = FORMS


def _ort(name: str, method: str, activations: str) -> Setting:
    options = {"method": method, "activations": activations}
    return Setting(f"ONNX Runtime {name}", "ort", "onnxruntime", options)


def _modelopt(method: str) -> Setting:
    return Setting(f"modelopt {method}", "modelopt", "modelopt", {"method": method})


def _nncf(name: str, **options: Any) -> Setting:
    return Setting(name, "nncf", "nncf", options)


def _quantlab(name: str, method: str, policy: str = "tensorrt", **config: Any) -> Setting:
    """Return a setting of quantlab, with the backend that runs the policy's models."""
    backend = "onnxruntime" if policy == "onnxruntime" else "openvino"
    precisions = ["fp32", "int8"] if "repair" in config else ["int8"]  # a drop is against FP32
    precisions += ["fp16"] if config.get("search") else []
    options = {
        "calibration": {"method": method},
        "quantization": {"policy": policy},
        "engines": {"backend": backend, "precisions": precisions},
        **config,
    }
    forms = FORMS if policy == "tensorrt" else FORMS[:1]
    return Setting(f"quantlab {name}", QUANTLAB, QUANTLAB, options, forms)


SETTINGS: dict[str, Setting] = {
    "quantlab-mse": _quantlab("mse", "mse"),
    "quantlab-entropy": _quantlab("entropy", "entropy"),
    "quantlab-percentile": _quantlab("percentile", "percentile"),
    "quantlab-auto": _quantlab("auto", "auto"),
    "quantlab-repair": _quantlab("auto, repair", "auto", repair="auto"),
    "quantlab-search": _quantlab("search", "auto", repair="auto", search=True),
    "quantlab-auto-openvino": _quantlab("auto, for OpenVINO", "auto", "openvino"),
    "quantlab-repair-openvino": _quantlab(
        "auto, repair, for OpenVINO", "auto", "openvino", repair="auto"
    ),
    "quantlab-auto-onnxruntime": _quantlab("auto, for ONNX Runtime", "auto", "onnxruntime"),
    "ort-minmax-s8": _ort("MinMax, S8 symmetric", "MinMax", "QInt8"),
    "ort-entropy-s8": _ort("Entropy, S8 symmetric", "Entropy", "QInt8"),
    "ort-percentile-s8": _ort("Percentile, S8 symmetric", "Percentile", "QInt8"),
    "ort-minmax-u8": _ort("MinMax, U8", "MinMax", "QUInt8"),
    "ort-entropy-u8": _ort("Entropy, U8", "Entropy", "QUInt8"),
    "ort-percentile-u8": _ort("Percentile, U8", "Percentile", "QUInt8"),
    "modelopt-max": _modelopt("max"),
    "modelopt-entropy": _modelopt("entropy"),
    "nncf": _nncf("NNCF default"),
    "nncf-mixed": _nncf("NNCF, mixed preset", preset="MIXED"),
    "nncf-accuracy": _nncf("NNCF, accuracy control", accuracy=True),
}
"""By name on the command line."""


def for_tensorrt(setting: str) -> bool:
    """Whether a setting is quantlab's under TensorRT's rules."""
    placed = SETTINGS[setting].options.get("quantization", {})
    return bool(placed.get("policy") == "tensorrt")
