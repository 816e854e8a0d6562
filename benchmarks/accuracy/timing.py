"""The fourth phase: FP32 and all INT8 models of a network side by side, in both runtimes.

Where its buffers come to lie makes a model up to a tenth faster or slower until it is compiled
again, so all of them are opened several times over.  In each round of an opening every model runs
for its share of the time, in an order that rotates; its first inference of a turn is not timed,
because the caches still hold another's data.  Ratios are of throughputs, with 95 % bootstrap
intervals over openings.  Models with the same graph, types and zero points (``structure.py``) run
the same kernels, so that one of them is timed for all.
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
        openings: how often each model is compiled.
        rounds: turns of each model in an opening.
        seconds: of a turn, at least one inference.
    """

    batches: tuple[int, ...] = (1, 32)
    openings: int = 8
    rounds: int = 2
    seconds: float = 0.1


@dataclass(slots=True)
class Turns:
    """What the openings of a model gave: mutable on purpose, turns are added.

    Attributes:
        runs: timed inferences of each opening.
        seconds: that they took.
        latencies: of all, in ms.
    """

    runs: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def open(self) -> None:
        """Begin an opening."""
        self.runs.append(0)
        self.seconds.append(0.0)

    def take(self, runner: Runner, inputs: Mapping[str, Array], seconds: float) -> None:
        """Run for one turn."""
        runner.run(inputs)
        taken: list[float] = []
        while sum(taken) < seconds:
            started = time.perf_counter()
            runner.run(inputs)
            taken.append(time.perf_counter() - started)
        self.runs[-1] += len(taken)
        self.seconds[-1] += sum(taken)
        self.latencies += [1000 * one for one in taken]


def timed(material: Material, settings: Sequence[str], schedule: Schedule) -> Found:
    """Time what the settings made of a network; once for the same models.

    Returns:
        By runtime, by structure or "fp32": ``kernels`` and, by batch size, ``p50_ms``, and ``runs``
        and ``seconds`` of each opening; a model that the runtime refuses has an ``error`` instead.
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
    found = _known(engine, models, samples)
    timed = {name: path for name, path in models.items() if "error" not in found[name]}
    turns = {(name, batch): Turns() for name in timed for batch in schedule.batches}
    for number in range(schedule.openings):
        with TemporaryDirectory() as folder, ExitStack() as stack:
            runners = {
                name: stack.enter_context(_opened(engine, timed[name], name, Path(folder) / name))
                for name in _rotated(list(timed), number)
            }
            for batch in schedule.batches:
                _rounds(runners, samples[:batch], schedule, {n: turns[n, batch] for n in runners})
    for (name, batch), taken in turns.items():
        found[name][str(batch)] = {
            "p50_ms": float(np.median(taken.latencies)),
            "runs": taken.runs,
            "seconds": taken.seconds,
        }
    return found


def _known(engine: Engine, models: Mapping[str, Path], samples: Array) -> Found:
    """Return the kernels of each model, or why the runtime refuses it."""
    found: dict[str, Any] = {}
    for name, path in models.items():
        try:
            with (
                TemporaryDirectory() as folder,
                _opened(engine, path, name, Path(folder)) as runner,
            ):
                runner.run(_fed(runner, samples[:1]))
                found[name] = {"kernels": _kernels(runner)}
            if engine.name == "openvino" and name != FP32:
                found[name]["blocked"] = blocked(_float(path, models[FP32]), path)
        except QuantlabError as error:
            found[name] = {"error": str(error)}
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


def _rounds(
    runners: Mapping[str, Signed],
    samples: Array,
    schedule: Schedule,
    turns: Mapping[str, Turns],
) -> None:
    for name, runner in runners.items():  # compiled and warm before the first round
        warm = Turns()
        warm.open()
        warm.take(runner, _fed(runner, samples), schedule.seconds)
        turns[name].open()
    for number in range(schedule.rounds):
        for name in _rotated(list(runners), number):
            turns[name].take(runners[name], _fed(runners[name], samples), schedule.seconds)


def _rotated(names: list[str], number: int) -> list[str]:
    first = number % len(names) if names else 0
    return names[first:] + names[:first]


def throughput(found: Found, left_out: int | None = None) -> float:
    """Return runs a second over all openings but one, or over the only one."""
    kept = [i for i in range(len(found["runs"])) if i != left_out] or [0]
    return float(sum(found["runs"][i] for i in kept) / sum(found["seconds"][i] for i in kept))


def fastest(models: Sequence[Found]) -> Found:
    """Return what the fastest model gave, chosen for each opening by the others.

    Of several models the fastest is also the luckiest: none is compared on what it was chosen by.
    """
    openings = range(len(models[0]["runs"]))
    chosen = [max(models, key=lambda found: throughput(found, i)) for i in openings]
    return {
        part: [found[part][i] for i, found in enumerate(chosen)] for part in ("runs", "seconds")
    }


def ratio(over: Found, under: Found) -> Interval:
    """Return how many times the throughput of ``under`` that of ``over`` is."""
    runs = np.array([over["runs"], under["runs"]])
    seconds = np.array([over["seconds"], under["seconds"]])

    def statistic(drawn: NDArray[np.int64]) -> NDArray[np.float64]:
        throughput = runs[:, drawn].sum(axis=-1) / seconds[:, drawn].sum(axis=-1)
        return np.asarray(throughput[:1] / throughput[1:])

    (interval,) = bootstrap(runs.shape[1], statistic, width=4)
    return interval
