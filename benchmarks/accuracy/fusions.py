"""Q/DQ pairs that block a fusion in OpenVINO, read from its run-time model.

A node that shares a kernel with others in FP32 and has one of its own in INT8 was cut off by a
pair, convolutions and products themselves set aside: an Add may change its layer, and be fused
there.  Nodes are compared by name, so the FP32 model must be the one that INT8 was made of.

OpenVINO cuts names at "/", so both models are compared under plain names.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from quantlab.graph.view import WEIGHTED
from tests.graph import fusions


def blocked(fp32: Path, int8: Path) -> int:
    """Return how many nodes are cut off."""
    reference, quantized = onnx.load(fp32), onnx.load(int8)
    names = {node.name: f"n{index}" for index, node in enumerate(reference.graph.node)}
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / file for file in ("fp32.onnx", "int8.onnx")]
        for model, path in zip((reference, quantized), paths, strict=True):
            _rename(model, names)
            onnx.save(model, path)
        plain = set(names.values())
        fused = fusions.fused(fusions.kernels(paths[0], plain))
        alone = fusions.alone(fusions.kernels(paths[1], plain))
    layers = {node.name for node in reference.graph.node if node.op_type in WEIGHTED}
    return len((fused & alone) - layers)


def _rename(model: onnx.ModelProto, names: dict[str, str]) -> None:
    """Give nodes their plain names, and outputs of the model the names that OpenVINO goes by."""
    made: dict[str, str] = {}
    for index, node in enumerate(model.graph.node):
        node.name = names.get(node.name, f"q{index}")
        made |= dict.fromkeys(node.output, node.name)
    outputs = {v.name: f"{made[v.name]}_out" for v in model.graph.output if v.name in made}
    for node in model.graph.node:
        node.input[:] = [outputs.get(name, name) for name in node.input]
        node.output[:] = [outputs.get(name, name) for name in node.output]
    for value in model.graph.output:
        value.name = outputs.get(value.name, value.name)
