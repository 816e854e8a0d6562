"""CIFAR-10 as arrays, from one file of JPEG bytes, and what each network is given of it.

Format: an .npz with, for "train" and "test", ``<split>_jpeg`` (all files' bytes, one after the
        other), ``<split>_ends`` (where each ends) and ``<split>_labels``.
Units:  pixels uint8 0..255, RGB, [N, 3, 32, 32].  Classifiers see (pixel / 255 - MEAN) / STD, the
        denoiser pixel / 255 with noise of deviation NOISE added, not clipped.
Limits: for local use; the data are neither shipped nor committed.
"""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)

NOISE = 25 / 255
"""Standard deviation of the noise, of pixels 0..1."""

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


def read(path: Path, split: str, limit: int | None = None) -> tuple[Pixels, Labels]:
    """Return the first ``limit`` pictures of "train" or "test" (N, 3, 32, 32) and labels (N,)."""
    with np.load(path, allow_pickle=False) as file:
        blob, ends = file[f"{split}_jpeg"].tobytes(), file[f"{split}_ends"][:limit]
        labels = file[f"{split}_labels"][:limit]
    starts = np.concatenate([[0], ends[:-1]])
    pieces = [blob[start:end] for start, end in zip(starts, ends, strict=True)]
    with ThreadPoolExecutor() as pool:
        pictures = list(pool.map(_decode, pieces, chunksize=256))
    return np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2)), labels.astype(np.int64)


def _decode(piece: bytes) -> Pixels:
    from PIL import Image

    with Image.open(io.BytesIO(piece)) as picture:
        return np.asarray(picture.convert("RGB"))


def normalized(pixels: Pixels) -> Floats:
    """Return what the classifiers see."""
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (MEAN, STD))
    return np.asarray((pixels.astype(np.float32) / 255 - mean) / std, np.float32)


def noisy(pixels: Pixels, seed: int) -> tuple[Floats, Floats]:
    """Return (noisy, clean): what the denoiser sees and what it should return."""
    clean = pixels.astype(np.float32) / np.float32(255)
    noise = np.random.default_rng(seed).standard_normal(clean.shape, np.float32)
    return clean + noise * np.float32(NOISE), clean


def psnr(output: Floats, clean: Floats) -> float:
    """Return the mean over images of 10 log10(1 / mean squared error), in dB."""
    errors = np.square(output.astype(np.float64) - clean).mean(axis=(1, 2, 3))
    return float(np.mean(-10 * np.log10(errors)))


def retrieved(first: Floats, second: Floats) -> float:
    """Return how often, in percent, a first sentence is nearest its own second, by cosine."""
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (first, second))
    return float(np.mean((a @ b.T).argmax(1) == np.arange(len(a))) * 100)
