"""ConvNeXt-like: depthwise 7x7, LayerNorm over channels, two products with GELU between.

Source: Liu et al., arXiv:2201.03545, figure 4, sized for 32x32: stem 2x2, then 16x16, 8x8, 4x4.
Limits: 0.84 million parameters; layer scale starts at 0.1, not 1e-6, because it is shallow; no
        stochastic depth.
"""

import torch
from torch import Tensor, nn

from benchmarks.networks.layers import Module

STAGES = ((40, 2), (80, 2), (160, 3))
"""Channels and blocks."""


class Norm(Module):
    """LayerNorm over the channels of [N, C, H, W]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the same."""
        result: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return result


class Block(Module):
    """Filter each channel by 7x7, then mix the channels of each place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.filter = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.gelu = nn.GELU()
        self.down = nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, width, H, W] to the same."""
        y = self.norm(self.filter(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(self.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


def build() -> Module:
    """Return the untrained network: normalized images [N, 3, 32, 32] to logits [N, 10]."""
    into = STAGES[0][0]
    parts: list[Module] = [nn.Conv2d(3, into, 2, 2), Norm(into)]
    for width, blocks in STAGES:
        if width != into:
            parts += [Norm(into), nn.Conv2d(into, width, 2, 2)]
        parts += [Block(width) for _ in range(blocks)]
        into = width
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(into)]
    made: Module = nn.Sequential(*parts, *pool, nn.Linear(into, 10))
    return made
