"""Diagnosis: the error that each layer, tensor and weight adds, alone and when all but it is INT8.

How it stays cheap, for n rows and K segments (``chain.py``):

- Prefixes are shared.  Every row needs two runs: with only it quantized, and with all but it.  Both
  begin at the segment that the row is in, from tensors that were kept: on average half of the
  network is run, and no row needs a compiled model of its own.
- Variants are batched in one compiled model a segment.  It has a switch for everything that is
  quantized (``switches.py``), so compiling takes the time of 3 K small sessions whatever n is.
- Rows that mean the same inputs are run once, and what comes out of a segment unchanged is not run
  further.

So the cost is one to three times n passes of FP32 over the samples.  One batch is in memory, and of
it the tensors of one segment at a time.

Samples: a few dozen tell the order of the rows; errors are of these samples alone.
"""

import time
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from quantlab.analyze.chain import compile_chain
from quantlab.analyze.measure import Edges, Judged, Tally
from quantlab.analyze.rows import rows
from quantlab.analyze.steady import check_steady
from quantlab.analyze.switches import stored_array
from quantlab.analyze.words import Evidence, findings
from quantlab.datasets.base import Batch
from quantlab.errors import ConfigError, DataError
from quantlab.findings import Analysis, Sensitivity
from quantlab.graph.insert_qdq import nearest_grid
from quantlab.graph.view import constant
from quantlab.metrics.base import Metric
from quantlab.progress import Advance
from quantlab.qparams import dequantize, fake_quantize
from quantlab.registry import nearest
from quantlab.simulate import Draft, decibels, power_of, session

KINDS = ("layer", "activation", "weight")
"""In the order of an analysis."""


def analyze(
    draft: Draft,
    batches: Iterable[Batch],
    *,
    metric: Metric | None = None,
    output: str | None = None,
    advance: Advance = lambda _: None,
) -> Analysis:
    """Return what quantizing each part of ``draft`` costs on some samples.

    Args:
        draft: the INT8 model in the making.
        batches: the samples; each is run by itself.
        metric: whose drop is told; only SQNR is if None, or if it compares with labels and there
            are none.
        output: name of the output that errors are told at and the metric judges; errors of all
            outputs and the metric of the first if None.
        advance: called with the number of samples done so far.

    Raises:
        ModelError: the model gives other outputs for the same samples.
        DataError: there is no sample, or the metric cannot judge the output.
        ConfigError: the model has no such output.
        EngineError: the model cannot be compiled or run.
    """
    started = time.perf_counter()
    known = [str(v.name) for v in draft.model.graph.outputs if not constant(v)]
    tally, notes = None, []
    for batch in batches:
        if tally is None:
            plain = session(draft.model)
            check_steady(draft.model, plain, batch.arrays)
            judged, note = _judged(metric, output, known, batch)
            notes += [note] if note else []
            outputs = [output] if output else known
            tally = Tally(compile_chain(draft), rows(draft.model, draft.placement), outputs, judged)
        tally.add(batch)
        advance(tally.samples)
    if tally is None:
        raise DataError("no sample to analyze; give the dataset samples, or a larger 'samples'")
    ranked, whole = _sensitivities(draft, tally)
    chosen = metric if tally.judged else None
    shifts = {row.name: own.shift for row, own in tally.own.items() if row.kind == "layer"}
    evidence = Evidence(tally.channels, shifts)
    return Analysis(
        samples=tally.samples,
        seconds=time.perf_counter() - started,
        all_db=decibels(whole),
        metric=chosen.name if chosen else "",
        unit=chosen.unit if chosen else "",
        rows=ranked,
        findings=findings(draft, ranked, evidence, decibels(whole)),
        notes=tuple(notes),
    )


def _judged(
    metric: Metric | None, output: str | None, outputs: Sequence[str], batch: Batch
) -> tuple[Judged | None, str]:
    """Return what the metric is taken of, or why none is."""
    if output is not None and output not in outputs:
        raise ConfigError(f"the model has no output {output!r}; {nearest(output, list(outputs))}")
    if metric is None:
        return None, "no metric was judged: none was asked for"
    if metric.compares == "labels" and batch.labels is None:
        return None, f"no metric was judged: {metric.name} compares with labels, there are none"
    return Judged(metric, output or outputs[0]), ""


def _sensitivities(draft: Draft, tally: Tally) -> tuple[tuple[Sensitivity, ...], float]:
    """Return all rows, ranked, and the error of INT8."""
    whole, alone, without = tally.errors()
    drops = _drops(tally)
    weights = _weight_errors(draft)
    parts = [row for group in tally.rows.values() for row in group]
    found = []
    for row in parts:
        own = weights[row.name] if row.kind == "weight" else tally.own[row].error
        found.append(
            Sensitivity(
                name=row.name,
                kind=row.kind,
                layer=row.layer,
                op=row.op,
                own_db=decibels(own),
                alone_db=decibels(alone[row.edges]),
                without_db=decibels(without[row.edges]),
                drop=drops.get(row.edges),
            )
        )
    errors = [alone[row.edges] for row in parts]
    order = sorted(range(len(found)), key=lambda i: (KINDS.index(found[i].kind), -errors[i]))
    return tuple(found[i] for i in order), whole


def _drops(tally: Tally) -> dict[Edges, float]:
    """Return what the metric loses for each set of inputs."""
    if tally.judged is None:
        return {}
    metric = tally.judged.metric
    sign = 1 if metric.higher_is_better else -1
    before = float(metric.value(np.concatenate(tally.scores)))
    return {
        edges: sign * (before - float(metric.value(np.concatenate(variant.scores))))
        for edges, variant in tally.variants.items()
    }


def _weight_errors(draft: Draft) -> Mapping[str, float]:
    """Return the error of each quantized weight itself, by initializer."""
    found = {}
    for weight in draft.placement.weights:
        plain = stored_array(draft.model.graph.initializers[weight.initializer])
        stored = draft.corrections.weights.get(weight.initializer)
        if stored is None:
            int8 = fake_quantize(plain, nearest_grid(plain, weight.axis))
        else:
            int8 = dequantize(stored.integers, stored.params)
        power = power_of(plain)
        found[weight.initializer] = power_of(int8, plain) / power if power else 0.0
    return found
