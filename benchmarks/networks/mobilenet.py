"""MobileNetV2-like: inverted residuals with depthwise convolutions and linear bottlenecks.

Source: Sandler et al., arXiv:1801.04381, sized for 32x32.  ReLU6 follows the expansion, as there;
        plain ReLU follows the depthwise convolution, because ReLU6 lets no scale through and the
        hard form is to compute the same function exactly.
Limits: 0.57 million parameters.
"""

from torch import Tensor, nn

from benchmarks.networks.layers import Module, conv

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 1), (6, 64, 4, 2), (6, 96, 3, 1))
"""Expansion, channels, blocks, stride of the first block."""

STEM = 32
HEAD = 384


class Block(Module):
    """Expand by 1x1, filter each channel by 3x3, project by a linear 1x1."""

    def __init__(self, into: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = into * expansion
        expand = [] if expansion == 1 else [*conv(into, hidden, 1), nn.ReLU6()]
        filtered = [*conv(hidden, hidden, 3, stride=stride, groups=hidden), nn.ReLU()]
        self.body = nn.Sequential(*expand, *filtered, *conv(hidden, out, 1))
        self.residual = stride == 1 and into == out

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, into, H, W] to [N, out, H / stride, W / stride]."""
        result: Tensor = self.body(x)
        return x + result if self.residual else result


def build() -> Module:
    """Return the untrained network: normalized images [N, 3, 32, 32] to logits [N, 10]."""
    parts: list[Module] = [*conv(3, STEM, 3), nn.ReLU6()]
    into = STEM
    for expansion, out, blocks, stride in STAGES:
        for index in range(blocks):
            parts.append(Block(into, out, 1 if index else stride, expansion))
            into = out
    head = [*conv(into, HEAD, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    made: Module = nn.Sequential(*parts, *head, nn.Linear(HEAD, 10))
    return made
