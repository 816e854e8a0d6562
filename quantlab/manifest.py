"""The manifest beside a calibration cache: what the cache was made from, so that staleness shows.

``calibration.json`` lies beside ``calibration.cache`` and records hashes of the model's graph and
weights, of the calibration samples, their preprocessing, the method with its knobs, the versions
of the libraries, and the SHA-256 of the cache itself.  ``check`` compares all that with what the
run at hand would calibrate from, and says what changed.

What makes a cache stale is in ``changes``.  A library's new version does not, because the
histograms are exact and the activations of one model on the same samples agree; it is in
``notes``, to be shown.  Left out on purpose: the batch size and the number of workers, which do
not change the histograms (the one method that depends on the batch size has it among its knobs),
and where files lie, since moving them changes nothing.

Two saves of one model have equal digests: they ignore doc strings, metadata, producer, names of
nodes and of the graph, recorded shapes of inner tensors, the order of nodes, attributes and
initializers, and whether a tensor is stored raw, typed or in an external file.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue, TypeAdapter, ValidationError, with_config

from quantlab import cache, files
from quantlab.errors import CacheError, ModelError

if TYPE_CHECKING:
    import onnx

FORMAT = 1
"""Raised when the meaning of a field changes."""

MAX_BYTES = 1 << 26
"""Largest manifest that is read."""


@with_config(extra="forbid")
@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a calibration cache was made from.

    Attributes:
        quantlab: version that made it.
        created: time of calibration, ISO 8601 with offset.
        versions: of the libraries that had a part in it, by name.
        graph_hash, weights_hash: ``model_digests`` of the prepared model.
        data_hash: hash over the calibration samples, whatever their order.
        samples: how many.
        preprocessing: the dataset's kind and parameters, without the paths of its files.
        method: calibrator's name.
        knobs: everything else that moves a threshold: the calibrator's parameters, the policy for
            NaN and infinities ...
        tensors: the calibrated tensors, in the cache's order.
        tied: tensor to the tensor whose scale it follows.
        collected: the tensors that were looked at, which are the least that ``tensors`` need: the
            others are in ``tied``.
        cache_sha256: of the cache file; "" until it is written.
        format: FORMAT of the program that wrote it.
    """

    quantlab: str
    created: str
    versions: Mapping[str, str]
    graph_hash: str
    weights_hash: str
    data_hash: str
    samples: int
    preprocessing: Mapping[str, JsonValue]
    method: str
    knobs: Mapping[str, JsonValue]
    tensors: tuple[str, ...] = ()
    tied: Mapping[str, str] = field(default_factory=dict)
    collected: tuple[str, ...] = ()
    cache_sha256: str = ""
    format: int = FORMAT

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all.

        Raises:
            OutputError: the folder is not writable or the disk is full.
        """
        files.write(path, json.dumps(asdict(self), indent=2, allow_nan=False) + "\n")


_ADAPTER = TypeAdapter(Manifest)


def beside(cache_path: Path) -> Path:
    """Return where the manifest of a cache lies: the same name with ``.json``."""
    return cache_path.with_suffix(".json")


def load(path: Path) -> Manifest:
    """Return the manifest in a file.

    Raises:
        CacheError: unreadable, not a manifest, or of another format.
    """
    data = files.read(path, limit=MAX_BYTES, error=CacheError)
    try:
        manifest = _ADAPTER.validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CacheError(
            f"{path}: not a calibration manifest: {where and repr(where) + ': '}{first['msg']}; "
            "recalibrate to write cache and manifest anew, or move another program's file away"
        ) from error
    if manifest.format != FORMAT:
        raise CacheError(
            f"{path}: expected manifest format {FORMAT}, got {manifest.format}; "
            "recalibrate, or use the quantlab that wrote it"
        )
    return manifest


def changes(old: Manifest, new: Manifest) -> tuple[str, ...]:
    """Return a sentence for each difference that makes ``old``'s cache stale under ``new``."""
    found = [
        *_changed("model graph", old.graph_hash, new.graph_hash, "nodes, constants or shapes"),
        *_changed("model weights", old.weights_hash, new.weights_hash, "initializers"),
    ]
    if (old.data_hash, old.samples) != (new.data_hash, new.samples):
        found.append(
            f"calibration data: {old.samples} samples, hash {old.data_hash[:12]} -> "
            f"{new.samples} samples, hash {new.data_hash[:12]}"
        )
    found += _differences("preprocessing", old.preprocessing, new.preprocessing)
    if old.method != new.method:
        found.append(f"method: {old.method} -> {new.method}")
    found += _differences("knob", old.knobs, new.knobs)
    found += _differences("tied tensor", old.tied, new.tied)
    return tuple(found)


