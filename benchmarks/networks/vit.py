"""A small ViT: 64 tokens of width 128, 6 layers of 4 heads, q, k and v from one product.

Source: Dosovitskiy et al., arXiv:2010.11929; the stem is three 3x3 convolutions (Xiao et al.,
        arXiv:2106.14881), without which so short a training stays below 80 %; the tokens are
        averaged, there is no class token.
Limits: 0.9 million parameters.
"""

import torch
from torch import Tensor, nn

from benchmarks.networks.layers import Layer, Module, conv

WIDTH = 128
DEPTH = 6
HEADS = 4
HIDDEN = 256
TOKENS = 64


class ViT(Module):
    """Convolutional stem, position, layers, mean, classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *(*conv(3, 32, 3), nn.ReLU()),
            *(*conv(32, 64, 3, stride=2), nn.ReLU()),
            nn.Conv2d(64, WIDTH, 3, 2, 1),
        )
        self.position = nn.Parameter(torch.randn(1, TOKENS, WIDTH) * 0.02)
        self.layers = nn.Sequential(
            *(Layer(WIDTH, HEADS, TOKENS, HIDDEN, fused=True) for _ in range(DEPTH))
        )
        self.norm = nn.LayerNorm(WIDTH)
        self.classifier = nn.Linear(WIDTH, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Map normalized images [N, 3, 32, 32] to logits [N, 10]."""
        tokens = self.stem(image).reshape(-1, WIDTH, TOKENS).transpose(1, 2) + self.position
        result: Tensor = self.classifier(self.norm(self.layers(tokens)).mean(1))
        return result


def build() -> Module:
    """Return the untrained network."""
    return ViT()
