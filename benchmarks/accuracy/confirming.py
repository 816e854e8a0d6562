"""What has a limit, on the rest of the test split too.

On the samples that all are judged on, some 0.4 points of top-1 are chance, more than the limits.
So what a limit holds is measured on the whole test split.  And of many peers the best on some
samples is also the luckiest on them: the choice is made on the samples that all are judged on, and
the two are compared on the rest.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmarks.accuracy.judging import (
    float_outputs,
    numbers,
    outputs,
    paired,
    place_of,
    scores,
)
from benchmarks.accuracy.material import Material, Source
from benchmarks.accuracy.networks import ALL
from benchmarks.accuracy.request import FORMS, INT8
from benchmarks.accuracy.results import COMPARED, Results, Row, confirmation
from benchmarks.accuracy.stored import Found, digest, once
from benchmarks.accuracy.tasks import TASKS, Rows, Samples

HELD = {"quantlab-auto": ("ordinary",), "quantlab-repair": ("hard",), "quantlab-search": FORMS}
"""Settings with a limit on what is lost, and the forms that it is for."""


def pairs(results: Results) -> Iterator[tuple[Row, Row]]:
    """Yield each compared row of an ordinary network with the peer that is best."""
    rows = [row for row in results.rows if row.drop is not None and row.form == "ordinary"]
    for row in rows:
        kind = COMPARED.get(row.setting)
        peers = [r for r in rows if r.peer and r.key == row.key and r.symmetric == kind]
        if peers:
            yield row, min(peers, key=lambda peer: peer.drop or ())


def asked(results: Results) -> Iterator[tuple[Row, Row | None]]:
    """Yield each row of a classifier that has a limit, and the best peer if it is compared."""
    best = {(row.key, row.setting): peer for row, peer in pairs(results)}
    for row in results.rows:
        peer = best.get((row.key, row.setting))
        if row.metric == "top1" and row.drop and (peer or row.form in HELD.get(row.setting, ())):
            yield row, peer


def confirmed(material: Material, own: str, peer: str | None, source: Source) -> Found:
    """Return what ``own`` loses on the whole test split, and beyond ``peer`` on the rest.

    The rest are the samples that none was judged on.

    Returns:
        ``whole``, how many samples, and ``lost``: value, low and high; with a peer also ``peer``,
        ``samples`` of the rest, and ``beyond``.  Nothing if no sample is left.
    """
    paths = {name: material.cell(name) / INT8 for name in (own, peer) if name is not None}
    key = {
        "models": {name: digest(path) for name, path in paths.items()},
        "evaluation": digest(material.folder / "evaluation.npz"),
    }

    def work() -> Found:
        rest = _rest(material.network.task, source.data, source.evaluation)
        if not len(rest.inputs):
            return {}
        rows = {name: _scores(material, path, rest) for name, path in paths.items()}
        lost = paired(
            np.concatenate([_float_scores(material), _scores(material, material.model, rest)]),
            np.concatenate([scores(material, own), rows[own]]),
        )
        whole = source.evaluation + len(rest.inputs)
        found: Found = {"whole": whole, "lost": numbers(lost)}
        if peer is not None:
            beyond = numbers(paired(rows[peer], rows[own]))
            found |= {"peer": peer, "samples": len(rest.inputs), "beyond": beyond}
        return found

    return once(confirmation(material, own), key, work)


@lru_cache(maxsize=1)  # the networks of a task share it
def _rest(task: str, data: Path, count: int) -> Samples:
    """Return what is behind the first ``count`` samples of a task's test split."""
    return TASKS[task].evaluation(data, ALL).after(count)


def _float_scores(material: Material) -> Rows:
    """Return FP32's scores on the samples that all are judged on."""
    found = float_outputs(material)
    return material.task.scores(found, material.evaluation().labels, found)[material.task.metric]


def _scores(material: Material, path: Path, samples: Samples) -> Rows:
    """Return a model's scores on other samples, computed once for each model."""
    key = {"model": digest(path), "samples": len(samples.inputs)}

    def work() -> Found:
        found = outputs(path, samples.inputs)
        rows = material.task.scores(found, samples.labels, found)[material.task.metric]
        return {"scores": rows.tolist()}

    return np.asarray(once(place_of(material, path, "-rest"), key, work)["scores"], np.float64)
