"""``quantlab cache``: read, check, compare and rewrite calibration caches."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from quantlab.errors import CacheError
from quantlab.visible import visible

if TYPE_CHECKING:
    from quantlab.cache import Header

app = typer.Typer(
    help="TensorRT calibration caches: read, check against a model, compare, rewrite.",
    no_args_is_help=True,
)

CacheFile = Annotated[Path, typer.Argument(metavar="CACHE")]
Version = Annotated[
    str | None, typer.Option("--tensorrt", help="TensorRT that will read the cache, e.g. 8.6.1.")
]
Algorithm = Annotated[
    str | None, typer.Option(help="Calibrator named in the header, e.g. MinMaxCalibration.")
]


@app.command()
def show(path: CacheFile) -> None:
    """Print the header, and every tensor with its scale and amax."""
    from quantlab import cache, cachetools

    shown = cache.read(path)
    typer.echo(f"{shown.header}: TensorRT {shown.header.version}, {len(shown.scales)} tensors")
    for row in cachetools.show(shown):
        typer.echo(
            f"{row.bits:>8}  scale {row.scale:<12.6g} amax {row.amax:<12.6g} {visible(row.tensor)}"
        )


@app.command()
def verify(
    path: CacheFile,
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL.onnx", help="prepared.onnx of the run, or repaired.onnx if it is there."
        ),
    ],
    *,
    implicit: Annotated[
        bool,
        typer.Option(help="Ask for every tensor that TensorRT 8.6 to 10 needs without Q/DQ nodes."),
    ] = False,
) -> None:
    """Check a cache against a model: what is missing or stale; exit 2 if it does not fit."""
    from quantlab import cache, cachetools, manifest
    from quantlab.graph import model as graph
    from quantlab.graph.placement import place
    from quantlab.graph.prepare import prepare

    with TemporaryDirectory(prefix="quantlab.") as folder:
        prepared = Path(folder) / "prepared.onnx"
        graph.save(prepare(graph.load(model)).model, prepared)
        placement = place(graph.load(prepared))
        needed = list(placement.tensors)
        if implicit:
            needed += [*placement.derived, *placement.implicit]
        found = cachetools.verify(path, needed, manifest.model_digests(prepared))
    typer.echo(f"{found.header}: {found.tensors} tensors, {len(needed)} needed")
    for name, tensors in (("missing", found.missing), ("all zero", found.zero)):
        if tensors:
            typer.echo(f"{name}: {cache.some(tensors)}")
    if not found.manifest:
        typer.echo("no manifest lies beside it, so what it was made from is not known")
    if not found.ok:
        what = [*found.stale, *([f"{len(found.missing)} tensors missing"] if found.missing else [])]
        raise CacheError(f"{path} does not fit {model}: {'; '.join(what)}; recalibrate")
    typer.echo("the cache fits the model")


@app.command()
def diff(first: CacheFile, second: CacheFile) -> None:
    """Print the tensors whose scales differ, or that only one cache has."""
    from quantlab import cache, cachetools

    rows = cachetools.diff(cache.read(first), cache.read(second))
    for row in rows:
        ratio = "" if row.ratio is None else f"  x {row.ratio:.4f}"
        typer.echo(f"{visible(row.tensor)}: {_scale(row.first)} -> {_scale(row.second)}{ratio}")
    typer.echo(f"{len(rows)} tensors differ" if rows else "the scales are the same")


@app.command()
def convert(
    source: CacheFile,
    target: Annotated[Path, typer.Argument(help=".flatbuffers, .json, .txt: ONNX Runtime's.")],
    tensorrt: Version = None,
    algorithm: Algorithm = None,
) -> None:
    """Rewrite a cache for another TensorRT or algorithm, or to and from ONNX Runtime's table."""
    from quantlab import cachetools, manifest

    for path in (target, manifest.beside(target)):
        if path.exists():
            raise CacheError(f"{path} exists and would be replaced; delete it or name another file")
    written = cachetools.convert(source, target, _header(source, tensorrt, algorithm))
    typer.echo(f"wrote {target}: {written.kind}, {written.tensors} tensors")


def _header(source: Path, tensorrt: str | None, algorithm: str | None) -> "Header | None":
    """Return the header to write: what is not asked for stays as the source has it."""
    from quantlab import cache, cachetools

    if tensorrt is None and algorithm is None:
        return None
    own = None if tensorrt and algorithm else cachetools.header_of(source)
    if tensorrt is None and own is None:
        raise CacheError(f"{source} names no TensorRT; give --tensorrt, e.g. --tensorrt 8.6.1")
    version = tensorrt or (own.version if own else "")
    return cache.header_for(version, algorithm or (own.algorithm if own else "EntropyCalibration2"))


def _scale(scale: float | None) -> str:
    return "missing" if scale is None else f"{scale:.6g}"
