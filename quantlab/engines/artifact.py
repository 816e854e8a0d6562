"""Engine files: written whole, recorded by SHA-256, verified before a backend reads them."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from quantlab.errors import EngineError
from quantlab.files import sha256, translated
from quantlab.records import Build, Precision


def source(model: Path) -> Path:
    """Return ``model`` if it is a file.

    Raises:
        EngineError: it is not.
    """
    if not model.is_file():
        raise EngineError(f"cannot build an engine: there is no model file {model}")
    return model


def build(
    folder: Path,
    precision: Precision,
    *,
    backend: str,
    device: str,
    main: str,
    write: Callable[[Path], None],
) -> Build:
    """Let ``write`` fill an empty folder, then move its files into ``folder``, ``main`` last.

    Args:
        folder: ``<run folder>/engines``, existing.
        precision: of the engine.
        backend: name in ENGINES.
        device: what the engine runs on.
        main: name of the file that is opened.
        write: writes the engine's files, named ``<precision>.*``.

    Raises:
        OutputError: ``folder`` cannot be written; it holds what it held before.
    """
    started = time.perf_counter()
    with (
        translated(folder),
        TemporaryDirectory(prefix=f".{precision}.", suffix=".partial", dir=folder) as temporary,
    ):
        write(Path(temporary))
        made = sorted(Path(temporary).iterdir(), key=lambda path: (path.name == main, path.name))
        hashes = {f"{folder.name}/{path.name}": sha256(path) for path in made}
        size = sum(path.stat().st_size for path in made)
        for path in made:
            path.replace(folder / path.name)
    return Build(
        precision=precision,
        backend=backend,
        device=device,
        path=f"{folder.name}/{main}",
        files=hashes,
        size_bytes=size,
        build_seconds=time.perf_counter() - started,
    )


def copy_model(model: Path, target: Path) -> None:
    """Copy an ONNX file that could be loaded; its external data becomes ``<target>.data``."""
    import onnx_ir as ir

    loaded = ir.load(model)
    graphs = (loaded.graph, *loaded.graph.subgraphs())
    values = (value for graph in graphs for value in graph.initializers.values())
    if any(isinstance(value.const_value, ir.ExternalTensor) for value in values):
        ir.save(loaded, target, external_data=f"{target.name}.data")
    else:
        shutil.copyfile(model, target)


def verify(built: Build, root: Path, *, backend: str) -> Path:
    """Return the main file's path after comparing every file with its recorded SHA-256.

    Raises:
        EngineError: another backend's engine, a file outside ``root``, missing or changed.
    """
    if built.backend != backend:
        raise EngineError(
            f"engine {built.path!r} was built by {built.backend!r}; {backend!r} cannot open it"
        )
    if built.path not in built.files:
        raise EngineError(f"engine {built.path!r} has no recorded SHA-256; build it again")
    for name, recorded in built.files.items():
        path = root / name
        if not path.resolve().is_relative_to(root.resolve()):
            raise EngineError(f"engine file {name!r} lies outside the run folder {root}")
        try:
            found = sha256(path)
        except OSError as error:
            raise EngineError(
                f"cannot read engine file {path}: {error.strerror or error}; build it again"
            ) from error
        if found != recorded:
            raise EngineError(
                f"engine file {path} changed since it was built: its SHA-256 is {found}, "
                f"recorded was {recorded}; build it again"
            )
    return root / built.path
