"""The files of a network in one form: model, calibration and evaluation samples."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from benchmarks.accuracy.networks import NETWORKS, Network
from benchmarks.accuracy.request import Form, Request
from benchmarks.accuracy.stored import Found, digest, once
from benchmarks.accuracy.tasks import TASKS, Samples, Task
from benchmarks.networks.harden import TOLERANCE, Settings, difference, harden

BATCH = 32
TRAIN = "benchmarks/networks/README.md says how to train them: python3 -m benchmarks.networks.train"


@dataclass(frozen=True, slots=True)
class Source:
    """Where everything comes from.

    Attributes:
        networks: folder of the networks that are not shipped.
        data: CIFAR-10, as benchmarks/networks/data.py reads it.
        samples: of calibration.
        evaluation: samples, at most.
        seed: of the choice of calibration samples and of the hard forms.
    """

    networks: Path
    data: Path
    samples: int
    evaluation: int
    seed: int

    def missing(self, names: list[str]) -> list[str]:
        """Return what these networks need and is not there, in sentences."""
        told = []
        for name in names:
            path = NETWORKS[name].path(name, self.networks)
            if not path.exists():
                told.append(f"{name}: there is no {path}; {TRAIN}")
            if NETWORKS[name].task in ("classify", "denoise") and not self.data.exists():
                told.append(f"{name}: there is no {self.data}; --data names the file of CIFAR-10")
        return told


@dataclass(frozen=True, slots=True)
class Material:
    """A network in one form, and its files in ``folder``."""

    name: str
    form: Form
    folder: Path

    @property
    def network(self) -> Network:
        """What it is."""
        return NETWORKS[self.name]

    @property
    def task(self) -> Task:
        """What it is judged by."""
        return TASKS[self.network.task]

    @property
    def model(self) -> Path:
        """The FP32 model."""
        return self.folder / "model.onnx"

    def evaluation(self) -> Samples:
        """Return the evaluation samples."""
        with np.load(self.folder / "evaluation.npz", allow_pickle=False) as file:
            (name,) = set(file.files) - {"labels"}
            return Samples(file[name], file["labels"])

    def cell(self, setting: str) -> Path:
        """Return the folder of a setting's files."""
        return self.folder / setting

    def request(self, setting: str) -> Request:
        """Return what a setting's process is told."""
        return Request(
            setting=setting,
            model=str(self.model.resolve()),
            samples=str((self.folder / "calibration.npz").resolve()),
            evaluation=str((self.folder / "evaluation.npz").resolve()),
            metric=self.task.metric,
            transformer=self.network.transformer,
            batch=BATCH,
            folder=str(self.cell(setting).resolve()),
        )


def made(name: str, form: Form, source: Source, work: Path) -> Material:
    """Write the files of a network in one form, or find them written."""
    material = Material(name, form, work / f"{name}-{form}")
    material.folder.mkdir(parents=True, exist_ok=True)
    path = material.network.path(name, source.networks)
    key = {
        "network": digest(path),
        "samples": source.samples,
        "evaluation": min(source.evaluation, material.network.most),
        "seed": source.seed,
    }
    once(material.folder / "material.json", key, lambda: _write(material, path, source))
    return material


def _write(material: Material, path: Path, source: Source) -> Found:
    model = onnx.load(path)
    planted: dict[str, int] = {}
    if material.form == "hard":
        original = model
        model, sites = harden(original, Settings(seed=source.seed))
        differs = difference(original, model, source.seed)
        if differs > TOLERANCE:
            raise SystemExit(f"{path}: the hard form's outputs differ by {differs:.1e}")
        kinds = [site.kind for site in sites]
        planted = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
    onnx.save(model, material.model)
    task, count = material.task, min(source.evaluation, material.network.most)
    name = model.graph.input[0].name
    parts = {
        "calibration": task.calibration(source.data, source.samples, source.seed),
        "evaluation": task.evaluation(source.data, count),
    }
    for part, samples in parts.items():
        arrays = {name: samples.inputs, "labels": samples.labels}
        np.savez(material.folder / f"{part}.npz", allow_pickle=False, **arrays)
    sizes = {part: len(samples.inputs) for part, samples in parts.items()}
    return {"planted": planted, **sizes}
