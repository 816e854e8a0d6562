"""Which files an ONNX model is made of, and their hash."""

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import uses_external_data

from quantlab.errors import ModelError
from quantlab.files import sha256
from quantlab.graph.model import tensor_protos


def files(path: Path) -> tuple[Path, ...]:
    """Return the model's file and the external data files that it names, each once.

    Raises:
        ModelError: the file cannot be read as ONNX, or a data file is missing.
    """
    try:
        proto = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError, ValueError) as error:
        raise ModelError(f"{path}: not a readable ONNX file: {error}") from error
    names = [
        entry.value
        for tensor in tensor_protos(proto.graph)
        if uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    ]
    found = (path, *(path.parent / name for name in dict.fromkeys(names)))
    for file in found:
        if not file.is_file():
            raise ModelError(f"{path}: its data file {file.name!r} is missing; copy it beside it")
    return found


def digest(path: Path) -> str:
    """Return the SHA-256 of every file of a model, joined by ``+``; one for most models."""
    return "+".join(sha256(file) for file in files(path))
