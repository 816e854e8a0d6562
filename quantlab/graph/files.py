"""Which files an ONNX model is made of, and their hash."""

from pathlib import Path

from onnx.external_data_helper import uses_external_data

from quantlab.files import sha256
from quantlab.graph.model import check_tensors, parse, tensor_protos


def files(path: Path) -> tuple[Path, ...]:
    """Return the model's file and the external data files that it names, each once.

    Raises:
        ModelError: as ``model.parse`` and ``model.check_tensors``.
    """
    proto = parse(path)
    check_tensors(proto, path)
    names = [
        entry.value
        for tensor in tensor_protos(proto.graph)
        if uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    ]
    return (path, *(path.parent / name for name in dict.fromkeys(names)))


def digest(path: Path) -> str:
    """Return the SHA-256 of every file of a model, joined by ``+``; one for most models."""
    return "+".join(sha256(file) for file in files(path))
