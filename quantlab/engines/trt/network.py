"""From an ONNX file to TensorRT's network; what the parser refuses, in words; plugin libraries.

The parser says which node it refuses, and the line of its own sources that does; what to do is
ours to say.
"""

import ctypes
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantlab.engines.trt.api_build import (
    Builder,
    ILogger,
    INetworkDefinition,
    ITensor,
    OnnxParser,
    ParserError,
)
from quantlab.engines.trt.callbacks import deprecated
from quantlab.engines.trt.library import Library
from quantlab.engines.trt.log import NAME, Log, plain
from quantlab.engines.trt.profiles import Shape, shape_of
from quantlab.errors import EngineError, EngineUnavailable

if TYPE_CHECKING:
    from onnx import NodeProto

CREATORS = ("getCreators", "getPluginCreators")
"""What a plugin library exports if its plugins are to be registered by TensorRT."""

NO_PLUGIN = "Plugin not found"

REMEDIES: dict[str, str] = {
    r"type Int32 but must have type": (
        "biases must not go through Q/DQ: keep them in floating point"
    ),
    r"Scale coefficients must all be positive": ("make its scale greater than 0"),
    r"[Nn]on-zero zero point|shiftIsAllZeros": (
        "TensorRT's INT8 is symmetric: quantize with zero point 0"
    ),
    r"Failed to parse the ONNX model|MODEL_DESERIALIZE_FAILED": (
        "the file is no whole ONNX model: export or copy it again"
    ),
    r"Failed to convert ONNX dat[ae] type": (
        "TensorRT has no such element type: export the model with floats, integers or booleans"
    ),
}
"""What to do, by what the parser's message matches; the first that does."""

OTHERWISE = "rewrite that part of the model, keep it out of it, or use another TensorRT"


@dataclass(frozen=True, slots=True)
class Parsed:
    """A model that TensorRT has read.

    Attributes:
        network: the network.
        parser: owns the weights that the network points to, so it is kept as long.
    """

    network: INetworkDefinition
    parser: OnnxParser

    @property
    def inputs(self) -> dict[str, Shape]:
        """Shapes of the inputs; -1 is an open axis."""
        found = map(self.network.get_input, range(self.network.num_inputs))
        return {tensor.name: shape_of(tensor) for tensor in found}


def start(library: Library, logger: ILogger, log: Log) -> Builder:
    """Return a Builder.

    Raises:
        EngineUnavailable: TensorRT does not start: no driver, one too old, or a GPU that it does
            not know.
    """
    try:
        builder = library.module.Builder(logger)
    except (TypeError, RuntimeError) as error:
        remedy = "check with nvidia-smi that the driver works and sees a GPU that it supports"
        if log.no_driver:
            remedy = "install the NVIDIA driver, or a newer one: see nvidia-smi"
        raise EngineUnavailable(
            f"{library} does not start: {log.why() or error}; {remedy}"
        ) from error
    if not library.module.init_libnvinfer_plugins(logger, ""):
        raise EngineUnavailable(
            f"{library}: its own plugins cannot be registered: {log.why()}; install it again"
        )
    return builder


def load_plugins(library: Library, paths: Sequence[Path]) -> None:
    """Load plugin libraries into this process and register what they export.

    A library whose plugins register themselves needs no more than to be loaded, and one that this
    process has already stays as it is.

    Raises:
        EngineError: one is missing, cannot be loaded, or TensorRT cannot register its plugins.
    """
    for path in paths:
        if not path.is_file():
            raise EngineError(
                f"plugin library {path} is missing; correct 'plugins' in the config, whose paths "
                "start at the config's folder"
            )
        whole = str(path.resolve())
        known = _is_loaded(whole)
        try:
            loaded = ctypes.CDLL(whole)
        except OSError as error:
            raise EngineError(
                f"plugin library {path} cannot be loaded: {error}; "
                f"it must be built for {library} and for this machine"
            ) from error
        if known or not any(hasattr(loaded, name) for name in CREATORS):
            continue
        if library.module.get_plugin_registry().load_library(whole) is None:
            raise EngineError(
                f"plugin library {path}: {library} cannot register its plugins, and tells the "
                f"logger {NAME!r} why; it must be built for {library}"
            )


