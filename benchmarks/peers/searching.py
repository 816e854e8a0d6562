"""KL search alone: how long each tool takes for a tensor's threshold, histogram in hand."""

import statistics
import time
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.peers.request import Request

REPEATS = 9
"""Of a search that takes milliseconds, after one that is not timed; the slow ones run once."""

Search = tuple[str, Callable[[], object]]


def quantlab(request: Request) -> Callable[[], dict[str, float]]:
    """Time quantlab's Entropy on its 4096 bins."""
    from quantlab.calibrators.entropy import Entropy
    from quantlab.histogram import Histogram

    stored = np.load(request.histograms)
    histograms = [
        Histogram(
            tensor=str(name),
            counts=stored["quantlab"][index],
            exponent=int(stored["exponents"][index]),
            minimum=float(stored["ranges"][index, 0]),
            maximum=float(stored["ranges"][index, 1]),
            zeros=int(stored["zeros"][index]),
        )
        for index, name in enumerate(stored["names"])
    ]
    method = Entropy()
    return lambda: _timed(((h.tensor, _bound(method.threshold, h)) for h in histograms), REPEATS)


def onnxruntime(request: Request) -> Callable[[], dict[str, float]]:
    """Time ONNX Runtime's search on 2048 bins, 128 quantized."""
    from onnxruntime.quantization.calibrate import HistogramCollector

    collector = HistogramCollector("entropy", True, 2048, 128, 99.999, "same")  # noqa: FBT003  # its own signature
    stored = np.load(request.histograms)
    histograms = {
        str(name): (
            stored["signed"][index],
            stored["edges"][index],
            *stored["ranges"][index],
            stored["edges"][index, -1],
        )
        for index, name in enumerate(stored["names"])
    }
    search = collector.get_entropy_threshold
    return lambda: _timed(((name, _bound(search, h, 128)) for name, h in histograms.items()), 0)


def modelopt(request: Request) -> Callable[[], dict[str, float]]:
    """Time the search of modelopt's calibrator for PyTorch on 2048 bins of magnitudes."""
    module = import_module("modelopt.torch.quantization.calib.histogram")
    search = module._compute_amax_entropy  # its public calibrator collects from tensors
    stored = np.load(request.histograms)
    histograms = {
        str(name): (stored["absolute"][index], stored["absolute_edges"][index])
        for index, name in enumerate(stored["names"])
    }
    return lambda: _timed(((n, _bound(search, *h, 8, False)) for n, h in histograms.items()), 0)  # noqa: FBT003


def _bound(function: Callable[..., Any], *arguments: object) -> Callable[[], object]:
    return lambda: function(*arguments)


def _timed(searches: Iterable[Search], repeats: int) -> dict[str, float]:
    """Return milliseconds by tensor: the median of the repeats, or of the one run if 0."""
    milliseconds = {}
    for name, search in searches:
        times = []
        for _ in range(repeats + 1):
            started = time.perf_counter()
            search()
            times.append(1000 * (time.perf_counter() - started))
        milliseconds[name] = statistics.median(times[1:] or times)
    return milliseconds


WORKS: dict[str, Callable[[Request], Callable[[], dict[str, float]]]] = {
    "quantlab": quantlab,
    "ort": onnxruntime,
    "modelopt": modelopt,
}
"""By the second part of a search's name."""
