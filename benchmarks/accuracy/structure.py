"""Whether two INT8 models are the same but for their numbers.

The structure is a digest of the graph in order: operators, attributes, who reads whom, and of the
constants shapes, types and, for 8-bit ones without or with one axis, whether they are all zero,
because engines have other kernels for other zero points.  Names, weights and scales are left out.
"""

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

BYTES = (TensorProto.INT8, TensorProto.UINT8)
DIGITS = 16


def structure(path: Path) -> str:
    """Return the digest of a file's structure."""
    graph = onnx.load(path).graph
    numbers = {value.name: f"input{index}" for index, value in enumerate(graph.input)}
    numbers |= {tensor.name: _constant(tensor) for tensor in graph.initializer}
    digest = hashlib.sha256()
    for index, node in enumerate(graph.node):
        numbers |= {name: f"{index}.{slot}" for slot, name in enumerate(node.output)}
        attributes = sorted(a.name.encode() + _value(a) for a in node.attribute)
        read = [numbers.get(name, "") for name in node.input]
        digest.update(repr((node.op_type, read, attributes)).encode())
    return digest.hexdigest()[:DIGITS]


def _value(attribute: onnx.AttributeProto) -> bytes:
    if attribute.type == onnx.AttributeProto.TENSOR:
        return _constant(attribute.t).encode()
    return bytes(attribute.SerializeToString(deterministic=True))


def _constant(tensor: TensorProto) -> str:
    told = f"{tensor.data_type}{list(tensor.dims)}"
    if tensor.data_type in BYTES and len(tensor.dims) <= 1:
        told += f"zero={not np.any(numpy_helper.to_array(tensor))}"
    return told
