"""Files that are whole or not there, and their hashes."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from quantlab.errors import OutputError, QuantlabError

CHUNK = 1 << 20


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read(path: Path, *, limit: int, error: type[QuantlabError]) -> bytes:
    """Return a whole file of at most ``limit`` bytes, and never hold more than that.

    Raises:
        QuantlabError: of class ``error``, if the file cannot be read or is larger.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as cause:
        raise error(f"cannot read {path}: {cause.strerror or cause}; check the path") from cause
    if len(data) > limit:
        raise error(f"{path}: expected at most {limit} bytes, the file is larger; check the path")
    return data


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` when the block succeeds.

    The temporary name ends like ``path``, because some libraries choose a format by it.

    Raises:
        OutputError: the folder is not writable or the disk is full; ``path`` is as it was.
    """
    if path.exists() and not path.is_file():  # a device would be replaced by a file
        raise OutputError(f"cannot write {path}: it is not a regular file; choose another name")
    with translated(path):
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}.", suffix=f".partial{path.suffix}", dir=path.parent
        )
        os.close(handle)
    temporary = Path(name)
    try:
        with translated(path):
            yield temporary
            temporary.chmod(0o644)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn an OSError from writing ``path`` into an OutputError that says what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "free disk space or choose another folder" if full else "choose another folder"
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; {remedy} with 'output:' or --output"
        ) from error


def write(path: Path, content: str | bytes) -> None:
    """Write a whole file or none."""
    write_with(path, lambda target: _dump(target, content))


def write_with(path: Path, writer: Callable[[Path], object]) -> None:
    """Let ``writer`` fill a temporary file, then rename it to ``path``."""
    with staged(path) as temporary:
        writer(temporary)


def _dump(target: Path, content: str | bytes) -> None:
    data = content.encode() if isinstance(content, str) else content
    with target.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder; it becomes ``path``, which must not exist, when the block succeeds.

    Raises:
        OutputError: ``path`` exists, or it cannot be written; then nothing is left.
    """
    if path.exists():
        raise OutputError(f"{path} exists and would be replaced; delete it or name another folder")
    with translated(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{path.name}.", suffix=".partial", dir=path.parent
        ) as temporary:
            folder = Path(temporary) / path.name
            folder.mkdir()
            yield folder
            folder.rename(path)
