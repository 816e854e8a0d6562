"""The seven networks: how each is built, what it learns and how it is trained.

``share`` is a share of the time that all networks have together; how many steps that is, is
measured.  ``seed`` of a network is its place in the table.
"""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.networks import (
    convnext,
    denoiser,
    efficientnet,
    mobilenet,
    resnet,
    sequence,
    vit,
)
from benchmarks.networks.layers import Module


@dataclass(frozen=True, slots=True)
class Recipe:
    """One network.

    Attributes:
        build: makes it, untrained.
        task: classify, denoise or embed.
        share: of the time.
        optimizer: sgd (Nesterov, momentum 0.9) or adamw.
        rate: the highest learning rate; it rises for a tenth of the steps and falls as a cosine.
        decay: of weights with two axes or more.
        batch: samples of a step.
        epochs: at most.
        mix: alpha of mixup.
        cutout: width of the square left out, in pixels.
        clip: largest norm of the gradient, 0 for none.
    """

    build: Callable[[], Module]
    task: str
    share: float
    optimizer: str
    rate: float
    decay: float
    batch: int = 512
    epochs: int = 150
    mix: float = 0.0
    cutout: int = 0
    clip: float = 0.0


RECIPES: dict[str, Recipe] = {
    "resnet20": Recipe(resnet.build, "classify", 50, "sgd", 0.4, 5e-4),
    "mobilenetv2": Recipe(mobilenet.build, "classify", 65, "sgd", 0.3, 4e-4),
    "efficientnet": Recipe(efficientnet.build, "classify", 65, "sgd", 0.3, 4e-4),
    "vit": Recipe(
        vit.build, "classify", 60, "adamw", 2e-3, 0.1, mix=0.2, cutout=8, clip=1.0, epochs=200
    ),
    "denoiser": Recipe(denoiser.build, "denoise", 40, "adamw", 2e-3, 1e-4, batch=256),
    "sequence": Recipe(sequence.build, "embed", 35, "adamw", 1e-3, 0.01, clip=1.0, epochs=60),
    "convnext": Recipe(
        convnext.build, "classify", 50, "adamw", 2e-3, 0.05, mix=0.2, cutout=8, clip=1.0
    ),
}
