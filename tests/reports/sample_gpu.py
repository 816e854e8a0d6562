"""The sample as a run with TensorRT would make it: fusions, engine files, and a GPU's own clock.

The numbers are made up.  ``python -m tests.reports.sample_gpu > tests/reports/sample_gpu.md`` from
the root writes the golden file anew; read its diff before keeping it.
"""

import sys
from dataclasses import replace

from quantlab.measured import DevicePerformance, Percentiles, Performance
from quantlab.records import Decision, EngineReport, Fusion, Layer, Report
from tests.reports.sample import sample

BACKEND = "tensorrt 10.16.1.11"
DEVICE = "NVIDIA A10"
COPY = "Reformatting CopyNode for Input Tensor 0 to /layer4/conv3/Conv"
FACTS = {
    "TensorRT": BACKEND,
    "built on": "NVIDIA A10 (compute capability 8.6)",
    "types": "as in the graph",
    "TF32": "off",
    "version-compatible": "no",
    "hardware-compatible": "none",
    "weights": "in the plan",
    "profiles": "image 1x3x224x224 to 32x3x224x224, best at 8x3x224x224",
}


def gpu_sample() -> Report:
    """Return the sample's model, run by TensorRT."""
    base = sample()
    added = Decision(
        "/add0",
        "Add",
        quantized=False,
        rule="float-add",
        reason="no convolution to fuse it into",
    )
    return replace(
        base,
        engines=tuple(map(_engine, base.engines)),
        placement=(*base.placement, added),
        command="quantlab run resnet18-tensorrt.yaml",
    )


def _engine(base: EngineReport) -> EngineReport:
    int8 = base.precision == "int8"
    copy = Layer(COPY, "Reformat", "i8", weighted=False, ms=0.014)
    digest = {"fp32": "1", "fp16": "2", "int8": "3"}[base.precision] * 64
    own = {"quantization": "explicit", "calibration cache, SHA-256": "9a1c" * 16} if int8 else {}
    return replace(
        base,
        backend=BACKEND,
        device=DEVICE,
        notes=(),
        threads=1,
        performance=tuple(_timed(base, found) for found in base.performance),
        layers=(*base.layers, copy) if int8 else base.layers,
        fusions=_fusions(int8=int8),
        facts={**FACTS, **own, "plan, SHA-256": digest},
    )


def _fusions(*, int8: bool) -> tuple[Fusion, ...]:
    chains = tuple(
        Fusion(f"/layer{stage}/conv{index}/Conv", "vertical", nodes)
        for stage in range(1, 5)
        for index in range(4)
        if (nodes := (f"/layer{stage}/conv{index}/Conv", f"/layer{stage}/relu{index}/Relu"))
    )
    if not int8:
        return chains
    return (
        *chains,
        Fusion("/layer2/conv0/Conv", "horizontal", ("/layer2/conv0/Conv", "/layer2/down/Conv")),
        Fusion("", "removed", ("/concat/Concat",)),
    )


def _timed(engine: EngineReport, found: Performance) -> Performance:
    def spread(middle: float) -> Percentiles:
        return Percentiles(middle, middle * 1.02, middle * 1.09)

    bound = engine.precision == "int8" and found.batch == 1
    warning = "enqueue takes 0.95 of the GPU's time: the host holds it back; try 'cuda_graph: true'"
    device = DevicePerformance(
        compute_ms=spread(found.p50_ms * 0.82),
        h2d_ms=spread(0.011 * found.batch),
        d2h_ms=spread(0.004 + 0.0002 * found.batch),
        enqueue_ms=spread(found.p50_ms * (0.78 if bound else 0.1)),
        throughput_without_transfers=found.throughput * 1.12,
        cuda_graph=engine.precision == "fp16",
        clocks_mhz=(1695, 1695) if engine.precision == "fp32" else (1605, 1695),
        power_watts=None if engine.precision == "fp16" else (118.4, 146.0),
        warnings=(warning,) if bound else (),
    )
    return replace(found, device=device)


if __name__ == "__main__":
    from quantlab.reports import compose, markdown

    sys.stdout.write(markdown.render(gpu_sample(), compose(gpu_sample())))
