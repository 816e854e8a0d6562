"""The two example networks: a residual network and a MobileNetV2-like one.

What:   PyTorch modules; ``NETWORKS`` maps the name of a shipped file to its constructor.
Units:  input is normalised images [N, 1, 28, 28], output is logits [N, 10].
Source: the ideas of He et al. 2015 and Sandler et al. 2018, scaled down to 28x28 pixels.
Limits: sized to stay under 3 MB of float32 weights each.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from fashion_mnist.idx import LABELS
from torch import Tensor, nn
from torch.nn import functional


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
    """Build a padded convolution without bias followed by batch normalisation."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(outputs)))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut, projected by a 1x1 where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_bn(inputs, outputs, 3, stride)
        self.conv2 = conv_bn(outputs, outputs, 3)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else conv_bn(inputs, outputs, 1, stride)

    def forward(self, image: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        hidden = functional.relu(self.conv1(image))
        result: Tensor = self.conv2(hidden) + self.shortcut(image)
        return functional.relu(result)


class ResNet(nn.Module):
    """Residual network; ``stages`` lists (width, blocks, stride of the first block)."""

    def __init__(self, stem: int, stages: tuple[tuple[int, int, int], ...]) -> None:
        super().__init__()
        self.stem = conv_bn(1, stem, 3)
        blocks: list[nn.Module] = []
        width = stem
        for outputs, count, stride in stages:
            for index in range(count):
                blocks.append(ResidualBlock(width, outputs, stride if index == 0 else 1))
                width = outputs
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width, len(LABELS))

    def forward(self, image: Tensor) -> Tensor:
        """Map normalised images [N, 1, 28, 28] to logits [N, 10]."""
        hidden = self.blocks(functional.relu(self.stem(image)))
        logits: Tensor = self.classifier(hidden.mean(dim=(2, 3)))
        return logits


class InvertedResidual(nn.Module):
    """Expand by a 1x1, filter each channel by a depthwise 3x3, project by a linear 1x1."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = nn.Identity() if expansion == 1 else conv_bn(inputs, hidden, 1)
        self.depthwise = conv_bn(hidden, hidden, 3, stride, groups=hidden)
        self.project = conv_bn(hidden, outputs, 1)
        self.expands = expansion != 1
        self.residual = inputs == outputs and stride == 1

    def forward(self, image: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        hidden = functional.relu6(self.expand(image)) if self.expands else image
        result: Tensor = self.project(functional.relu6(self.depthwise(hidden)))
        return image + result if self.residual else result


class MobileNet(nn.Module):
    """MobileNetV2-like network; ``stages`` lists (expansion, width, blocks, stride)."""

    def __init__(self, stem: int, stages: tuple[tuple[int, int, int, int], ...], head: int) -> None:
        super().__init__()
        self.stem = conv_bn(1, stem, 3)
        blocks: list[nn.Module] = []
        width = stem
        for expansion, outputs, count, stride in stages:
            for index in range(count):
                step = stride if index == 0 else 1
                blocks.append(InvertedResidual(width, outputs, step, expansion))
                width = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = conv_bn(width, head, 1)
        self.classifier = nn.Linear(head, len(LABELS))

    def forward(self, image: Tensor) -> Tensor:
        """Map normalised images [N, 1, 28, 28] to logits [N, 10]."""
        hidden = self.blocks(functional.relu6(self.stem(image)))
        hidden = functional.relu6(self.head(hidden))
        logits: Tensor = self.classifier(hidden.mean(dim=(2, 3)))
        return logits


def make_resnet() -> nn.Module:
    """Build the shipped residual network: wide early stages, where INT8 pays off most."""
    return ResNet(64, ((64, 2, 1), (96, 2, 2), (128, 1, 2)))


def make_mobilenet() -> nn.Module:
    """Build the shipped MobileNetV2-like network."""
    stages = ((1, 16, 1, 1), (4, 24, 2, 1), (4, 32, 2, 2), (4, 64, 3, 2), (4, 96, 2, 1))
    return MobileNet(32, stages, 256)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet": make_resnet,
    "mobilenet": make_mobilenet,
}
