"""Reading npz files so that damage is noticed."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DAMAGED = (
    *(OSError, EOFError, LookupError, RuntimeError, TypeError, ValueError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What reading a damaged npz file raises in NumPy, zipfile and zlib."""


def arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an npz file, whose checksums are right; raise one of DAMAGED if not."""
    with path.open("rb") as raw:
        with zipfile.ZipFile(raw) as archive:
            damaged = archive.testzip()  # NumPy reads what a header says, which may be too little
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} has another checksum")
        raw.seek(0)
        with np.load(raw, allow_pickle=False) as file:
            return dict(file)
