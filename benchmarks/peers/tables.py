"""The outcomes as tables of text, for the terminal and for Markdown."""

from collections.abc import Iterable, Sequence
from statistics import median

from rich.table import Table

from benchmarks.figures import Figure
from benchmarks.peers.cell import SEARCHES, TOOLS, Cell
from benchmarks.peers.results import Results

GIB = 1 << 30

COSTS = ("tool", "images", "tensors", "wall s", "spread", "process s", "CPU s", "peak GiB", "runs")
FIGURES = ("figure", "value", "spread", "limit", "met")
SEARCH = ("search", "ms a tensor", "spread", "tensors")

HOW = (
    "Batches of {batch}. Every row a fresh process; wall from the call to the thresholds, imports "
    "excluded; medians over the runs. A process was killed at {limit:.1f} GiB."
)

Row = tuple[str, ...]


def costs(results: Results, model: str) -> list[Row]:
    """Return a row for each tool and number of images; medians over runs."""
    cells = [c for c in results.cells() if c.model == model and c.tool in TOOLS]
    return [_cost(results, cell) for cell in sorted(cells, key=lambda c: c.images)]


def _cost(results: Results, cell: Cell) -> Row:
    name, images = TOOLS[cell.tool].name, str(cell.images)
    runs = results.of(cell)
    if not runs:
        (last, *_) = results.of(cell, finished=False)
        peak, took = f"{last.peak_bytes / GIB:.2f}", f"{last.process_seconds:.1f}"
        why = {
            "memory": f"out of memory at {peak} GiB, {last.images_read} of {images} images read",
            "time": "out of time",
        }.get(last.end, f"failed: {last.error}")
        return (name, images, "-", why, "", took, f"{last.cpu_seconds:.1f}", f"> {peak}", "1")
    seconds = [run.seconds for run in runs]
    return (
        name,
        images,
        str(runs[0].tensors or "-"),
        f"{median(seconds):.2f}",
        f"{min(seconds):.2f} to {max(seconds):.2f}" if len(runs) > 1 else "",
        f"{median(run.process_seconds for run in runs):.2f}",
        f"{median(run.cpu_seconds for run in runs):.2f}",
        f"{median(run.peak_bytes for run in runs) / GIB:.2f}",
        str(len(runs)),
    )


def searches(results: Results, model: str) -> list[Row]:
    """Return a row for each tool's KL search; medians over tensors."""
    rows: list[Row] = []
    for cell in results.cells():
        if cell.model == model and cell.tool in SEARCHES:
            for run in results.of(cell)[-1:]:
                times = list(run.milliseconds.values())
                spread = f"{min(times):.3g} to {max(times):.3g}"
                name = SEARCHES[cell.tool].name
                rows.append((name, f"{median(times):.3g}", spread, str(len(times))))
    return rows


def figures(found: Iterable[Figure]) -> list[Row]:
    """Return a row for each figure."""
    return [
        (
            figure.name,
            f"{figure.value:.3g} {figure.unit}",
            f"{figure.low:.3g} to {figure.high:.3g}",
            _limit(figure),
            {True: "yes", False: "MISSED", None: ""}[figure.met],
        )
        for figure in found
    ]


def _limit(figure: Figure) -> str:
    if figure.at_least is not None:
        return f"at least {figure.at_least:g}"
    return "" if figure.at_most is None else f"at most {figure.at_most:g}"


def terminal(title: str, head: Row, rows: Sequence[Row]) -> Table:
    """Return a table for the terminal."""
    table = Table(*head, title=title)
    for row in rows:
        table.add_row(*row)
    return table


def markdown(head: Row, rows: Sequence[Row]) -> str:
    """Return a table of Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(results: Results, found: Sequence[Figure]) -> str:
    """Return everything as Markdown."""
    host, versions = results.host, _versions(results)
    parts = [
        "# quantlab beside its peers",
        f"{host['cpu']}, {host['usable_cores']} cores, {host['memory_bytes'] / GIB:.0f} GiB.",
        "\n".join(f"- {tool}: {listed}" for tool, listed in versions.items()),
        HOW.format(batch=results.batch, limit=results.memory_limit / GIB),
        "## Figures",
        markdown(FIGURES, figures(found)),
    ]
    for model in dict.fromkeys(cell.model for cell in results.cells()):
        parts += [f"## {model}", markdown(COSTS, costs(results, model))]
        if rows := searches(results, model):
            parts.append(markdown(SEARCH, rows))
    return "\n\n".join(parts) + "\n"


def _versions(results: Results) -> dict[str, str]:
    found = {}
    for outcome in results.outcomes:
        if outcome.versions:
            tool = (TOOLS | SEARCHES)[outcome.cell.tool]
            listed = (f"{name} {version}" for name, version in outcome.versions.items())
            found[tool.environment] = ", ".join(listed)
    return found