def notes(old: Manifest, new: Manifest) -> tuple[str, ...]:
    """Return a sentence for each library whose version changed."""
    versions = ({**m.versions, "quantlab": m.quantlab} for m in (old, new))
    return tuple(_differences("version", *versions))


def check(
    cache_path: Path, manifest_path: Path, expected: Manifest, needed: Collection[str]
) -> tuple[str, ...]:
    """Check that a cache is whole, was made from ``expected`` and has every tensor.

    Args:
        cache_path: the cache.
        manifest_path: its manifest, usually ``beside(cache_path)``.
        expected: what a calibration now would record; ``created``, ``tensors`` and
            ``cache_sha256`` are not compared.
        needed: tensors that must have a scale.

    Returns:
        ``notes``, to be shown.

    Raises:
        CacheError: unreadable, edited since, stale or incomplete; says all that changed.
    """
    recorded = load(manifest_path)
    unchanged(cache_path, recorded)
    found = changes(recorded, expected)
    if found:
        listed = "".join(f"\n  {sentence}" for sentence in found)
        raise CacheError(
            f"{cache_path} is stale; since it was made, this changed:{listed}\n"
            "recalibrate, or undo the change"
        )
    cache.require(cache.read(cache_path), needed, str(cache_path))
    return notes(recorded, expected)


def unchanged(cache_path: Path, recorded: Manifest) -> None:
    """Raise CacheError if a cache's bytes are not those that its manifest records."""
    data = files.read(cache_path, limit=cache.MAX_BYTES, error=CacheError)
    digest = hashlib.sha256(data).hexdigest()
    if digest != recorded.cache_sha256:
        raise CacheError(
            f"{cache_path}: expected SHA-256 {recorded.cache_sha256[:12]} as its manifest "
            f"records, got {digest[:12]}: it was truncated, edited or replaced; recalibrate"
        )


