"""EfficientNet-like: inverted residuals with SiLU, squeeze and excitation, 3x3 and 5x5 kernels.

Source: Tan and Le, arXiv:1905.11946, table 1, sized for 32x32.
Limits: 0.56 million parameters; no stochastic depth.
"""

from torch import Tensor, nn

from benchmarks.networks.layers import Module, conv

STAGES = (
    (1, 16, 1, 1, 3),
    (4, 24, 2, 2, 3),
    (4, 40, 2, 1, 5),
    (4, 64, 3, 2, 3),
    (4, 112, 3, 1, 5),
)
"""Expansion, channels, blocks, stride of the first block, width of the depthwise kernel."""

STEM = 24
HEAD = 384


class Squeeze(Module):
    """Weigh each channel by a gate from the means of all channels."""

    def __init__(self, width: int, narrow: int) -> None:
        super().__init__()
        gate = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, narrow, 1), nn.SiLU()]
        self.gate = nn.Sequential(*gate, nn.Conv2d(narrow, width, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, width, H, W] to the same."""
        result: Tensor = x * self.gate(x)
        return result


class Block(Module):
    """Expand, filter each channel, weigh the channels, project."""

    def __init__(self, into: int, out: int, stride: int, shape: tuple[int, int]) -> None:
        super().__init__()
        expansion, kernel = shape
        hidden = into * expansion
        expand = [] if expansion == 1 else [*conv(into, hidden, 1), nn.SiLU()]
        filtered = [*conv(hidden, hidden, kernel, stride=stride, groups=hidden), nn.SiLU()]
        squeeze = Squeeze(hidden, max(8, into // 4))
        self.body = nn.Sequential(*expand, *filtered, squeeze, *conv(hidden, out, 1))
        self.residual = stride == 1 and into == out

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, into, H, W] to [N, out, H / stride, W / stride]."""
        result: Tensor = self.body(x)
        return x + result if self.residual else result


def build() -> Module:
    """Return the untrained network: normalized images [N, 3, 32, 32] to logits [N, 10]."""
    parts: list[Module] = [*conv(3, STEM, 3), nn.SiLU()]
    into = STEM
    for expansion, out, blocks, stride, kernel in STAGES:
        for index in range(blocks):
            parts.append(Block(into, out, 1 if index else stride, (expansion, kernel)))
            into = out
    head = [*conv(into, HEAD, 1), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    made: Module = nn.Sequential(*parts, *head, nn.Linear(HEAD, 10))
    return made
