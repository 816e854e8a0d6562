"""The figures that quantlab is held to, from the outcomes of one run."""

from collections.abc import Iterator
from statistics import median

from benchmarks.figures import Figure
from benchmarks.peers.cell import TOOLS, Cell
from benchmarks.peers.results import Results

FASTER = {"ort-entropy": 5.0, "ort-minmax": 1.0, "modelopt-max": 1.0}
"""How many times longer each peer must take, at least."""

OURS = {"ort-entropy": "quantlab-entropy", "modelopt-entropy": "quantlab-entropy"}
"""What is compared with a peer, where it is not the default method."""

DEFAULT = "quantlab-mse"
JUDGED_IMAGES = 512
SEARCH = 200.0
MEMORY = 1.15


def figures(results: Results) -> Iterator[Figure]:
    """Yield every figure whose cells have finished outcomes; a killed peer has no ratio."""
    cells = results.cells()
    for model in dict.fromkeys(cell.model for cell in cells):
        for images in sorted({c.images for c in cells if c.model == model and c.tool in TOOLS}):
            yield from _speed(results, model, images)
            yield from _memory(results, model, images)
        yield from _search(results, model)


def _speed(results: Results, model: str, images: int) -> Iterator[Figure]:
    limits = FASTER if images == JUDGED_IMAGES else {}
    plain, default = (results.of(Cell(tool, model, images)) for tool in ("plain", DEFAULT))
    if plain and default:
        yield _figure(
            f"{model}, {images} images: {TOOLS[DEFAULT].name} / plain inference, wall time",
            [o.seconds for o in default],
            [o.seconds for o in plain],
        )
    for peer in (tool for tool in TOOLS if tool.startswith(("ort", "modelopt"))):
        own = OURS.get(peer, DEFAULT)
        theirs = results.of(Cell(peer, model, images))
        ours = results.of(Cell(own, model, images))
        if theirs and ours:
            yield _figure(
                f"{model}, {images} images: {TOOLS[peer].name} / {TOOLS[own].name}, wall time",
                [o.seconds for o in theirs],
                [o.seconds for o in ours],
                at_least=limits.get(peer),
            )


def _memory(results: Results, model: str, images: int) -> Iterator[Figure]:
    taps = results.of(Cell("plain-taps", model, images))
    ours = results.of(Cell(DEFAULT, model, images))
    if not (taps and ours):
        return
    yield _figure(
        f"{model}, {images} images: peak memory / plain inference with the same taps",
        [o.peak_bytes for o in ours],
        [o.peak_bytes for o in taps],
    )
    yield _figure(
        f"{model}, {images} images: the same, without what the libraries take",
        [o.peak_bytes - o.start_bytes for o in ours],
        [o.peak_bytes - o.start_bytes for o in taps],
        at_most=MEMORY if images == JUDGED_IMAGES else None,
    )


def _search(results: Results, model: str) -> Iterator[Figure]:
    found = {
        o.cell.tool: o.milliseconds
        for o in results.outcomes
        if o.cell.model == model and o.milliseconds
    }
    ours = found.get("search-quantlab")
    for tool, name in (("search-ort", "ONNX Runtime"), ("search-modelopt", "modelopt.torch")):
        if ours is None or tool not in found:
            continue
        theirs = found[tool]
        ratios = [theirs[tensor] / ours[tensor] for tensor in ours]
        yield Figure(
            name=f"{model}: KL search, {name} at 2048 bins / quantlab at 4096",
            value=sum(theirs.values()) / sum(ours.values()),
            unit="x",
            low=min(ratios),
            high=max(ratios),
            how=f"of the sums over {len(ours)} tensors; spread is that of the tensors",
            at_least=SEARCH if tool == "search-ort" else None,
        )


def _figure(
    name: str,
    over: list[float] | list[int],
    under: list[float] | list[int],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Figure:
    return Figure(
        name=name,
        value=median(over) / median(under),
        unit="x",
        low=min(over) / max(under),
        high=max(over) / min(under),
        how=f"ratio of medians over {len(over)} and {len(under)} processes; spread of extremes",
        at_least=at_least,
        at_most=at_most,
    )


def broken(results: Results) -> Iterator[str]:
    """Yield what should have finished: every cell of quantlab, and peers that were not killed."""
    for outcome in results.outcomes:
        own = outcome.cell.tool.startswith(("quantlab", "plain"))
        if outcome.end == "failed" or (own and outcome.end != "finished"):
            cell = outcome.cell
            yield f"{cell.model} {cell.images} {cell.tool}: {outcome.end} {outcome.error}".strip()
