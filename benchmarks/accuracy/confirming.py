"""The comparison with the best peer, on samples that it was not chosen by.

Of many peers the best on some samples is also the luckiest on them.  So the choice is made on the
samples that all are judged on, and the two are compared on the rest of the test split.
"""

from collections.abc import Iterator

from benchmarks.accuracy.judging import numbers, outputs, paired
from benchmarks.accuracy.material import Material, Source
from benchmarks.accuracy.networks import ALL
from benchmarks.accuracy.request import INT8
from benchmarks.accuracy.results import COMPARED, Results, Row, confirmation
from benchmarks.accuracy.stored import Found, digest, once


def pairs(results: Results) -> Iterator[tuple[Row, Row]]:
    """Yield each compared row of an ordinary network with the peer that is best."""
    rows = [row for row in results.rows if row.drop is not None and row.form == "ordinary"]
    for row in rows:
        kind = COMPARED.get(row.setting)
        peers = [r for r in rows if r.peer and r.key == row.key and r.symmetric == kind]
        if peers:
            yield row, min(peers, key=lambda peer: peer.drop or ())


def confirmed(material: Material, own: str, peer: str, source: Source) -> Found:
    """Return what ``own`` loses beyond ``peer`` on the samples that none was judged on.

    Returns:
        ``peer``, ``samples`` and ``beyond``: value, low and high; nothing if no sample is left.
    """
    paths = {name: material.cell(name) / INT8 for name in (own, peer)}
    key = {
        "models": {name: digest(path) for name, path in paths.items()},
        "evaluation": digest(material.folder / "evaluation.npz"),
    }

    def work() -> Found:
        rest = material.task.evaluation(source.data, ALL).after(source.evaluation)
        if not len(rest.inputs):
            return {}
        rows = {
            name: material.task.scores(found, rest.labels, found)[material.task.metric]
            for name, found in ((name, outputs(path, rest.inputs)) for name, path in paths.items())
        }
        beyond = numbers(paired(rows[peer], rows[own]))
        return {"peer": peer, "samples": len(rest.inputs), "beyond": beyond}

    return once(confirmation(material, own), key, work)
