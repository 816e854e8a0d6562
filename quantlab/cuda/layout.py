"""What the kernels and their caller agree on: sizes, and structures in memory."""

import numpy as np

from quantlab.histogram import BINS, MIN_EXPONENT

KINDS = {"float32": 0, "float16": 1, "bfloat16": 2}
"""Element types that the kernels read, by NumPy's name, and their number there."""

TILE = 2048
"""Elements; the unit in which a launch's blocks share the work."""

THREADS, BLOCKS, UNROLL = 1024, 1, 4
"""Threads of a block, blocks that a multiprocessor holds, 16-byte loads in flight a thread.

Measured: benchmarks/results/gpu-h200.log.
"""

COPIES = 2
"""Of a block's table, interleaved so that neighbouring threads count in different ones."""

DEFINITIONS = tuple(
    f"-D{name}={value}"
    for name, value in {
        "BINS": BINS,
        "TILE": TILE,
        "THREADS": THREADS,
        "BLOCKS": BLOCKS,
        "UNROLL": UNROLL,
        "COPIES": COPIES,
        "NOTHING_SEEN": MIN_EXPONENT,
    }.items()
)
"""Options of the compiler."""

TABLE = (BINS + 1) * COPIES * 4
"""Bytes of a block's table in shared memory: 32-bit counts of BINS bins, and of the zeros."""

TENSOR = np.dtype(
    [("data", "u8"), ("size", "u8"), ("per_sample", "u8"), ("first_tile", "u8"), ("kind", "u8")]
)
"""A tensor to count."""

STATE = np.dtype(
    [
        *(("low", "u4"), ("high", "u4"), ("exponent", "i4"), ("limit", "u4")),
        *(("previous", "u4"), ("least", "f4"), ("most", "f4"), ("unused", "u4")),
        *(("nans", "u8"), ("infs", "u8"), ("first_nan", "u8"), ("first_inf", "u8")),
    ]
)
"""What is known of a tensor beside its counts."""

NO_SAMPLE = 2**64 - 1

START = (
    *(0xFF800000, 0x007FFFFF, MIN_EXPONENT, 1),
    *(1, np.inf, -np.inf, 0),
    *(0, 0, NO_SAMPLE, NO_SAMPLE),
)
"""The STATE of a tensor of which nothing was seen; extremes +inf and -inf as ordered bits."""
