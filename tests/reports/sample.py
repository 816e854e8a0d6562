"""Reports to draw: one as a run would make it, and strange ones.

``python -m tests.reports.sample > tests/reports/sample.md`` from the root writes the golden file
anew; read its diff before keeping it.
"""

import math
import sys
from dataclasses import replace

import numpy as np

from quantlab.histogram import from_array
from quantlab.measured import Accuracy, Interval, Performance, TargetResult
from quantlab.qparams import scale_of
from quantlab.records import (
    CalibrationSummary,
    ClassReport,
    Decision,
    EngineReport,
    HistogramReport,
    Layer,
    ModelReport,
    Precision,
    Report,
    TensorReport,
)
from tests.reports.sample_findings import analysis, repaired, searched

HOSTILE = '<script>alert("1")</script>'
SPEED = {"fp32": 1.0, "fp16": 1.02, "int8": 2.1}
SIZE = {"fp32": 44_790_000, "fp16": 22_460_000, "int8": 11_390_000}
DROP = {"fp32": 0.0, "fp16": 0.01, "int8": 0.06}
CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag")


def performance(precision: Precision, batch: int) -> Performance:
    speed = SPEED[precision] ** (0.6 if batch == 1 else 1.0)
    rate = {1: 81.0, 8: 131.4, 32: 142.7}[batch] * speed
    ms = 1000 * batch / rate
    ratio = None if precision == "fp32" else Interval(speed, speed * 0.962, speed * 1.041)
    return Performance(
        batch, ms, ms * 1.08, ms * 1.41, rate, rate * 0.974, rate * 1.022, ratio, 320, 10
    )


def accuracies(precision: Precision) -> dict[str, Accuracy]:
    drop = DROP[precision]
    delta = None if precision == "fp32" else Interval(-drop, -drop - 0.11, -drop + 0.08)
    found = {
        "top1": Accuracy("top1", 93.21 - drop, 92.7 - drop, 93.7 - drop, delta, "%", True, 10_000)  # noqa: FBT003  # the record's order
    }
    if precision == "fp32":
        found["sqnr"] = Accuracy("sqnr", None, None, None, None, "dB", True, 10_000)  # noqa: FBT003
    else:
        value = {"fp16": 68.3, "int8": 31.24}[precision]
        found["sqnr"] = Accuracy("sqnr", value, value - 0.4, value + 0.3, None, "dB", True, 10_000)  # noqa: FBT003
    return found


def layers(precision: Precision) -> tuple[Layer, ...]:
    kind = {"fp32": "f32", "fp16": "f16", "int8": "i8"}[precision]
    convs = [
        Layer(
            f"/layer{stage}/conv{index}/Conv",
            "Convolution",
            "f32" if (stage, index) in {(1, 0), (4, 3)} else kind,
            weighted=True,
            ms=round(0.9 / stage + 0.05 * index, 3),
            kernel="brgconv_avx512",
        )
        for stage in range(1, 5)
        for index in range(4)
    ]
    others = [Layer(f"/add{i}", "Eltwise", "f32", weighted=False, ms=0.02) for i in range(8)]
    return (*convs, *others, Layer("/fc/Gemm", "FullyConnected", kind, weighted=True, ms=0.11))


def engine(precision: Precision) -> EngineReport:
    ran = layers(precision)
    weighted = [layer for layer in ran if layer.weighted]
    return EngineReport(
        precision=precision,
        backend="openvino",
        device="AMD EPYC 7B13 64-Core Processor",
        size_bytes=SIZE[precision],
        build_seconds={"fp32": 0.41, "fp16": 0.52, "int8": 1.73}[precision],
        ran={"fp32": "f32", "fp16": "f32", "int8": "f32 + i8"}[precision],
        threads=2,
        accuracy=accuracies(precision),
        performance=tuple(performance(precision, batch) for batch in (1, 8, 32)),
        weighted_layers=len(weighted),
        integer_layers=sum(layer.integer for layer in weighted),
        float_layers=tuple(layer.name for layer in weighted if not layer.integer),
        layers=ran,
        notes=("This CPU has no FP16 arithmetic; the engine computed in FP32.",)
        if precision == "fp16"
        else (),
    )


