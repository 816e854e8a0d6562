"""What the process of a cell is told, and the batches that it reads; needs NumPy only."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]

Form = Literal["ordinary", "hard"]
FORMS: tuple[Form, ...] = ("ordinary", "hard")
"""Of every network: as it was trained, and made hard on purpose."""

INT8 = "int8.onnx"
FLOAT = "float.onnx"
"""What a tool leaves in its folder: the INT8 model, and the FP32 model that it made it of, where
that is not the one that it was given."""


@dataclass(frozen=True, slots=True)
class Request:
    """A cell's work.

    Attributes:
        setting: name in SETTINGS.
        model: the FP32 model.
        samples: .npz with an array named as the model's input, and ``labels``.
        evaluation: the same, for tools whose config names it; calibration reads none of it.
        metric: name in TARGETS.
        transformer: whether the network is one, for tools that want to be told.
        batch: samples at once.
        folder: for the tool's files and the answer.
    """

    setting: str
    model: str
    samples: str
    evaluation: str
    metric: str
    transformer: bool
    batch: int
    folder: str

    def write(self) -> Path:
        """Write the request into its folder."""
        path = Path(self.folder) / "request.json"
        path.write_text(json.dumps(asdict(self)))
        return path

    @staticmethod
    def read(path: Path) -> "Request":
        """Read what ``write`` wrote."""
        return Request(**json.loads(path.read_text()))

    def arrays(self) -> tuple[str, Array, Array]:
        """Return the input's name, the samples and their labels."""
        with np.load(self.samples, allow_pickle=False) as file:
            (name,) = set(file.files) - {"labels"}
            return name, file[name], file["labels"]

    def batches(self) -> Iterator[dict[str, Array]]:
        """Yield the samples in batches."""
        name, samples, _ = self.arrays()
        for start in range(0, len(samples), self.batch):
            yield {name: samples[start : start + self.batch]}
