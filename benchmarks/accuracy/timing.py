"""The third phase: FP32 and all INT8 models of a network side by side, in both runtimes.

In each round every model runs for its share of the time, in an order that rotates; its first
inference of a turn is not timed, because the caches still hold another's data.  Ratios are of
throughputs, with 95 % bootstrap intervals over rounds.  Models with the same graph, types and zero
points (``structure.py``) run the same kernels, so that one of them is timed for all.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.fusions import blocked
from benchmarks.accuracy.material import Material
from benchmarks.accuracy.request import FLOAT, INT8
from benchmarks.accuracy.stored import Found, digest, once
from benchmarks.accuracy.structure import structure
from benchmarks.accuracy.tasks import Array
from quantlab.engines.base import Engine, Runner, Signed
from quantlab.engines.onnxruntime import OnnxRuntime
from quantlab.engines.openvino import OpenVino
from quantlab.errors import QuantlabError
from quantlab.intervals import bootstrap
from quantlab.measured import Interval
from quantlab.records import Precision

RUNTIMES: dict[str, Engine] = {"openvino": OpenVino(), "onnxruntime": OnnxRuntime()}
FP32 = "fp32"


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long is measured.

    Attributes:
        batches: batch sizes.
        rounds: turns of each model.
        seconds: of a turn, at least one inference.
    """

    batches: tuple[int, ...] = (1, 32)
    rounds: int = 10
    seconds: float = 0.05


@dataclass(slots=True)
class Turns:
    """What the turns of a model gave: mutable on purpose, turns are added.

    Attributes:
        runs: timed inferences of each turn.
        seconds: that they took.
        latencies: of all, in ms.
    """

    runs: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def take(self, runner: Runner, inputs: Mapping[str, Array], seconds: float) -> None:
        """Run for one turn."""
        runner.run(inputs)
        taken: list[float] = []
        while sum(taken) < seconds:
            started = time.perf_counter()
            runner.run(inputs)
            taken.append(time.perf_counter() - started)
        self.runs.append(len(taken))
        self.seconds.append(sum(taken))
        self.latencies += [1000 * one for one in taken]


def timed(material: Material, settings: Sequence[str], schedule: Schedule) -> Found:
    """Time what the settings made of a network; once for the same models.

    Returns:
        By runtime, by structure or "fp32": ``kernels`` and, by batch size, ``p50_ms``, and ``runs``
        and ``seconds`` of each round; a model that the runtime refuses has an ``error`` instead.
    """
    chosen = _chosen(material, settings)
    key = {
        "models": {name: digest(path) for name, path in chosen.items()},
        "schedule": asdict(schedule) | {"batches": list(schedule.batches)},
    }
    return once(material.folder / "timed.json", key, lambda: _timed(material, chosen, schedule))


def _chosen(material: Material, settings: Sequence[str]) -> dict[str, Path]:
    """Return FP32 and the first model of each structure."""
    chosen = {FP32: material.model}
    for setting in settings:
        path = material.cell(setting) / INT8
        if path.exists():
            chosen.setdefault(structure(path), path)
    return chosen


def _timed(material: Material, models: Mapping[str, Path], schedule: Schedule) -> Found:
    samples = material.evaluation().inputs
    return {
        runtime: _in_runtime(engine, models, samples, schedule)
        for runtime, engine in RUNTIMES.items()
    }


def _in_runtime(
    engine: Engine, models: Mapping[str, Path], samples: Array, schedule: Schedule
) -> Found:
    found: dict[str, Any] = {}
    runners: dict[str, Signed] = {}
    with TemporaryDirectory() as name, ExitStack() as stack:
        for model, path in models.items():
            try:
                runner = stack.enter_context(_opened(engine, path, model, Path(name) / model))
                runner.run(_fed(runner, samples[:1]))
                found[model] = {"kernels": _kernels(runner)}
                if engine.name == "openvino" and model != FP32:
                    found[model]["blocked"] = blocked(_float(path, models[FP32]), path)
            except QuantlabError as error:
                found[model] = {"error": str(error)}
            else:
                runners[model] = runner
        for batch in schedule.batches:
            for model, turns in _rounds(runners, samples[:batch], schedule).items():
                found[model][str(batch)] = {
                    "p50_ms": float(np.median(turns.latencies)),
                    "runs": turns.runs,
                    "seconds": turns.seconds,
                }
    return found


@contextmanager
def _opened(engine: Engine, path: Path, model: str, root: Path) -> Iterator[Signed]:
    """Build and open an engine."""
    (root / "engines").mkdir(parents=True)
    precision: Precision = "fp32" if model == FP32 else "int8"
    with engine.open(engine.build(path, precision, root / "engines"), root) as runner:
        assert isinstance(runner, Signed)  # all of quantlab's are
        yield runner


def _fed(runner: Signed, samples: Array) -> dict[str, Array]:
    (spec,) = runner.inputs
    return {spec.name: samples}


def _float(path: Path, given: Path) -> Path:
    """Return the FP32 model whose node names an INT8 model has."""
    own = path.parent / FLOAT
    return own if own.exists() else given


def _kernels(runner: Runner) -> dict[str, int]:
    weighted = [layer for layer in runner.describe().layers if layer.weighted]
    return {"weighted": len(weighted), "integer": sum(layer.integer for layer in weighted)}


def _rounds(runners: Mapping[str, Signed], samples: Array, schedule: Schedule) -> dict[str, Turns]:
    names = list(runners)
    turns = {name: Turns() for name in names}
    for runner in runners.values():  # compiled and warm before the first round
        Turns().take(runner, _fed(runner, samples), schedule.seconds)
    for number in range(schedule.rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            turns[name].take(runners[name], _fed(runners[name], samples), schedule.seconds)
    return turns


def ratio(over: Found, under: Found) -> Interval:
    """Return how many times the throughput of ``under`` that of ``over`` is."""
    runs = np.array([over["runs"], under["runs"]])
    seconds = np.array([over["seconds"], under["seconds"]])

    def statistic(drawn: NDArray[np.int64]) -> NDArray[np.float64]:
        throughput = runs[:, drawn].sum(axis=-1) / seconds[:, drawn].sum(axis=-1)
        return np.asarray(throughput[:1] / throughput[1:])

    (interval,) = bootstrap(runs.shape[1], statistic, width=4)
    return interval
