"""Records as JSON files, read back strictly."""

from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from quantlab.errors import OutputError
from quantlab.files import write

T = TypeVar("T")


def dump(path: Path, value: T, kind: type[T]) -> Path:
    """Write ``value``, a ``kind``, whole or not at all; return the path."""
    write(path, TypeAdapter(kind).dump_json(value, indent=1) + b"\n")
    return path


def load(path: Path, kind: type[T]) -> T:
    """Read what ``dump`` wrote.

    Raises:
        OutputError: the file is missing or is not a ``kind``.
    """
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise OutputError(f"{path} is missing; run the step that makes it again") from error
    except (OSError, ValidationError) as error:
        raise OutputError(
            f"cannot read {path}: {error}; run the step that makes it again"
        ) from error
