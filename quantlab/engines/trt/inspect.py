"""What a plan's layers are, from the text of TensorRT's engine inspector.

``EngineInspector.get_engine_information(JSON)`` gives ``{"Layers": [...], ...}``.  A layer is an
object where the plan was built with detailed profiling verbosity, else its name alone.  The forms:

- The element type of an input is in ``Format/Datatype`` up to TensorRT 10 ("Row major Int8 format",
  "Row major linear FP32", "Half"), in ``Datatype`` and ``Format`` from 11 on; the engine's own
  inputs and outputs, ``Bindings`` or ``I/O Tensors``, are not read here.
- The ONNX nodes that a layer does are in ``Metadata``, ``[ONNX Layer: a]`` for each.  Where it is
  missing, the layer's name tells: "a + b" is a vertical fusion, "a || b" a horizontal one,
  "PWN(a, b)" a point-wise node, "{ForeignNode[a...b]}" a subgraph of which both ends are named.
  Names of generated kernels ("__myl_CorrMulAddRelu_myl0_1", "pool0_U3_myl0_2") tell less.
- "Reformatting CopyNode for ..." and "x copy" are of type Reformat: they change a tensor's layout
  or type.  A QuantizeLinear that stands alone is a Reformat too, of origin QDQ.

The type that a kernel computes in is in its tactic's name (two operand types, then what they are
multiplied and added in: "i8i8_i8i32", "f32f32_tf32f32"); else it is the type of the weights, or of
the first input.  So TF32 shows where a tactic tells it, and else reads f32.

Sources: NVIDIA, TensorRT, "Engine Inspector" and "Migrating IEngineInspector Usage from TensorRT
10.x to 11.x"; plans that NVIDIA's engine explorer ships with its examples (NVIDIA/TensorRT,
tools/experimental/trt-engine-explorer); NVIDIA's answer in NVIDIA/TensorRT issue 2525 for "+", "||"
and PWN.
Limits: this text is no contract of TensorRT's, so every field may be missing.  What is not told is
not guessed: a layer without types has the precision "unknown", and nodes are called removed only
where every layer names its nodes.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from quantlab.engines.layers import FLOAT_PRODUCTS, shortfall
from quantlab.errors import EngineError
from quantlab.records import Fusion, Layer, Precision

UNKNOWN = "unknown"
REFORMAT = "Reformat"

TYPES = {
    **{"float": "f32", "fp32": "f32", "tf32": "tf32", "half": "f16", "fp16": "f16"},
    **{"bfloat16": "bf16", "bf16": "bf16", "int8": "i8", "uint8": "u8", "fp8": "f8"},
    **{"int4": "i4", "fp4": "f4", "int32": "i32", "int64": "i64", "bool": "bool"},
}
"""Element types in the inspector's words, in lower case."""

_TYPE_WORD = re.compile(rf"\b({'|'.join(TYPES)})\b", re.IGNORECASE)
_TYPE_KEYS = ("Format/Datatype", "Format/DataType", "Datatype", "DataType", "Format")

_KERNEL = r"(?:tf32|bf16|f16|f32|f64|i8|u8|i32|e4m3|e5m2)"
_TACTIC = re.compile(rf"_{_KERNEL}{_KERNEL}_({_KERNEL}){_KERNEL}_")
_EIGHT_BIT_FLOATS = {"e4m3": "f8", "e5m2": "f8"}

_WEIGHTED_TYPE = re.compile(
    "conv|gemm|matrixmultiply|matmul|fullyconnected|rnn|attention|mha", re.IGNORECASE
)
_WEIGHTED_TACTIC = re.compile("xmma_(?:fprop|dgrad|gemm)|implicit_gemm|cutlass.*gemm|_gemm_|_mha_")
_GENERATED = re.compile(r"__myl_(\w+?)_myl\d")
_SUFFIX = re.compile(r"(_U\d+)?_myl\d+(_\d+)*$")
_WEIGHTED_WORDS = frozenset({"Fc", "Corr", "Conv", "Gemm", "Matmul"})
"""Operations in the names of generated kernels, e.g. __myl_CorrMulAddRelu_myl0_1, that multiply."""

