"""The shipped configs from end to end: speed, accuracy and precision of the INT8 engine."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import quantlab
from benchmarks.figures import Figure, Share
from quantlab.records import EngineReport, Layer, Report

SPEEDUP = 1.5
TOP1_DROP = 0.3
CONVOLUTIONS = ("Convolution", "GroupConvolution")


def run(config: Path, folder: Path) -> Report:
    """Do the config's whole job in ``folder``."""
    return quantlab.run(config, output=folder).report


def figures(network: str, report: Report, *, limits: bool) -> Iterator[Figure]:
    """Yield the speedups, the drop of top-1, and the share of convolutions in integers."""
    int8 = engine(report, "int8")
    for row in int8.performance:
        assert row.speedup is not None
        yield Figure(
            name=f"{network}: INT8 / FP32 throughput, batch {row.batch}",
            value=row.speedup.value,
            unit="x",
            low=row.speedup.low,
            high=row.speedup.high,
            how=f"{int8.backend}, {int8.threads} threads, {row.rounds} interleaved rounds, "
            f"{row.inferences} inferences of INT8; spread is the 95 % interval over rounds",
            at_least=SPEEDUP if limits else None,
        )
    convolutions = [layer for layer in int8.layers if layer.type in CONVOLUTIONS]
    share = sum(layer.integer for layer in convolutions) / len(convolutions)
    yield Figure(
        name=f"{network}: convolutions in integer arithmetic, of {len(convolutions)}",
        value=100 * share,
        unit="%",
        low=100 * share,
        high=100 * share,
        how="precision of each executed layer as the engine tells it",
        at_least=100.0 if limits else None,
    )
    top1 = int8.accuracy["top1"]  # subtracted from 0.0 below, as -0.0 would print a sign
    assert top1.delta is not None
    yield Figure(
        name=f"{network}: top-1 lost by INT8",
        value=0.0 - top1.delta.value,
        unit="points",
        low=0.0 - top1.delta.high,
        high=0.0 - top1.delta.low,
        how=f"paired with FP32 on {top1.samples} images; spread is the 95 % interval",
        at_most=TOP1_DROP if limits else None,
    )


def shares(report: Report) -> list[Share]:
    """Return where the time of one inference goes, FP32 beside INT8, by kind of layer."""
    fp32, int8 = engine(report, "fp32").layers, engine(report, "int8").layers
    kinds = dict.fromkeys(kind(layer) for layer in (*fp32, *int8))
    return [Share(name, _spent(fp32, name), _spent(int8, name)) for name in kinds]


def reasons(network: str, report: Report) -> Iterator[str]:
    """Yield why INT8 is not faster, for each batch size where it is not."""
    slow = list(_not_faster(shares(report)))
    for row in engine(report, "int8").performance:
        if row.speedup is not None and row.speedup.value < 1:
            yield (
                f"{network}, batch {row.batch}: INT8 is slower than FP32; these layers gain "
                f"nothing or exist only in INT8: {', '.join(slow) or 'none'}"
            )


def _not_faster(found: Sequence[Share]) -> Iterator[str]:
    for share in found:
        if share.int8_ms >= share.fp32_ms:
            yield f"{share.kind} ({share.fp32_ms:.3f} ms in FP32, {share.int8_ms:.3f} in INT8)"


def engine(report: Report, precision: str) -> EngineReport:
    """Return the report's engine of this precision."""
    return next(e for e in report.engines if e.precision == precision)


def kind(layer: Layer) -> str:
    """Return a reader's word for a layer of OpenVINO; its own word for the rarer ones."""
    if layer.type in CONVOLUTIONS:
        return "depthwise convolution" if "_dw" in layer.kernel else "convolution"
    names = {"FullyConnected": "matrix product", "Subgraph": "elementwise", "Reorder": "reorder"}
    return names.get(layer.type, layer.type.lower())


def _spent(layers: Sequence[Layer], name: str) -> float:
    return sum(layer.ms or 0.0 for layer in layers if kind(layer) == name)
