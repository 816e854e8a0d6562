"""The networks."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.accuracy.tasks import FASHION

ALL = 1 << 30


@dataclass(frozen=True, slots=True)
class Network:
    """A trained network.

    Attributes:
        task: name in TASKS.
        shipped: file in the repository; None for one of benchmarks/networks.
        transformer: whether it is one.
        most: evaluation samples, at most: where more would take long and tell little.
    """

    task: str
    shipped: Path | None = None
    transformer: bool = False
    most: int = ALL

    def path(self, name: str, folder: Path) -> Path:
        """Return the ONNX file, in ``folder`` if it is not shipped."""
        return self.shipped or folder / f"{name}.onnx"


NETWORKS: dict[str, Network] = {
    "fashion-resnet": Network("fashion", shipped=FASHION / "resnet.onnx"),
    "fashion-mobilenet": Network("fashion", shipped=FASHION / "mobilenet.onnx"),
    "resnet20": Network("classify"),
    "mobilenetv2": Network("classify"),
    "efficientnet": Network("classify"),
    "vit": Network("classify", transformer=True),
    "convnext": Network("classify"),
    "denoiser": Network("denoise", most=300),
    "sequence": Network("embed", transformer=True, most=1000),
}
"""By name on the command line."""