def _is_loaded(path: str) -> bool:
    try:
        ctypes.CDLL(path, mode=os.RTLD_NOLOAD)
    except OSError:
        return False
    return True


def parse(
    library: Library, builder: Builder, logger: ILogger, model: Path, *, strong: bool
) -> Parsed:
    """Read an ONNX file into a network, strongly typed or not.

    Raises:
        EngineError: the parser refuses it; the message names the node, its operation, why, and
            what to do.
    """
    flag = library.module.NetworkDefinitionCreationFlag
    flags = 0
    if strong:
        flags |= 1 << int(flag.STRONGLY_TYPED)
    if library.capabilities.explicit_batch:
        flags |= 1 << int(flag.EXPLICIT_BATCH)
    with deprecated():
        network = builder.create_network(flags)
    parser = library.module.OnnxParser(network, logger)
    if not parser.parse_from_file(str(model)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise EngineError(_refusal(library, model, errors))
    if network.num_outputs == 0:
        raise EngineError(f"{library} finds no output in {model.name}; export or copy it again")
    parsed = Parsed(network, parser)
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if tensor.is_shape_tensor:
            raise EngineError(
                f"{library}: input {tensor.name!r} of {model.name} decides the shape of other "
                "tensors, which plans of quantlab do not take as an input; make it a constant"
            )
    return parsed


def tensors(network: INetworkDefinition) -> Iterator[ITensor]:
    """Yield every tensor: the inputs, then the layers' outputs in order."""
    for index in range(network.num_inputs):
        yield network.get_input(index)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for output in range(layer.num_outputs):
            yield layer.get_output(output)


def nodes(model: Path) -> list["NodeProto"]:
    """Return an ONNX file's nodes in order; none if it cannot be read.  Weights stay on disk."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return list(onnx.load(model, load_external_data=False).graph.node)
    except (DecodeError, OSError):
        return []


def _refusal(library: Library, model: Path, errors: Sequence[ParserError]) -> str:
    """Return the message for what the parser found."""
    known = nodes(model)
    told = dict.fromkeys(_one(library, error, known) for error in errors)
    text = "; ".join(told) or "the parser does not say why; is it an ONNX model?"
    return f"{library} cannot read {model.name}: {text}"


def _one(library: Library, error: ParserError, known: Sequence["NodeProto"]) -> str:
    index = error.node()
    node = known[index] if 0 <= index < len(known) else None
    name, op = (node.name, node.op_type) if node is not None else ("", "")
    if library.capabilities.named_errors:  # right inside of subgraphs, too
        name, op = error.node_name() or name, error.node_operator() or op
    where = f"node {name or f'number {index}'!r} ({op}): " if op else ""
    why = _why(error.desc())
    if NO_PLUGIN in why:
        domain = node.domain if node is not None and node.domain else "ai.onnx"
        return (
            f"{where}it has no operator {op!r} of domain {domain!r}; if a plugin implements it, "
            "name its library in the config: 'plugins: [libfoo.so]'"
        )
    found = (remedy for pattern, remedy in REMEDIES.items() if re.search(pattern, why))
    return f"{where}{why}; {next(found, OTHERWISE)}"


def _why(description: str) -> str:
    """Return a parser's message without what is said after every error where no GPU is."""
    lines = [line for line in description.splitlines() if line.strip()]
    telling = [
        line for line in lines if not line.startswith("Invalid Node") and "cudaError" not in line
    ]
    text = "; ".join(plain(line) for line in telling or lines)
    return "it is not supported" if text in ("", "false") else text
