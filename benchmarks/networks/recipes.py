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
        cutmix: share of the batches that have cutmix, the others mixup if any.
        clip: largest norm of the gradient, 0 for none.
    """

    build: Callable[[], Module]
    task: str
    share: float
    optimizer: str
    rate: float
    decay: float
    batch: int = 512
    epochs: int = 200
    mix: float = 0.0
    cutmix: float = 0.0
    clip: float = 0.0


RECIPES: dict[str, Recipe] = {
    "resnet20": Recipe(resnet.build, "classify", 60, "sgd", 0.4, 5e-4, cutmix=0.3),
    "mobilenetv2": Recipe(mobilenet.build, "classify", 85, "sgd", 0.3, 4e-4, cutmix=0.3),
    "efficientnet": Recipe(efficientnet.build, "classify", 85, "sgd", 0.3, 4e-4, cutmix=0.3),
    "vit": Recipe(vit.build, "classify", 90, "adamw", 2e-3, 0.2, mix=0.4, cutmix=0.5, clip=1.0),
    "denoiser": Recipe(denoiser.build, "denoise", 50, "adamw", 2e-3, 1e-4, batch=256),
    "sequence": Recipe(sequence.build, "embed", 55, "adamw", 1e-3, 0.01, clip=1.0, epochs=60),
    "convnext": Recipe(
        convnext.build, "classify", 110, "adamw", 2e-3, 0.2, mix=0.4, cutmix=0.5, clip=1.0
    ),
}
