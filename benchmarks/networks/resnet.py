"""ResNet-20-like: residual blocks of two 3x3 convolutions, 24, 48 and 96 channels wide.

Source: He et al., arXiv:1512.03385, section 4.2; half as wide again (16, 32, 64 there), and
        shortcuts that change shape are 1x1 convolutions.
Limits: 0.61 million parameters, 91 million multiply-adds an image of 32x32.
"""

from torch import Tensor, nn

from benchmarks.networks.layers import Module, conv

WIDTHS = (24, 48, 96)
BLOCKS = 3


class Block(Module):
    """Two convolutions and a shortcut."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(*conv(into, out, 3, stride=stride), nn.ReLU())
        self.second = nn.Sequential(*conv(out, out, 3))
        same = stride == 1 and into == out
        self.shortcut = nn.Identity() if same else nn.Sequential(*conv(into, out, 1, stride=stride))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, into, H, W] to [N, out, H / stride, W / stride]."""
        result: Tensor = self.relu(self.second(self.first(x)) + self.shortcut(x))
        return result


def build() -> Module:
    """Return the untrained network: normalized images [N, 3, 32, 32] to logits [N, 10]."""
    parts: list[Module] = [*conv(3, WIDTHS[0], 3), nn.ReLU()]
    into = WIDTHS[0]
    for stage, width in enumerate(WIDTHS):
        for index in range(BLOCKS):
            parts.append(Block(into, width, 2 if stage and not index else 1))
            into = width
    made: Module = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(into, 10))
    return made
