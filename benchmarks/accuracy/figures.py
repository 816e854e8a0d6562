"""The figures that quantlab is held to, from the results of one benchmark."""

from collections.abc import Iterator, Sequence

from benchmarks.accuracy.confirming import pairs
from benchmarks.accuracy.results import Results, Row
from benchmarks.accuracy.settings import SETTINGS, TARGETS
from benchmarks.accuracy.stored import Found
from benchmarks.accuracy.timing import fastest, ratio, throughput
from benchmarks.figures import Figure
from quantlab.measured import Interval

AUTO, REPAIR, SEARCH = "quantlab-auto", "quantlab-repair", "quantlab-search"
UNSIGNED = "quantlab-auto-openvino"

PLAIN_DROP, HARD_DROP, WORSE = 0.3, 1.0, 0.1
"""Points of top-1: lost at most on ordinary and on hard networks, and beyond the best peer."""

COSINE, DECIBELS, SECONDS, SHARE = 0.997, 0.05, 60.0, 80.0
SAME_SPEED = 0.97
"""Of the fastest peer's throughput: repeats of one model differ by 3 %."""

ENGINES = (
    ("openvino", AUTO, True),
    ("openvino", UNSIGNED, False),
    ("onnxruntime", "quantlab-auto-onnxruntime", False),
)
"""Runtimes, a setting that is meant for each, and whether symmetric peers alone compare with it."""

LARGE = "32"
"""Batch size at which the fastest peer is looked for whose integer kernels are counted."""

UNITS = {"top1": "points", "psnr": "dB", "cosine": ""}
PAIRED = "95 % bootstrap interval over the evaluation samples, paired"


def figures(results: Results) -> Iterator[Figure]:
    """Yield every figure that has its cells."""
    for key in dict.fromkeys(row.key for row in results.rows):
        rows = {row.setting: row for row in results.rows if row.key == key}
        judged = {name: row for name, row in rows.items() if row.drop is not None}
        if key[1] == "ordinary":
            yield from _ordinary(results, judged)
        else:
            yield from _hard(results, judged)
        yield from _searched(results, judged)
        yield from _engines(list(rows.values()))
        yield from _plans(list(rows.values()))


def missed(found: Sequence[Figure]) -> list[str]:
    """Return the names of the figures that miss their limit."""
    return [figure.name for figure in found if figure.met is False]


def broken(results: Results) -> list[str]:
    """Return quantlab's cells that gave no model, in sentences."""
    return [
        f"{row.network} {row.form} {row.setting}: {row.quantized['end']} {row.quantized['error']}"
        for row in results.rows
        if not row.peer and row.quantized["end"] != "finished"
    ]


def _ordinary(results: Results, judged: dict[str, Row]) -> Iterator[Figure]:
    if AUTO in judged:
        row = judged[AUTO]
        limit = {"top1": PLAIN_DROP, "psnr": DECIBELS}.get(row.metric)
        yield _lost(results, row, limit)
        if row.metric == "psnr":
            seconds = row.quantized["process_seconds"]
            name = f"{row.network}: {SETTINGS[AUTO].name}, seconds of the process"
            yield Figure(name, seconds, "s", seconds, seconds, "one process", at_most=SECONDS)
    for row, best in pairs(results):
        if row is judged.get(row.setting):
            yield _behind(results, row, best)
    if REPAIR in judged and judged[REPAIR].metric == "cosine":
        yield _cosine(judged[REPAIR])
    elif REPAIR in judged and judged[REPAIR].metric == "psnr":
        yield _lost(results, judged[REPAIR], DECIBELS)


def _hard(results: Results, judged: dict[str, Row]) -> Iterator[Figure]:
    peers = [row for row in judged.values() if row.peer]
    if REPAIR in judged:
        row = judged[REPAIR]
        yield _lost(results, row, HARD_DROP if row.metric == "top1" else None)
        if row.metric == "cosine":
            yield _cosine(row)
    if peers:
        yield _lost(results, min(peers, key=_drop), None)


def _searched(results: Results, judged: dict[str, Row]) -> Iterator[Figure]:
    if SEARCH not in judged:
        return
    row = judged[SEARCH]
    _, limit = TARGETS[row.metric]
    yield _cosine(row) if row.metric == "cosine" else _lost(results, row, limit)
    name = f"{_where(row)}: {SETTINGS[SEARCH].name}, MACs in INT8"
    yield Figure(name, row.share, "%", row.share, row.share, "of constant weights", at_least=SHARE)