def model_digests(path: Path) -> tuple[str, str]:
    """Return SHA-256 of a model's graph and of its weights.

    The graph is: operator sets, inputs and outputs with their types, and every node's operator,
    inputs, outputs and attributes, constants and functions among them.  The weights are the
    initializers' names, types, dims and bytes, read one at a time.

    Raises:
        ModelError: not an ONNX file, or external data that is missing, short or outside its folder.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except (OSError, DecodeError) as error:
        raise ModelError(f"cannot read {path} as an ONNX model: {error}; check the file") from error
    if not model.HasField("graph"):
        raise ModelError(f"{path}: expected an ONNX model, the file has no graph; check the file")
    base = path.absolute().parent
    graph = [
        sorted([_domain(opset.domain), opset.version] for opset in model.opset_import),
        sorted(_digest(_function(function, base)) for function in model.functions),
        _structure(model.graph, base),
    ]
    return _digest(graph), _digest(sorted(_weights(model.graph, base)))


def _structure(graph: "onnx.GraphProto", base: Path) -> list[object]:
    """Return everything of a graph but the initializers, which may also stand among the inputs."""
    constant = {tensor.name for tensor in graph.initializer}
    constant |= {sparse.values.name for sparse in graph.sparse_initializer}
    return [
        [_value(value) for value in graph.input if value.name not in constant],
        [_value(value) for value in graph.output],
        sorted(_digest(_node(node, base)) for node in graph.node),
    ]


def _weights(graph: "onnx.GraphProto", base: Path, scope: str = "") -> Iterator[list[object]]:
    """Yield name, type, dims and bytes of each initializer, those of inner graphs included."""
    for tensor in graph.initializer:
        yield [scope + tensor.name, *_tensor(tensor, base)]
    for sparse in graph.sparse_initializer:
        yield [scope + sparse.values.name, *_sparse(sparse, base)]
    for node in graph.node:
        for attribute in node.attribute:
            graphs = [attribute.g] if attribute.HasField("g") else attribute.graphs
            for index, inner in enumerate(graphs):
                name = f"{scope}{','.join(node.output)}.{attribute.name}.{index}/"
                yield from _weights(inner, base, name)


def _node(node: "onnx.NodeProto", base: Path) -> list[object]:
    attributes = sorted(_digest(_attribute(attribute, base)) for attribute in node.attribute)
    operator = [_domain(node.domain), node.op_type, node.overload]
    return [operator, _trimmed(node.input), _trimmed(node.output), attributes]


def _attribute(attribute: "onnx.AttributeProto", base: Path) -> list[object]:
    plain = type(attribute)()
    plain.CopyFrom(attribute)
    for nested in ("t", "g", "sparse_tensor", "tensors", "graphs", "sparse_tensors", "doc_string"):
        plain.ClearField(nested)
    tensors = [attribute.t] if attribute.HasField("t") else attribute.tensors
    graphs = [attribute.g] if attribute.HasField("g") else attribute.graphs
    sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
    return [
        plain.SerializeToString(deterministic=True).hex(),
        [_tensor(tensor, base) for tensor in tensors],
        [_structure(graph, base) for graph in graphs],
        [_sparse(tensor, base) for tensor in (*sparse, *attribute.sparse_tensors)],
    ]


def _function(function: "onnx.FunctionProto", base: Path) -> list[object]:
    return [
        [_domain(function.domain), function.name, function.overload],
        [list(function.input), list(function.output), sorted(function.attribute)],
        sorted(_digest(_attribute(attribute, base)) for attribute in function.attribute_proto),
        sorted([_domain(opset.domain), opset.version] for opset in function.opset_import),
        sorted(_digest(_node(node, base)) for node in function.node),
    ]


def _sparse(sparse: "onnx.SparseTensorProto", base: Path) -> list[object]:
    return [list(sparse.dims), _tensor(sparse.values, base), _tensor(sparse.indices, base)]


def _tensor(tensor: "onnx.TensorProto", base: Path) -> list[object]:
    """Return element type, dims and a hash of the elements' bytes, however they are stored."""
    import onnx
    from onnx_ir.serde import SerdeError, deserialize_tensor

    if tensor.data_type == onnx.TensorProto.STRING:
        content = _digest([element.hex() for element in tensor.string_data])
        return [tensor.data_type, list(tensor.dims), content]
    try:
        stored = deserialize_tensor(tensor, base)
        data = stored.tobytes()
    except (OSError, ValueError, TypeError, SerdeError) as error:
        raise ModelError(
            f"cannot read the elements of tensor {tensor.name!r}: {error.__cause__ or error}; "
            f"check the model file and its external data in {base}"
        ) from error
    if len(data) != stored.nbytes:
        raise ModelError(
            f"tensor {tensor.name!r}: expected {stored.nbytes} bytes of elements, got {len(data)}; "
            f"check the model file and its external data in {base}"
        )
    return [tensor.data_type, list(tensor.dims), hashlib.sha256(data).hexdigest()]


def _value(value: "onnx.ValueInfoProto") -> list[str]:
    return [value.name, value.type.SerializeToString(deterministic=True).hex()]


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _trimmed(names: Sequence[str]) -> list[str]:
    """Return names without the empty ones at the end, which mean the same as none."""
    kept = list(names)
    while kept and not kept[-1]:
        kept.pop()
    return kept


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _changed(what: str, old: str, new: str, parts: str) -> list[str]:
    return [f"{what}: {parts} differ, hash {old[:12]} -> {new[:12]}"] if old != new else []


def _differences(what: str, old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """Return a sentence a key; values are compared as JSON, where a tuple equals a list."""
    found = []
    for key in sorted({*old, *new}):
        before, after = (json.dumps(m[key]) if key in m else "not set" for m in (old, new))
        if before != after:
            found.append(f"{what} {key!r}: {before} -> {after}")
    return found
