"""What every tool is given: prepared models, images, and histograms for the search alone."""

import gzip
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import environments
from benchmarks.peers.crops import crops
from benchmarks.peers.export import SIZE
from benchmarks.peers.histograms import histograms
from benchmarks.peers.request import Request
from quantlab.graph import model as graph
from quantlab.graph.placement import place
from quantlab.graph.prepare import prepare
from quantlab.graph.tap import tap

FOLDER = environments.FOLDER / "material"
FASHION = environments.ROOT / "examples" / "fashion_mnist"
IMAGES = 512
SEARCHED = 64
"""Images that the histograms of the search alone are made of."""

MEAN, STD = 0.2860, 0.3530
"""Of Fashion-MNIST's training images, for pixels from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Material:
    """The files of a network; ``Request`` says what they are."""

    prepared: Path
    tapped: Path
    samples: Path
    histograms: Path

    def request(self, tool: str, *, images: int, batch: int, folder: Path) -> Request:
        """Return what a tool's process is told."""
        return Request(
            tool=tool,
            model=str(self.prepared),
            tapped=str(self.tapped),
            samples=str(self.samples),
            histograms=str(self.histograms),
            images=images,
            batch=batch,
            folder=str(folder),
        )


def resnet() -> tuple[Path, NDArray[np.float32]]:
    """Return the shipped ResNet and images."""
    return FASHION / "resnet.onnx", _fashion()


def mobilenet() -> tuple[Path, NDArray[np.float32]]:
    """Return the shipped MobileNet and images."""
    return FASHION / "mobilenet.onnx", _fashion()


def lite2() -> tuple[Path, NDArray[np.float32]]:
    """Return EfficientNet-Lite2 and crops of photographs: for speed and memory only."""
    model, listed = FOLDER / "lite2.onnx", FOLDER / "photographs.txt"
    if not (model.exists() and listed.exists()):
        export = environments.python("export")
        subprocess.run(
            [export, "-m", "benchmarks.peers.export", model, listed],
            cwd=environments.ROOT,
            check=True,
            capture_output=True,
        )
    return model, crops([Path(line) for line in listed.read_text().splitlines()], IMAGES, SIZE)


MODELS: dict[str, Callable[[], tuple[Path, NDArray[np.float32]]]] = {
    "resnet": resnet,
    "mobilenet": mobilenet,
    "lite2": lite2,
}
"""The networks, by name on the command line."""


def made(name: str) -> Material:
    """Prepare the model with quantlab, and write everything that its cells read."""
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    source, images = MODELS[name]()
    found = Material(
        *(folder / file for file in ("prepared.onnx", "tapped.onnx")),
        *(folder / file for file in ("samples.npz", "histograms.npz")),
    )
    model = prepare(graph.load(source)).model
    tensors = tuple(dict.fromkeys(place(model, "tensorrt").tensors))
    graph.save(model, found.prepared)
    graph.save(tap(model, tensors), found.tapped)
    (given,) = graph.inputs(model)
    np.savez(found.samples, allow_pickle=False, **{given.name: images})
    searched = histograms(found.tapped, given.name, images[:SEARCHED])
    np.savez(found.histograms, allow_pickle=False, **searched)
    return found


def _fashion() -> NDArray[np.float32]:
    raw = gzip.decompress((FASHION / "calib-images-idx3-ubyte.gz").read_bytes())
    pixels = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 1, 28, 28)[:IMAGES]
    return ((pixels / 255 - MEAN) / STD).astype(np.float32)
