"""How NNCF quantizes: ``nncf.quantize``, or ``quantize_with_accuracy_control``.

Samples come one at a time, and transformers are told to be such, as its documents advise.  Accuracy
control gets the last quarter of the calibration samples to judge by; its search is bounded, because
without bounds it runs the model for every quantizer on every sample.

Signed activations throughout, which TensorRT needs, it refuses for the target device ANY, the one
that was tried ("incompatible with HW capabilities"), so there is no such setting.
"""

from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.request import INT8, Array, Request
from benchmarks.accuracy.settings import Options

HELD_BACK = 0.25
DROPS = {"top1": 0.003, "psnr": 0.05, "cosine": 0.003}
"""Most that accuracy control may lose: a share of right answers, dB, cosine."""

ITERATIONS = 30
RANKED = 16
"""Layers that may go back to floating point, and samples that each is ranked on."""

Item = tuple[int, Array, Array]
"""A sample's place among all, itself, and its label; both with a first axis of 1."""


def nncf(request: Request, options: Options) -> Callable[[], None]:
    """Return the call of a setting."""
    import onnx

    library: Any = import_module("nncf")
    import_module("nncf.onnx.quantization.quantize_model")
    name, samples, labels = request.arrays()
    items = [(i, samples[i : i + 1], labels[i : i + 1]) for i in range(len(samples))]
    chosen = _chosen(library, request, options)

    def dataset(part: list[Item]) -> Any:
        return library.Dataset(part, lambda item: {name: item[1]})

    def call() -> None:
        model = onnx.load(request.model)
        if options.get("accuracy"):
            cut = round(len(items) * (1 - HELD_BACK))
            validate = Validation(name, request.metric, _outputs(model, name, samples))
            made = library.quantize_with_accuracy_control(
                model,
                dataset(items[:cut]),
                dataset(items[cut:]),
                validate,
                max_drop=DROPS[request.metric],
                subset_size=cut,
                advanced_accuracy_restorer_parameters=library.AdvancedAccuracyRestorerParameters(
                    max_num_iterations=ITERATIONS, ranking_subset_size=RANKED
                ),
                **chosen,
            )
        else:
            made = library.quantize(model, dataset(items), subset_size=len(items), **chosen)
        onnx.save(made, Path(request.folder) / INT8)

    return call


def _chosen(library: Any, request: Request, options: Options) -> dict[str, Any]:
    """Return the arguments that a setting asks for."""
    chosen: dict[str, Any] = {}
    if request.transformer:
        chosen["model_type"] = library.ModelType.TRANSFORMER
    if "preset" in options:
        chosen["preset"] = library.QuantizationPreset[options["preset"]]
    return chosen


class Validation:
    """Judges a model on items, as a user of accuracy control would write it."""

    def __init__(self, name: str, metric: str, reference: Array) -> None:
        self._name = name
        self._score = SCORES[metric]
        self._reference = reference

    def __call__(self, model: Any, items: Iterable[Item]) -> tuple[float, list[float]]:
        """Return the mean score, and each item's."""
        found = []
        session = _session(model)
        for index, sample, label in items:
            (output,) = session.run(None, {self._name: sample})
            found.append(self._score(output[0], label[0], self._reference[index]))
        return float(np.mean(found)), found


def _session(model: Any) -> Any:
    import onnxruntime

    serialized = model.SerializeToString()
    return onnxruntime.InferenceSession(serialized, providers=["CPUExecutionProvider"])


def _outputs(model: Any, name: str, samples: Array) -> Array:
    (found,) = _session(model).run(None, {name: samples})
    return np.asarray(found)


def _right(output: Array, label: Array, _: Array) -> float:
    return float(np.argmax(output) == label)


def _decibels(output: Array, label: Array, _: Array) -> float:
    errors = np.square(output.astype(np.float64) - label.astype(np.float64))
    return float(-10 * np.log10(errors.mean()))


def _cosine(output: Array, _: Array, reference: Array) -> float:
    a, b = output.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


SCORES: dict[str, Callable[[Array, Array, Array], float]] = {
    "top1": _right,
    "psnr": _decibels,
    "cosine": _cosine,
}
"""Score of one sample from output, label and FP32's output."""
