"""A digit-style sample: one 28x28 picture, an engine, and what it takes the picture for.

What:    draws a test picture of the shipped Fashion-MNIST in the terminal, runs it through an
         engine of a run folder, and prints the probability of every class as a bar, the class that
         the picture has and the one that the engine sees.
Usage:   quantlab run examples/fashion_mnist/resnet.yaml
         python -P examples/deploy_mnist.py runs/resnet --precision int8 --picture 7
Input:   a run folder of examples/fashion_mnist, built by any backend; ``--picture`` is the place in
         the test split, by default drawn at random, as a new picture each time shows more.
Exit:    0 if the engine is right, 1 if it is wrong, 2 for bad input.
"""

import argparse
import random
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantlab import predict
from quantlab.datasets.fashion_mnist import FashionMnist, read_idx
from quantlab.errors import QuantlabError
from quantlab.records import PRECISIONS

DATA = Path(__file__).resolve().parent / "fashion_mnist"
IMAGES, LABELS = DATA / "t10k-images-idx3-ubyte.gz", DATA / "t10k-labels-idx1-ubyte.gz"
MEAN, STD = 0.2860, 0.3530
"""Of the training pixels, as the networks were trained with."""

SHADES = " .:-=+*#%@"
"""From black to white; two characters are about as wide as one is high."""

BAR = 40
"""Characters of a bar that stands for certainty."""


def drawn(picture: NDArray[np.uint8]) -> str:
    """Return a picture (height, width) of 0 to 255 as lines of characters."""
    shades = picture.astype(np.int64) * len(SHADES) // 256
    return "\n".join("".join(2 * SHADES[shade] for shade in row).rstrip() for row in shades)


def bars(chances: NDArray[np.float64], names: tuple[str, ...]) -> str:
    """Return a line for each class: its name, its probability, a bar."""
    width = max(map(len, names))
    return "\n".join(
        f"{name:>{width}}  {100 * chance:6.2f} %  {'#' * round(BAR * chance)}".rstrip()
        for name, chance in zip(names, chances, strict=True)
    )


def shown(target: Path, precision: str | None, place: int | None) -> bool:
    """Print everything; return whether the engine is right."""
    chosen = next((p for p in PRECISIONS if p == precision), None)
    source = predict.find(target, chosen)
    images = read_idx(IMAGES, axes=3)
    if place is None:
        place = random.SystemRandom().randrange(images.shape[0])
    dataset = FashionMnist(IMAGES, LABELS, DATA / "labels.txt", mean=MEAN, std=STD)
    (picture,) = images.rows(place, place + 1)
    with source.engine.open(source.build, source.root) as runner:
        spec = predict.only_input(runner, source)
        with dataset.open([spec]) as samples:
            (sample,) = samples.part(place, place + 1)
            names = samples.class_names or ()
        scores = predict.classify(runner, source, sample.arrays[spec.name][np.newaxis])
    (chances,) = predict.probabilities(scores)
    label, best = int(np.asarray(sample.label)), int(scores[0].argmax())
    print(f"{source.build.precision}: {source.engine.available()}")
    print(f"picture {place} of the test split:\n")
    print(drawn(np.asarray(picture, np.uint8)))
    print()
    print(bars(chances, names))
    print(f"\nexpected:  {names[label]}")
    print(f"predicted: {names[best]}, {'right' if best == label else 'WRONG'}")
    return best == label


def main() -> int:
    """Parse, show, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target", type=Path, metavar="RUN", help="run folder, or an engine in it")
    parser.add_argument("--precision", choices=PRECISIONS, help="int8 if not given")
    parser.add_argument("--picture", type=int, metavar="N", help="0 to 9999; random if not given")
    arguments = parser.parse_args()
    if arguments.picture is not None and not 0 <= arguments.picture < 10_000:
        parser.error("--picture: the test split has pictures 0 to 9999")
    try:
        right = shown(arguments.target, arguments.precision, arguments.picture)
    except QuantlabError as error:
        print(f"deploy_mnist: {error}", file=sys.stderr)
        return 2
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
