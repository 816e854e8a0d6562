"""What OpenVINO makes of a model's nodes, as its run-time model tells it."""

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import openvino

INTEGERS = frozenset({"i8", "u8"})
WEIGHTED = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})


@dataclass(frozen=True, slots=True)
class Kernel:
    """An executed layer.

    Attributes:
        type: in OpenVINO's words.
        precision: element type that it computes in.
        nodes: the nodes of the ONNX model that it does the work of.
    """

    type: str
    precision: str
    nodes: frozenset[str]


def kernels(path: Path, nodes: Container[str]) -> list[Kernel]:
    """Return what is executed; ``nodes`` are the names of the model's nodes."""
    core = openvino.Core()
    compiled = core.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    infos = [op.get_rt_info() for op in compiled.get_runtime_model().get_ops()]
    infos = [info for info in infos if info["layerType"].value not in ("Input", "Output", "Const")]
    return [
        Kernel(
            str(info["layerType"].value),
            str(info["runtimePrecision"].value),
            frozenset(_nodes(str(info["originalLayersNames"].value), nodes)),
        )
        for info in infos
    ]


def _nodes(names: str, nodes: Container[str]) -> list[str]:
    """Return the nodes behind the names of a layer.

    OpenVINO adds "/..." to what it splits and "_original" to what it renames, and calls what makes
    an output of the model by the output's name, which the tests' models end with "_out".
    """
    stems = (name.partition("/")[0].removesuffix("_original") for name in names.split(","))
    wanted = (stem if stem in nodes else stem.removesuffix("_out") for stem in stems)
    return [name for name in wanted if name in nodes]


def fused(executed: list[Kernel]) -> set[str]:
    """Return the nodes that share a kernel with others."""
    return {name for kernel in executed for name in kernel.nodes if len(kernel.nodes) > 1}


def alone(executed: list[Kernel]) -> set[str]:
    """Return the nodes that have a kernel of their own; some have none, as a Relu before UINT8."""
    return {name for kernel in executed for name in kernel.nodes if len(kernel.nodes) == 1}
