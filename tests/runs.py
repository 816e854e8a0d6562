"""Whole runs in tests: a small model with samples and a config, and the command line in process."""

import io
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import onnxruntime as ort
import yaml
from numpy.typing import NDArray

from quantlab import cli
from tests.models import Net, write

COMMAND = Path(sys.executable).with_name("quantlab")
SAMPLES = 24
LEFT = ("*.partial*", ".*.partial*")
"""Patterns of what a run that was stopped may leave half-written."""


@dataclass(frozen=True)
class Outcome:
    """What a command gave."""

    code: int
    out: str
    err: str


def network(*, seed: int = 0, first: str = "") -> onnx.ModelProto:
    """Return two convolutions with a skip connection, and a classifier of 8 classes.

    ``first`` is an operator to put in front, whose output is called "first_out".
    """
    net = Net(seed=seed)
    x = net.input(shape=("N", 3, 8, 8))
    if first:
        x = net.add(first, [x], name="first")
    x = net.relu(net.conv(x, (3, 16), bias=True, name="stem"))
    x = net.relu(net.add("Add", [net.conv(x, (16, 16), name="body"), x]))
    x = net.add("Flatten", [net.pool(x)])
    return net.finish(net.gemm(x, (256, 8), name="head"))


def samples(*, seed: int, count: int = SAMPLES) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, 3, 8, 8)).astype(np.float32)


def outputs(model: Path, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Return the first output of ONNX Runtime."""
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(None, dict(arrays))[0]
    return found


def workspace(folder: Path, changes: Mapping[str, object] | None = None) -> Path:
    """Write a model, samples whose labels FP32 gets right, and a config; return the config."""
    folder.mkdir(parents=True, exist_ok=True)
    model = write(network(), folder / "model.onnx")
    for name, seed in (("calib", 1), ("eval", 2)):
        x = samples(seed=seed)
        np.savez(folder / f"{name}.npz", x=x, labels=outputs(model, {"x": x}).argmax(axis=1))
    return configured(folder, changes)


def configured(folder: Path, changes: Mapping[str, object] | None = None) -> Path:
    """Write the config of a workspace with ``changes`` by dotted key; None removes a key."""
    tree: dict[str, Any] = {
        "model": "model.onnx",
        "calibration": {
            "dataset": {"kind": "npz", "path": "calib.npz"},
            "batch": 8,
            "method": "mse",
        },
        "engines": {"backend": "onnxruntime", "threads": 1},
        "evaluation": {
            "dataset": {"kind": "npz", "path": "eval.npz"},
            "batch": 8,
            "metrics": ["top1", "cosine"],
        },
        "benchmark": {"batches": [1], "seconds": 0.01, "rounds": 2, "warmup_seconds": 0.001},
        "output": "run",
    }
    for key, value in (changes or {}).items():
        *sections, last = key.split(".")
        node = tree
        for section in sections:
            node = node[section]
        node[last] = value
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


FAST: Mapping[str, object] = {"benchmark": None, "engines.precisions": ["fp32", "int8"]}
"""Changes for tests that need no FP16 and no speed."""


def quantlab(*arguments: object) -> Outcome:
    """Run the command line in this process; what it does not translate is raised."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["quantlab", *map(str, arguments)]
    code = 0
    with patch.object(sys, "argv", argv), _signals(), redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Outcome(code, out.getvalue(), err.getvalue())


def left_behind(folder: Path) -> list[Path]:
    """Return half-written files and folders."""
    return [path for pattern in LEFT for path in folder.rglob(pattern)]


@contextmanager
def _signals() -> Iterator[None]:
    """Put back the handlers that ``main`` sets."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
