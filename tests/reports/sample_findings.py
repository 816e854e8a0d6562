"""What diagnosis, repairs and search could find of the sample's network: made-up numbers."""

import math

from quantlab.findings import (
    Analysis,
    Finding,
    Plan,
    Repaired,
    Searched,
    Sensitivity,
    Trial,
)
from quantlab.records import Precision

PLANTED = "/layer1/conv0/Conv"
SECOND = "/layer4/conv3/Conv"


def analysis() -> Analysis:
    """Return a network of which one layer, by its weights, costs most."""
    rows = [_sensitivity(stage, index) for stage in range(1, 5) for index in range(4)]
    layers = [row for parts in rows for row in parts if row.kind == "layer"]
    activations = [row for parts in rows for row in parts if row.kind == "activation"]
    weights = [row for parts in rows for row in parts if row.kind == "weight"]
    ranked = [sorted(kind, key=lambda row: row.alone_db or 0) for kind in (layers, activations)]
    exact = Sensitivity("fc.weight", "weight", "/fc/Gemm", "Gemm", 52.0, None, 12.4, 0.0)
    return Analysis(
        samples=64,
        seconds=38.4,
        all_db=12.4,
        metric="top1",
        unit="%",
        rows=(*ranked[0], *ranked[1], *sorted(weights, key=lambda row: row.alone_db or 0), exact),
        findings=(
            Finding(
                PLANTED,
                "alone it takes the network's output to 13.1 dB; its weights do, not what it "
                "reads: the largest channel is 190 times the median one, so that most channels "
                "have less than one step of a tensor-wide scale",
                "equalize",
            ),
            Finding(SECOND, "the activation has 3 outlier channels of 512", "outliers"),
        ),
        notes=("labels were read for 64 samples: a change below 1.6 points is one sample",),
    )


def _sensitivity(stage: int, index: int) -> tuple[Sensitivity, ...]:
    node = f"/layer{stage}/conv{index}/Conv"
    alone = {PLANTED: 13.1, SECOND: 21.7}.get(node, 30 + 3.1 * stage + 1.7 * index)
    tensor = f"/layer{stage}/relu{index}/Relu_output_0"
    weight = f"layer{stage}.conv{index}.weight"
    planted = node == PLANTED
    reads = alone + (16 if planted else 0.6)
    holds = alone + (0.1 if planted else 9)
    without = 28.9 if planted else 12.4 + 10 ** (-alone / 20)
    lost = round(max(0.0, 60 * 10 ** (-alone / 10) - 0.02), 2)
    return (
        Sensitivity(node, "layer", node, "Conv", alone + 4, alone, without, lost),
        Sensitivity(tensor, "activation", node, "Conv", reads + 9, reads, without, lost / 8),
        Sensitivity(weight, "weight", node, "Conv", holds + 2, holds, without, lost / 2),
    )


def repaired() -> Repaired:
    """Return trials of which half helped."""
    trials = (
        Trial("method", "percentile 99.99", 9.8, 12.4, kept=True, seconds=0.4),
        Trial("method", "mse", 12.4, 11.9, kept=False, seconds=0.5),
        Trial("equalize", "9 pairs of layers", 12.4, 29.6, kept=True, seconds=3.1),
        Trial(
            "smooth",
            "",
            29.6,
            29.6,
            kept=False,
            seconds=0.01,
            note="no MatMul behind a LayerNormalization or Gelu: the model stays as it was",
        ),
        Trial("bias", "17 layers", 29.6, 31.2, kept=True, seconds=4.2, note="17 biases moved"),
        Trial("adaround", SECOND, 31.2, 30.8, kept=False, seconds=60, note="out of time"),
    )
    return Repaired(held_back=128, before_db=9.8, after_db=31.2, trials=trials)


def searched() -> Searched:
    """Return a front from INT8, which loses too much, over mixed plans to FP16."""
    nodes = (PLANTED, SECOND, *(f"/layer{stage}/conv1/Conv" for stage in range(1, 5)))
    mixed = tuple(_plan(nodes[:kept]) for kept in range(1, 7))
    return Searched(
        target="top1_drop",
        limit=0.5,
        held_back=128,
        batch=8,
        builds=7,
        seconds=96.0,
        plans=(
            _whole("int8", (), 4.69, (28.9, 28.4, 29.5)),
            *mixed,
            _whole("fp16", nodes, 0.01, (59.6, 58.4, 61)),
            _whole("fp32", nodes, 0.0, (60.9, 59.3, 62.1)),
        ),
        chosen="int8 but 2",
        met=True,
        reason="It is the fastest plan that meets the target, and 1.96 times as fast as fp16.",
    )


def _whole(
    precision: Precision, kept: tuple[str, ...], drop: float, ms: tuple[float, float, float]
) -> Plan:
    share, floats = float(not kept), _kept(kept, precision)
    told = precision, precision, floats, share, drop, *ms
    return Plan(*told, "measured", meets=drop <= 0.5, on_front=True)


def _plan(kept: tuple[str, ...]) -> Plan:
    amount = len(kept)
    drop = round(1.3 * math.exp(-0.65 * amount) + (0.12 if amount == 4 else 0), 2)
    ms = 28.9 + 0.75 * amount
    return Plan(
        label=f"int8 but {amount}",
        precision="int8",
        floats=_kept(kept, "fp16"),
        macs_int8=1 - 0.035 * amount,
        accuracy=drop,
        latency_ms=ms,
        low=ms * (0.985 if amount < 4 else 0.94),
        high=ms * (1.02 if amount < 4 else 1.07),
        speed="measured" if amount < 4 else "modelled",
        meets=drop <= 0.5,
        on_front=amount != 4,
    )


def _kept(nodes: tuple[str, ...], kind: str) -> tuple[tuple[str, str], ...]:
    return tuple((node, kind) for node in nodes)