def _engines(rows: Sequence[Row]) -> Iterator[Figure]:
    for runtime, own, symmetric in ENGINES:
        timed = {r.setting: r for r in rows if "kernels" in r.runtimes.get(runtime, {})}
        peers = [row for row in timed.values() if row.peer and (row.symmetric or not symmetric)]
        if own not in timed:
            continue
        row = timed[own]
        where = f"{_where(row)}, {SETTINGS[own].name}, {runtime}"
        count = _blocked(row, runtime)
        yield Figure(
            f"{where}: Q/DQ pairs that block a fusion", count, "", count, count, "", at_most=0
        )
        if peers:
            rival = max(peers, key=lambda peer: throughput(peer.runtimes[runtime][LARGE]))
            mine, count = _integer(row, runtime), _integer(rival, runtime)
            name, note = f"{where}: integer kernels", f"{SETTINGS[rival.setting].name}, the fastest"
            yield Figure(name, mine, "", mine, mine, note, at_least=count)
            for batch in ("1", LARGE):
                theirs = fastest([peer.runtimes[runtime][batch] for peer in peers])
                interval = ratio(row.runtimes[runtime][batch], theirs)
                yield _speed(f"{where}, batch {batch}", interval)


def _plans(rows: Sequence[Row]) -> Iterator[Figure]:
    asked = [row for row in rows if row.plan]
    if asked:
        built = sum("bytes" in row.plan for row in asked)
        name = f"{_where(asked[0])}: models that TensorRT-RTX builds"
        yield Figure(name, built, "", built, built, f"of {len(asked)}", at_least=len(asked))


def _speed(where: str, interval: Interval) -> Figure:
    return Figure(
        f"{where}: speed over the fastest peer's",
        interval.value,
        "x",
        interval.low,
        interval.high,
        "throughputs; in each opening over the peer that is fastest in the others; 95 % interval "
        "over openings",
        at_least=SAME_SPEED,
    )


def _blocked(row: Row, runtime: str) -> int:
    """Count pairs that block: in ONNX Runtime, quantized layers that have no integer kernel."""
    if runtime == "openvino":
        return int(row.runtimes[runtime]["blocked"])
    layers = int(row.judged["contents"]["quantized"])
    return max(0, layers - _integer(row, runtime))


def _integer(row: Row, runtime: str) -> int:
    return int(row.runtimes[runtime]["kernels"]["integer"])


def _lost(results: Results, row: Row, limit: float | None) -> Figure:
    """Return what is lost, on the whole test split where that was measured."""
    whole = _confirmed(results, row)
    value, low, high = whole.get("lost") or row.drop or (0.0, 0.0, 0.0)
    name = f"{_where(row)}: {SETTINGS[row.setting].name}, {row.metric} lost"
    note = f"{PAIRED}, all {whole['whole']}" if "whole" in whole else PAIRED
    return Figure(name, value, UNITS[row.metric], low, high, note, at_most=limit)


def _cosine(row: Row) -> Figure:
    value, low, high = row.drop or (0.0, 0.0, 0.0)
    name = f"{_where(row)}: {SETTINGS[row.setting].name}, cosine to FP32"
    return Figure(name, 1 - value, "", 1 - high, 1 - low, PAIRED, at_least=COSINE)


def _behind(results: Results, row: Row, best: Row) -> Figure:
    name = f"{row.network}-{row.form}"
    value, low, high = results.beyond[name][row.setting][best.setting]
    note = f"{SETTINGS[best.setting].name}; {PAIRED}"
    fresh = _confirmed(results, row)
    if fresh.get("peer") == best.setting:
        value, low, high = fresh["beyond"]
        note += f", {fresh['samples']} that it was not chosen by"
    kind = "symmetric" if best.symmetric else "other"
    return Figure(
        f"{_where(row)}: {SETTINGS[row.setting].name}, {row.metric} lost beyond the best {kind} "
        "peer",
        value,
        UNITS[row.metric],
        low,
        high,
        note,
        at_most=WORSE if row.metric == "top1" else None,
    )


def _confirmed(results: Results, row: Row) -> Found:
    return dict(results.confirmed.get(f"{row.network}-{row.form}", {}).get(row.setting, {}))


def _drop(row: Row) -> float:
    return row.drop[0] if row.drop else float("inf")


def _where(row: Row) -> str:
    return row.network if row.form == "ordinary" else f"{row.network}, hard"
