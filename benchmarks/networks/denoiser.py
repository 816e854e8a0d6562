"""DnCNN-like residual denoiser: 17 layers of 3x3 convolutions, 32 channels wide.

Source: Zhang et al., arXiv:1608.03981, figure 1 (64 channels there).  The layers estimate the
        noise, and the output is the image: what came in less that estimate.
Limits: 0.14 million parameters.
"""

import torch
from torch import Tensor, nn

from benchmarks.networks.layers import Module, conv

DEPTH = 17
WIDTH = 32
SMALL = 0.1
MIXED = 0.3


class Denoiser(Module):
    """Seventeen convolutions and a subtraction."""

    def __init__(self) -> None:
        super().__init__()
        parts: list[Module] = [nn.Conv2d(3, WIDTH, 3, padding=1), nn.ReLU()]
        for _ in range(DEPTH - 2):
            parts += [*conv(WIDTH, WIDTH, 3), nn.ReLU()]
        last = nn.Conv2d(WIDTH, 3, 3, padding=1)
        self.noise = nn.Sequential(*parts, last)
        with torch.no_grad():
            last.weight.mul_(SMALL)  # begin near the image as it came
            for layer in self.noise[2:-1]:
                if isinstance(layer, nn.Conv2d):  # and let the noise through 15 random layers
                    layer.weight.mul_(MIXED).add_(nn.init.dirac_(torch.empty(layer.weight.shape)))

    def forward(self, noisy: Tensor) -> Tensor:
        """Map noisy images [N, 3, H, W], pixels 0..1, to clean ones."""
        return noisy - self.noise(noisy)


def build() -> Module:
    """Return the untrained network."""
    return Denoiser()
