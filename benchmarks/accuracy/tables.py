"""The results as tables of text, for the terminal and for docs/accuracy.md."""

from collections.abc import Iterable, Sequence

from benchmarks.accuracy.results import Results, Row
from benchmarks.accuracy.settings import SETTINGS
from benchmarks.accuracy.timing import ratio
from benchmarks.figures import Figure
from benchmarks.peers.tables import GIB, markdown

Line = tuple[str, ...]

ACCURACY = (
    *("setting", "types", "lost", "95 % interval", "retrieved", "s", "peak GiB"),
    *("layers in INT8", "MACs in INT8"),
)
SPEED = (
    *("setting", "OpenVINO x FP32, batch 1", "batch 32", "integer kernels", "blocked"),
    *("ONNX Runtime x FP32, batch 1", "batch 32", "integer kernels"),
)
FIGURES = ("figure", "value", "interval", "limit", "met")
OVERVIEW = ("network", "FP32", "quantlab auto", "quantlab auto, repair", "best peer", "which")
DIGITS = {"top1": 2, "psnr": 3, "cosine": 5}
UNITS = {"top1": "%", "psnr": "dB", "cosine": ""}
NONE = ""


def groups(results: Results) -> dict[str, list[Row]]:
    """Return the rows of each network and form, by "network, form"."""
    found: dict[str, list[Row]] = {}
    for row in results.rows:
        found.setdefault(", ".join(row.key), []).append(row)
    return found


def accuracy(rows: Iterable[Row]) -> list[Line]:
    """Return a line for each setting; one that gave no model says why."""
    return [_accuracy(row) for row in rows]


def _accuracy(row: Row) -> Line:
    name, quantized = SETTINGS[row.setting].name, row.quantized
    peak = f"{quantized['peak_bytes'] / GIB:.2f}"
    if row.drop is None:
        why = {"time": "out of time", "memory": "out of memory"}.get(quantized["end"])
        why = why or quantized["error"] or row.judged.get("error", "not judged")
        took = f"{quantized['process_seconds']:.1f}"
        return (name, NONE, _cell(why), NONE, NONE, took, peak, NONE, NONE)
    digits = DIGITS[row.metric]
    contents = row.judged["contents"]
    value, low, high = row.drop
    retrieved = row.judged["metrics"].get("retrieved")
    return (
        name,
        ", ".join(contents["activations"]),
        f"{value:.{digits}f}",
        f"{low:.{digits}f} to {high:.{digits}f}",
        f"{retrieved['int8']:.1f} %" if retrieved else NONE,
        f"{quantized['seconds']:.1f}",
        peak,
        f"{contents['quantized']} of {contents['layers']}",
        f"{row.share:.0f} %",
    )


def speed(results: Results, rows: Sequence[Row]) -> list[Line]:
    """Return a line for each setting that was timed."""
    return [_speed(results, row) for row in rows if row.runtimes]


def _speed(results: Results, row: Row) -> Line:
    floats = results.floats["-".join(row.key)]
    cells: list[str] = [SETTINGS[row.setting].name]
    for runtime in ("openvino", "onnxruntime"):
        found = row.runtimes[runtime]
        if "kernels" not in found:
            cells += [_cell(found["error"]), *([NONE] * (3 if runtime == "openvino" else 2))]
            continue
        for batch in ("1", "32"):
            interval = ratio(found[batch], floats[runtime][batch])
            cells.append(f"{interval.value:.2f} ({interval.low:.2f} to {interval.high:.2f})")
        kernels = found["kernels"]
        cells.append(f"{kernels['integer']} of {kernels['weighted']}")
        if runtime == "openvino":
            cells.append(str(found["blocked"]))
    return tuple(cells)


def overview(results: Results) -> list[Line]:
    """Return a line for each network and form: what is lost, at a glance."""
    lines = []
    for name, rows in groups(results).items():
        judged = {row.setting: row for row in rows if row.drop is not None}
        if not judged:
            continue
        first = next(iter(judged.values()))
        digits = DIGITS[first.metric]
        peers = [row for row in judged.values() if row.peer]
        best = min(peers, key=lambda row: row.drop or (0.0,), default=None)
        ours = [judged.get(f"quantlab-{which}") for which in ("auto", "repair")]
        fp32 = first.judged["metrics"][first.metric]["fp32"]
        lines.append(
            (
                name,
                f"{fp32:.2f} {UNITS[first.metric]}".strip(),
                *(_lost(row, digits) for row in (*ours, best)),
                NONE if best is None else SETTINGS[best.setting].name,
            )
        )
    return lines


def _lost(row: Row | None, digits: int) -> str:
    return NONE if row is None or row.drop is None else f"{row.drop[0]:.{digits}f}"


def figures(found: Iterable[Figure]) -> list[Line]:
    """Return a line for each figure."""
    return [
        (
            figure.name,
            f"{figure.value:.4g} {figure.unit}".strip(),
            NONE if figure.low == figure.high else f"{figure.low:.4g} to {figure.high:.4g}",
            _limit(figure),
            {True: "yes", False: "MISSED", None: NONE}[figure.met],
        )
        for figure in found
    ]


def _limit(figure: Figure) -> str:
    if figure.at_least is not None:
        return f"at least {figure.at_least:g}"
    return NONE if figure.at_most is None else f"at most {figure.at_most:g}"


def _cell(text: str) -> str:
    """Return a text that does not break a table."""
    return text.replace("|", "/").replace("\n", " ")


def page(results: Results, found: Sequence[Figure]) -> str:
    """Return all tables in Markdown."""
    facts = results.facts
    host = facts["host"]
    parts = [
        f"{host['cpu']}, {host['usable_cores']} cores, {host['memory_bytes'] / GIB:.0f} GiB.",
        f"Seed {facts['seed']}, {facts['samples']} calibration samples.",
        "\n".join(f"- {name}: {_listed(of)}" for name, of in facts["versions"].items()),
        "### At a glance",
        markdown(OVERVIEW, overview(results)),
        "### Figures",
        markdown(FIGURES, figures(found)),
    ]
    for name, rows in groups(results).items():
        material = results.materials["-".join(rows[0].key)]
        planted = ", ".join(f"{n} {kind}" for kind, n in material["planted"].items())
        parts.append(f"### {name}")
        parts.append(
            f"Judged by {rows[0].metric} on {material['evaluation']} samples"
            + (f"; made hard at: {planted}." if planted else ".")
        )
        parts.append(markdown(ACCURACY, accuracy(rows)))
        if lines := speed(results, rows):
            parts.append(markdown(SPEED, lines))
    return "\n\n".join(parts)


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
