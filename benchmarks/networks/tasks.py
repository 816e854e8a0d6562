"""What the networks learn: batches on the device, a loss, and the score on the test split.

Units:  top1 and retrieved in percent, psnr in dB.  In a run the test split is only measured.
Limits: all data are on the device; in an epoch no sample comes twice, the last few not at all.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.networks import data, sentences
from benchmarks.networks.layers import Module

SIDE = 32
PAD = 4
TEMPERATURE = 0.05
TEST_SEED = 1
"""Of the noise and of the sentences that the score is measured on."""

TEST_PAIRS = 2000
TRAIN_PAIRS = 400_000
TRAIN_SEED = 0

Score = dict[str, float]


class Task(Protocol):
    """One kind of training."""

    @property
    def inputs(self) -> str:
        """Name of the network's input."""
        ...

    @property
    def outputs(self) -> str:
        """Name of its output."""
        ...

    @property
    def count(self) -> int:
        """Training samples."""
        ...

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (inputs, targets) without end."""
        ...

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return what is to become small, from the network's output in float32."""
        ...

    def score(self, model: Module) -> Score:
        """Return the scores on the test split."""
        ...

    def example(self) -> Tensor:
        """Return a few inputs of the test split."""
        ...


@dataclass(frozen=True)
class Pictures:
    """CIFAR-10 on the device; ``padded`` are the training pictures with a reflected border."""

    padded: Tensor
    labels: Tensor
    test: data.Pixels
    test_labels: Tensor
    device: torch.device

    @classmethod
    def load(cls, path: Path | None, device: torch.device) -> "Pictures":
        """Read the file; without one make noise, to try the code."""
        if path is None:
            rng = np.random.default_rng(0)
            made = [rng.integers(0, 256, (n, 3, SIDE, SIDE), np.uint8) for n in (64, 32)]
            pixels, test = made
            labels, test_labels = (rng.integers(0, 10, len(x)) for x in made)
        else:
            pixels, labels = data.read(path, "train")
            test, test_labels = data.read(path, "test")
        border = ((0, 0), (0, 0), (PAD, PAD), (PAD, PAD))
        padded = torch.from_numpy(np.pad(pixels, border, mode="reflect")).to(device)
        known = [torch.from_numpy(x).to(device) for x in (labels, test_labels)]
        return cls(padded, known[0], test, known[1], device)


def crops(pictures: Pictures, chosen: Tensor) -> Tensor:
    """Return the chosen pictures, each moved by up to PAD pixels and flipped or not, 0..1."""
    count, device = len(chosen), chosen.device
    moves = torch.randint(0, 2 * PAD + 1, (2, count, 1), device=device)
    along = torch.arange(SIDE, device=device)
    flip = torch.rand(count, 1, device=device) < 0.5
    rows = moves[0] + along
    columns = moves[1] + torch.where(flip, along.flip(0), along)
    channels = torch.arange(3, device=device)[None, :, None, None]
    cut = pictures.padded[
        chosen[:, None, None, None], channels, rows[:, None, :, None], columns[:, None, None, :]
    ]
    return cut.float() / 255


