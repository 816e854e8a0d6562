"""One hash for a set of samples, whatever their order, batch size, or who read which of them.

A sample's digest is the SHA-256 that covers, input by input in the order of their names, the name,
dtype, shape with a batch axis of 1, and the bytes.  Labels count only where asked for: calibration
does not see them, an evaluation does.  The digests are added up modulo 2**256, so that parts can be
merged and no number of samples takes memory.  The hash tells whether samples changed; it is no
proof against someone who wants a collision.
"""

import hashlib
from collections.abc import Iterable

import numpy as np

from quantlab.datasets.base import Batch

MODULUS = 1 << 256


class Fingerprint:
    """Adds up the digests of samples.

    Attributes:
        total: sum of the samples' digests so far, below MODULUS.
        labelled: whether labels count.
    """

    def __init__(self, total: int = 0, *, labelled: bool = False) -> None:
        self.total = total
        self.labelled = labelled

    def add(self, batch: Batch) -> None:
        """Take in every sample of a batch."""
        arrays = [(name, np.ascontiguousarray(batch.arrays[name])) for name in sorted(batch.arrays)]
        if self.labelled and batch.labels is not None:
            arrays.append(("", np.ascontiguousarray(batch.labels)))
        for row in range(batch.size):
            digest = hashlib.sha256()
            for name, array in arrays:
                # A batch of one may hold an input without batch axis, which is hashed whole.
                part = array if batch.size == 1 else array[row : row + 1]
                head = f"{len(name)}:{name} {part.dtype.str} {part.shape}\n"
                digest.update(head.encode())
                digest.update(part.reshape(-1).view(np.uint8).data)
            self.merge(int.from_bytes(digest.digest()))

    def merge(self, total: int) -> None:
        """Take in the samples of another fingerprint by its ``total``."""
        self.total = (self.total + total) % MODULUS

    def hexdigest(self) -> str:
        """Return the hash of the samples so far, SHA-256 of their sum."""
        return hashlib.sha256(self.total.to_bytes(32)).hexdigest()


def fingerprint(batches: Iterable[Batch], *, labelled: bool = False) -> Fingerprint:
    """Return the fingerprint of all samples of some batches."""
    seen = Fingerprint(labelled=labelled)
    for batch in batches:
        seen.add(batch)
    return seen