_ONNX = "[ONNX Layer: "
_SEPARATORS = "\x1e\x1f \t\n"
_COPY = re.compile(r"Reformatting CopyNode for |.* copy$", re.DOTALL)
_FOREIGN = re.compile(r"\{ForeignNode\[(.*)\]\}", re.DOTALL)
_UNNAMED = re.compile(r"\(Unnamed Layer\* \d+\)|^ONNXTRT_|\[(Constant|Shuffle)\]$")

_NO_WORK = frozenset({"QuantizeLinear", "DequantizeLinear", "Cast", "Constant", "Identity"})
"""Operations of a model that are none of a fusion's work."""

_IDLE_TYPES = ("Constant", "NoOp")
"""Types of layers that do no node's work."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the ONNX model: its operation and its first input."""

    op: str
    source: str


@dataclass(frozen=True, slots=True)
class Inspected:
    """A plan's layers in order, what they join, and what a reader must know."""

    layers: tuple[Layer, ...]
    fusions: tuple[Fusion, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Told:
    """A layer as the inspector tells it.

    Attributes:
        name: TensorRT's.
        nodes: ONNX nodes that it does, as far as told; Q/DQ and constants left out.
        whole: whether these are all.
    """

    name: str
    kind: str
    raw: Mapping[str, Any] = field(default_factory=dict)
    nodes: tuple[str, ...] = ()
    whole: bool = True

    @property
    def reformat(self) -> bool:
        return self.kind.startswith(REFORMAT) or _COPY.match(self.name) is not None


def inspect(text: str, precision: Precision, nodes: Mapping[str, Node]) -> Inspected:
    """Return the layers of a plan.

    Args:
        text: the engine inspector's JSON.
        precision: what was asked for.
        nodes: of the ONNX model that the plan was built from, by name; empty if not at hand.

    Raises:
        EngineError: the text is no JSON object with a list of layers.
    """
    told = [_told(item, nodes) for item in _layers(text)]
    taken: set[str] = set()
    layers = []
    fusions = []
    for layer in told:
        name = _name(layer, nodes, taken)
        taken.add(name)
        layers.append(_layer(layer, name))
        if not layer.reformat and len(layer.nodes) > 1:
            fusions.append(Fusion(name, _kind(layer, nodes), layer.nodes))
    detailed = all(layer.raw for layer in told)
    if detailed:
        fusions += _removed(told, nodes)
    notes = shortfall(precision, layers) if detailed and layers else [_UNTOLD]
    return Inspected(tuple(layers), tuple(fusions), tuple(notes))


_UNTOLD = (
    "the plan names its layers only, so what they computed in is not known: it was built without "
    "detailed profiling verbosity"
)


def nodes_of(model: Path) -> dict[str, Node]:
    """Return the nodes of an ONNX file; none if it is not there, as where a plan came alone.

    Raises:
        EngineError: it is there and is no ONNX file.
    """
    import onnx
    from google.protobuf.message import DecodeError

    if not model.is_file():
        return {}
    try:
        graph = onnx.load(model, load_external_data=False).graph
    except (DecodeError, ValueError, OSError) as error:
        raise EngineError(f"cannot read {model}: {error}; build the engine again") from error
    return {
        node.name: Node(node.op_type, node.input[0] if node.input else "") for node in graph.node
    }


def _layers(text: str) -> Sequence[Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise EngineError(
            f"TensorRT's engine inspector gave no JSON ({error}): {text[:80]!r}"
        ) from error
    layers = found.get("Layers") if isinstance(found, dict) else None
    if not isinstance(layers, list):
        raise EngineError(f"TensorRT's engine inspector listed no layers: {text[:80]!r}")
    return layers


def _told(item: object, nodes: Mapping[str, Node]) -> _Told:
    raw = item if isinstance(item, dict) else {}
    name = str(raw.get("Name", "")) if raw else str(item)
    kind = str(raw.get("LayerType", UNKNOWN))
    if not raw and _COPY.match(name):
        kind = REFORMAT
    if kind == REFORMAT and raw.get("Origin") == "QDQ":
        kind = f"{REFORMAT}, Q/DQ"
    metadata = str(raw.get("Metadata", ""))
    if _ONNX in metadata:
        parts = (part.strip(_SEPARATORS) for part in metadata.split(_ONNX)[1:])
        found = [part.removesuffix("]") for part in parts]
    else:
        found = list(_parts(name))
    kept = tuple(dict.fromkeys(part for part in found if _works(part, nodes)))
    idle = kind.startswith(REFORMAT) or kind in _IDLE_TYPES
    whole = _ONNX in metadata or (not _opaque(name) and (idle or bool(kept)))
    return _Told(name, kind, raw, kept, whole)


def _parts(name: str) -> Iterator[str]:
    """Yield the layers that a joined name consists of."""
    foreign = _FOREIGN.search(name)
    if foreign:
        yield from foreign[1].split("...")
        return
    if _COPY.match(name) or name.startswith("__myl_"):
        return
    for part in re.split(r" \+ | \|\| |, ", name):
        plain = part.replace("PWN(", "").strip("() ") if "PWN(" in name else part
        yield _SUFFIX.sub("", plain)


def _opaque(name: str) -> bool:
    """Whether a layer's name leaves out nodes that it does."""
    return "ForeignNode" in name or _SUFFIX.search(name) is not None


def _works(part: str, nodes: Mapping[str, Node]) -> bool:
    if nodes:
        return part in nodes and nodes[part].op not in _NO_WORK
    return bool(part) and not _UNNAMED.search(part)


def _name(layer: _Told, nodes: Mapping[str, Node], taken: set[str]) -> str:
    """Return the ONNX node's name, of a fusion its product's; TensorRT's own if that is taken."""
    if layer.reformat or not layer.nodes:
        return layer.name
    products = [name for name in layer.nodes if name in nodes and nodes[name].op in FLOAT_PRODUCTS]
    name = (*products, *layer.nodes)[0]
    return layer.name if name in taken else name


def _kind(layer: _Told, nodes: Mapping[str, Node]) -> Literal["vertical", "horizontal"]:
    """Return "horizontal" if the name says so, or if two products read the same tensor."""
    found = [nodes[name] for name in layer.nodes if name in nodes]
    products = [(node.op, node.source) for node in found if node.op in FLOAT_PRODUCTS]
    if " || " in layer.name or len(products) > len(set(products)):
        return "horizontal"
    return "vertical"


def _removed(told: Sequence[_Told], nodes: Mapping[str, Node]) -> Iterator[Fusion]:
    """Yield the Concat nodes that no layer does, where every layer says what it does."""
    if not all(layer.whole for layer in told):
        return
    done = {name for layer in told for name in layer.nodes}
    for name, node in nodes.items():
        if node.op == "Concat" and name not in done:
            yield Fusion("", "removed", (name,))


def _layer(layer: _Told, name: str) -> Layer:
    tactic = str(layer.raw.get("TacticName", ""))
    weighted = not layer.reformat and _weighted(layer, tactic)
    return Layer(
        name=name,
        type=layer.kind,
        precision=_precision(layer, tactic, weighted=weighted),
        weighted=weighted,
        kernel=tactic,
    )


def _weighted(layer: _Told, tactic: str) -> bool:
    if _WEIGHTED_TYPE.search(layer.kind) or _WEIGHTED_TACTIC.search(tactic):
        return True
    generated = _GENERATED.match(layer.name)
    words = re.findall("[A-Z][a-z0-9]*", generated[1]) if generated else []
    return not _WEIGHTED_WORDS.isdisjoint(words)


def _precision(layer: _Told, tactic: str, *, weighted: bool) -> str:
    computed = _TACTIC.search(tactic)
    if weighted and computed:
        return _EIGHT_BIT_FLOATS.get(computed[1], computed[1])
    weights = layer.raw.get("Weights", layer.raw.get("ConvWeights"))
    if weighted and isinstance(weights, dict):
        found = _type_in(str(weights.get("Type", "")))
        if found != UNKNOWN:
            return found
    inputs = [_tensor_type(tensor) for tensor in _list(layer.raw.get("Inputs"))]
    outputs = [_tensor_type(tensor) for tensor in _list(layer.raw.get("Outputs"))]
    return next((found for found in (*inputs, *outputs) if found != UNKNOWN), UNKNOWN)


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _tensor_type(tensor: object) -> str:
    if not isinstance(tensor, dict):
        return UNKNOWN
    told = (_type_in(str(tensor[key])) for key in _TYPE_KEYS if key in tensor)
    return next((found for found in told if found != UNKNOWN), UNKNOWN)


def _type_in(text: str) -> str:
    found = _TYPE_WORD.search(text)
    return TYPES[found[1].lower()] if found else UNKNOWN
