"""One hash for a set of samples, whatever their order and batch size.

SHA-256 over the sorted SHA-256 digests of the samples; a sample's covers, input by input in the
order of their names, the name, dtype, shape with a batch axis of 1, and the bytes.  Labels do not
count, as calibration does not see them.
"""

import hashlib

import numpy as np

from quantlab.datasets.base import Batch


class Fingerprint:
    """Collects batches; holds 32 bytes a sample."""

    def __init__(self) -> None:
        self._digests: list[bytes] = []

    def add(self, batch: Batch) -> None:
        """Take in every sample of a batch."""
        arrays = [(name, np.ascontiguousarray(batch.arrays[name])) for name in sorted(batch.arrays)]
        for row in range(batch.size):
            digest = hashlib.sha256()
            for name, array in arrays:
                # A batch of one may hold an input without batch axis, which is hashed whole.
                part = array if batch.size == 1 else array[row : row + 1]
                head = f"{len(name)}:{name} {part.dtype.str} {part.shape}\n"
                digest.update(head.encode())
                digest.update(part.reshape(-1).view(np.uint8).data)
            self._digests.append(digest.digest())

    def hexdigest(self) -> str:
        """Return the hash of the samples so far."""
        return hashlib.sha256(b"".join(sorted(self._digests))).hexdigest()