def mixup(images: Tensor, wanted: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Return each image and its target with those of another, as weighted means."""
    other = 1 - share
    return share * images + other * images.flip(0), share * wanted + other * wanted.flip(0)


def cutmix(images: Tensor, wanted: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return each image with a square of another, anywhere; targets mixed as the areas are.

    Source: Yun et al., arXiv:1905.04899.
    """
    along = torch.arange(SIDE, device=images.device)
    middle = torch.randint(0, SIDE, (2, len(images), 1), device=images.device)
    low = middle - width // 2
    rows, columns = ((along >= x) & (along < x + width) for x in low)
    square = rows[:, None, :, None] & columns[:, None, None, :]
    area = square.float().mean((1, 2, 3))[:, None]
    mixed = (1 - area) * wanted + area * wanted.flip(0)
    return torch.where(square, images.flip(0), images), mixed


def shuffled(count: int, size: int, device: torch.device) -> Iterator[Tensor]:
    """Yield ``size`` numbers below ``count`` without end; within an epoch none twice."""
    size = min(size, count)
    while True:
        order = torch.randperm(count, device=device)
        yield from (order[at : at + size] for at in range(0, count - size + 1, size))


@dataclass(frozen=True)
class Classify:
    """Top-1 on CIFAR-10.

    Attributes:
        pictures: the data.
        mix: alpha of mixup, 0 for none.
        cutmix: share of the batches that have cutmix instead.
        smoothing: of the labels.
    """

    pictures: Pictures
    mix: float = 0.0
    cutmix: float = 0.0
    smoothing: float = 0.1
    inputs: str = "image"
    outputs: str = "logits"

    @property
    def count(self) -> int:
        """Training pictures."""
        return len(self.pictures.labels)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalized images and wanted probabilities."""
        device = self.pictures.device
        mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (data.MEAN, data.STD))
        shares = np.random.default_rng(TRAIN_SEED)
        for chosen in shuffled(self.count, size, device):
            images = (crops(self.pictures, chosen) - mean) / std
            wanted = functional.one_hot(self.pictures.labels[chosen], 10).float()
            wanted = wanted * (1 - self.smoothing) + self.smoothing / 10
            if shares.random() < self.cutmix:
                width = round(SIDE * float(shares.random()) ** 0.5)
                images, wanted = cutmix(images, wanted, width)
            elif self.mix:
                images, wanted = mixup(images, wanted, float(shares.beta(self.mix, self.mix)))
            yield images, wanted

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the cross entropy."""
        return functional.cross_entropy(output, target)

    def score(self, model: Module) -> Score:
        """Return top1."""
        images = torch.from_numpy(data.normalized(self.pictures.test)).to(self.pictures.device)
        found = outputs(model, images).argmax(1)
        return {"top1": 100 * (found == self.pictures.test_labels).double().mean().item()}

    def example(self) -> Tensor:
        """Return a few test images."""
        return torch.from_numpy(data.normalized(self.pictures.test[:64]))


@dataclass(frozen=True)
class Denoise:
    """PSNR of what is left of CIFAR-10 with noise of a known deviation."""

    pictures: Pictures
    inputs: str = "noisy"
    outputs: str = "clean"

    @property
    def count(self) -> int:
        """Training pictures."""
        return len(self.pictures.labels)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield noisy and clean images."""
        for chosen in shuffled(self.count, size, self.pictures.device):
            clean = crops(self.pictures, chosen)
            yield clean + torch.randn_like(clean) * data.NOISE, clean

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean squared error, in units that keep gradients of the order of 1."""
        return functional.mse_loss(output / data.NOISE, target / data.NOISE)

    def score(self, model: Module) -> Score:
        """Return psnr, and that of the images as they came."""
        noisy, clean = data.noisy(self.pictures.test, TEST_SEED)
        found = outputs(model, torch.from_numpy(noisy).to(self.pictures.device)).cpu().numpy()
        return {"psnr": data.psnr(found, clean), "psnr_noisy": data.psnr(noisy, clean)}

    def example(self) -> Tensor:
        """Return a few noisy test images."""
        return torch.from_numpy(data.noisy(self.pictures.test[:64], TEST_SEED)[0])


@dataclass(frozen=True)
class Embed:
    """How often the sentence nearest to a sentence is the other one of its document."""

    train: Tensor
    test: Tensor
    inputs: str = "tokens"
    outputs: str = "embedding"

    @classmethod
    def make(cls, count: int, device: torch.device) -> "Embed":
        """Make ``count`` documents to train on."""
        made = sentences.pairs(count, TRAIN_SEED), sentences.pairs(TEST_PAIRS, TEST_SEED)
        train, test = (torch.from_numpy(x).to(device) for x in made)
        return cls(train, test)

    @property
    def count(self) -> int:
        """Training documents."""
        return len(self.train)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all first sentences, then all second ones; the target says where each's own is."""
        target = torch.arange(min(size, self.count), device=self.train.device)
        for chosen in shuffled(self.count, size, self.train.device):
            yield self.train[chosen].transpose(0, 1).reshape(-1, sentences.LENGTH), target

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the cross entropy of finding one's own among the batch, both ways."""
        first, second = functional.normalize(output, dim=1).chunk(2)
        scores = first @ second.T / TEMPERATURE
        ways = (functional.cross_entropy(x, target) for x in (scores, scores.T))
        return sum(ways, torch.zeros((), device=output.device)) / 2

    def score(self, model: Module) -> Score:
        """Return retrieved."""
        found = [outputs(model, self.test[:, side]).cpu().numpy() for side in range(2)]
        return {"retrieved": data.retrieved(found[0], found[1])}

    def example(self) -> Tensor:
        """Return a few test sentences."""
        return self.test[:64, 0].cpu()


def outputs(model: Module, inputs: Tensor, batch: int = 1000) -> Tensor:
    """Return the outputs in FP32, as the network is used and not as it is trained."""
    model.eval()
    with torch.no_grad():
        parts = [model(inputs[at : at + batch]) for at in range(0, len(inputs), batch)]
    return torch.cat(parts).float()