def tensor(index: int) -> tuple[TensorReport, HistogramReport]:
    """One tensor, its numbers from real samples of a skewed distribution."""
    rng = np.random.default_rng(index)
    name = HOSTILE if index == 7 else f"/layer{index // 8 + 1}/block{index % 8}/relu/Relu_output_0"
    values = np.maximum(rng.standard_t(3 + index % 9, 20_000) * (1 + index / 4), 0)
    found = from_array(name, values)
    threshold = float(np.quantile(values, 0.9995 - 0.0004 * (index % 5)))
    scale = scale_of(threshold)
    error = values - np.clip(np.rint(values / scale), -128, 127) * scale
    sqnr = 10 * math.log10(float(np.square(values).sum() / np.square(error).sum()))
    report = TensorReport(
        name=name,
        amax=found.amax,
        threshold=threshold,
        scale=scale,
        method="entropy",
        clipped_fraction=float((values > threshold).mean()),
        sqnr_db=sqnr,
        nan=3 if index == 12 else 0,
        inf=0,
        zero=found.zeros,
        elements=found.total,
    )
    used = found.counts.reshape(256, -1).sum(axis=1)
    upper = found.width * len(found.counts)
    return report, HistogramReport(name, upper, tuple(used.tolist()), threshold)


def sample() -> Report:
    """Return a report as a run of a small ResNet would make it."""
    tensors, histograms = zip(*(tensor(index) for index in range(30)), strict=True)
    worst = sorted(zip(tensors, histograms, strict=True), key=lambda pair: pair[0].sqnr_db or 0)
    return Report(
        schema_version=1,
        quantlab="0.1.0",
        created="2026-05-04T10:20:30+00:00",
        model=ModelReport(
            path="models/resnet18.onnx",
            sha256="5f2b" * 16,
            inputs=("image float32[N, 3, 224, 224]",),
            outputs=("logits float32[N, 1000]",),
            opset=17,
            nodes=49,
            parameters=11_689_512,
        ),
        engines=tuple(engine(precision) for precision in ("fp32", "fp16", "int8")),
        tensors=tensors,
        calibration=CalibrationSummary(
            "entropy", 512, 32, 21.3, 17.8, 734_003_200, "5f2b" * 16, "9a1c" * 16, 30
        ),
        histograms=tuple(histogram for _, histogram in worst[:12]),
        placement=placement(),
        classes=classes(),
        targets=(
            TargetResult("top1_drop", 1.0, DROP["int8"], met=True),
            TargetResult("speedup", 1.5, SPEED["int8"] ** 0.6, met=True),
        ),
        warnings=("2 of 17 weighted layers of the INT8 engine ran in FP32.",),
        host={"cpu": "AMD EPYC 7B13", "cores": 2, "memory_bytes": 8_200_000_000, "vnni": False},
        versions={"python": "3.12.4", "onnx": "1.18.0", "openvino": "2026.1.0"},
        config={
            "model": "models/resnet18.onnx",
            "calibration": {"dataset": {"kind": "npz", "path": "calib.npz"}, "samples": 512},
            "targets": {"top1_drop": 1.0, "speedup": 1.5},
        },
        command="quantlab run resnet18.yaml",
        analysis=analysis(),
        repair=repaired(),
        search=searched(),
        timings={"prepare": 0.31, "calibrate": 21.3, "build": 2.66, "evaluate": 141.2},
    )


def placement() -> tuple[Decision, ...]:
    weighted = "weights and activations are quantized: this is the work that INT8 is about"
    small = "the convolution has 3 input channels; INT8 kernels want at least 16"
    soft = "the operator computes in floating point"
    convs = [
        Decision(
            f"/layer{s}/conv{i}/Conv", "Conv", quantized=True, rule="weighted", reason=weighted
        )
        for s in range(1, 5)
        for i in range(4)
    ]
    return (
        Decision("/conv1/Conv", "Conv", quantized=False, rule="small-channels", reason=small),
        *convs,
        Decision("/fc/Gemm", "Gemm", quantized=True, rule="weighted", reason=weighted),
        Decision("/softmax", "Softmax", quantized=False, rule="float-only", reason=soft),
    )


def classes() -> tuple[ClassReport, ...]:
    return tuple(
        ClassReport(
            index,
            name,
            1000,
            {"fp32": 90 + index % 7, "fp16": 90 + index % 7, "int8": 90 + index / 3},
        )
        for index, name in enumerate((*CLASSES, "靴 <b>boot</b>"))
    )


def huge(tensors: int = 3000) -> Report:
    """Return the sample with very many tensors and layers."""
    base = sample()
    first = base.tensors[0]
    many = tuple(replace(first, name=f"t{i}", sqnr_db=20 + i / 100) for i in range(tensors))
    layer = base.engines[-1].layers[0]
    int8 = replace(
        base.engines[-1],
        layers=tuple(replace(layer, name=f"n{i}") for i in range(tensors)),
        float_layers=tuple(f"n{i}" for i in range(tensors)),
        weighted_layers=tensors,
        integer_layers=0,
    )
    return replace(base, tensors=many, engines=(*base.engines[:-1], int8))


if __name__ == "__main__":
    from quantlab.reports import compose, markdown

    sys.stdout.write(markdown.render(sample(), compose(sample())))
