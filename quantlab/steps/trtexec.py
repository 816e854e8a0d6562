"""The trtexec commands that do what a run folder's TensorRT engines were built and measured by."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from quantlab import cache, configfile
from quantlab.config import Benchmark, Config
from quantlab.engines import TENSORRT
from quantlab.engines.trt import plan
from quantlab.engines.trt.trtexec import Bench, Commands, commands
from quantlab.errors import EngineError, OutputError
from quantlab.plugs import PLUGS
from quantlab.records import PRECISIONS, Precision
from quantlab.runfolder import RunFolder

READ = "EntropyCalibration2"
"""Calibrator whose caches trtexec reads."""


def trtexec(
    source: Path, *, output: Path | None = None
) -> Iterator[tuple[Precision, plan.Manifest, Commands]]:
    """Yield each plan's manifest and commands.

    Args:
        source: a config file or a run folder.
        output: run folder in place of the config's.

    Raises:
        ConfigError: the config file.
        EngineError: the run is not TensorRT's, or has no plan.
        CacheError: the cache of an implicitly quantized plan is gone or broken.
        OutputError: the run folder was not written by this version.
    """
    config, folder = _run(source, output)
    if config.engines.backend not in TENSORRT:
        raise EngineError(
            f"{source}: expected a run with 'backend: tensorrt' or 'tensorrt-rtx', found "
            f"{config.engines.backend!r}, which trtexec knows nothing of"
        )
    plans = {p: folder / "engines" / f"{p}.plan" for p in PRECISIONS}
    built = {p: path for p, path in plans.items() if path.is_file()}
    if not built:
        raise EngineError(
            f"{folder / 'engines'} holds no plan; build one with 'quantlab build' first"
        )
    for precision, path in built.items():
        manifest = plan.read(path)
        scales = _scales(path, folder)
        told = commands(manifest, path, scales, _bench(config))
        if manifest.quantization == "implicit":
            told = replace(told, notes=(*told.notes, *_relabelled(scales)))
        yield precision, manifest, told


def _scales(built: Path, folder: Path) -> Path:
    """Return the cache that a plan's scales are in: TensorRT's own, if it calibrated."""
    own = built.with_suffix(".calibration.cache")
    return own if own.is_file() else folder / "calibration.cache"


def _relabelled(path: Path) -> tuple[str, ...]:
    """Return a note where trtexec takes a cache for one of another calibrator."""
    algorithm = cache.read(path).header.algorithm
    if algorithm == READ:
        return ()
    return (f"{path} is headed {algorithm}, and --calib reads {READ} only: change its first line",)


def _run(source: Path, output: Path | None) -> tuple[Config, Path]:
    """Return the config that a run was made from, and its folder."""
    if not source.is_dir():
        config = configfile.load(source, PLUGS)
        folder = output or config.output
        assert folder is not None  # noqa: S101  configfile.load sets it
        return config, folder
    recorded = RunFolder(source).facts().get("config")
    try:
        return Config.model_validate_json(json.dumps(recorded)), source
    except ValidationError as error:
        raise OutputError(
            f"{source / 'run.json'} holds no config: give the config file instead of the folder"
        ) from error


def _bench(config: Config) -> Bench:
    measured = config.benchmark or Benchmark()
    parameters = config.engines.parameters
    return Bench(
        batches=measured.batches,
        seconds=measured.seconds,
        warmup_seconds=measured.warmup_seconds,
        cuda_graph=bool(parameters.get("cuda_graph", False)),
        device_id=int(parameters.get("device_id", 0)),
    )
