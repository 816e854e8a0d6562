"""Reading, checking, writing and describing ONNX files.

Everything between ``load`` and ``save`` works on onnx-ir models, whose weights stay on disk until
they are read.  A file is trusted only after its opset, its external data and every operator were
checked, and ONNX Runtime, which collects the activations, has built a session from it.

Limits: opsets MIN_OPSET to the newest that the installed onnx defines; a file holds at most 2 GB,
beyond that weights lie beside it as external data.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from quantlab.errors import ModelError
from quantlab.files import sha256, translated
from quantlab.records import ModelReport, TensorSpec

MIN_OPSET = 9
"""Oldest opset that is read; the converter of onnx is not complete for older ones."""

EXTERNAL_BYTES = 2**31 - 2**24
"""Weights beyond this go beside the file: protobuf holds 2 GiB, of which 16 MiB is for nodes."""


def load(path: Path) -> ir.Model:
    """Read and check an ONNX file.

    Raises:
        ModelError: missing, not ONNX, truncated, an opset or operator that cannot be run, or
            external data that is missing, too short or outside the file's folder.
    """
    proto = parse(path)
    version = _opset(proto, path)
    newest = onnx.defs.onnx_opset_version()
    if not MIN_OPSET <= version <= newest:
        raise ModelError(
            f"{path}: opset {version} cannot be read, {MIN_OPSET} to {newest} can; "
            "export the model again with an opset in between"
        )
    check_tensors(proto, path)
    _check_standard(path)
    validate(path)
    model = ir.from_proto(proto)
    ir.external_data.set_base_dir(model.graph, path.parent)
    return model


def reload(path: Path) -> ir.Model:
    """Read a file that ``save`` wrote and checked, without checking it again.

    Raises:
        ModelError: missing, or not ONNX.
    """
    model = ir.from_proto(parse(path))
    ir.external_data.set_base_dir(model.graph, path.parent)
    return model


def save(model: ir.Model, path: Path, *, external_bytes: int = EXTERNAL_BYTES) -> None:
    """Write a model, whole or not at all, and check what was written.

    Args:
        model: stays as it is.
        path: file to write; ``<stem>.onnx.data`` beside it takes the weights of a large model.
        external_bytes: total size of weights from which on they are stored beside the file.

    Raises:
        ModelError: the model breaks a rule of ONNX.
        OutputError: the folder is not writable or the disk is full.
    """
    size = sum(tensor.nbytes for tensor in _weights(model))
    data = f"{path.stem}.onnx.data" if size > external_bytes else None
    with (
        translated(path),
        TemporaryDirectory(prefix=f".{path.stem}.", suffix=".partial", dir=path.parent) as folder,
    ):
        temporary = Path(folder) / path.name
        if data is None:
            ir.save(ir.external_data.load_to_model(model.clone()), temporary)
        else:
            ir.save(model, temporary, external_data=data, size_threshold_bytes=1024)
        # The checker refuses outputs of unknown rank, which a tapped model may have.
        if all(value.shape is not None for value in model.graph.outputs):
            _check_standard(temporary, named=path)
        for made in sorted(Path(folder).iterdir(), reverse=True):  # the data, then what names it
            made.replace(path.parent / made.name)


def validate(path: Path) -> None:
    """Build an ONNX Runtime session of a file, the one proof that its operators can run.

    Raises:
        ModelError: ONNX Runtime refuses the file; the message names the node where it does.
    """
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    refused: tuple[type[Exception], ...] = (
        RuntimeError,
        ValueError,
        *(e for e in vars(state).values() if isinstance(e, type) and issubclass(e, Exception)),
    )
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised; anything less is not for the user
    try:
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except refused as error:
        raise ModelError(f"{path}: ONNX Runtime cannot run it: {_first_line(error)}") from error


def inputs(model: ir.Model) -> tuple[TensorSpec, ...]:
    """Return what a caller feeds: graph inputs that have no initializer."""
    return tuple(_spec(v) for v in model.graph.inputs if v.name not in model.graph.initializers)


def outputs(model: ir.Model) -> tuple[TensorSpec, ...]:
    """Return the graph's outputs."""
    return tuple(_spec(value) for value in model.graph.outputs)


def facts(model: ir.Model, path: Path) -> ModelReport:
    """Describe ``model``, which lies at ``path``: names, opset, nodes and parameters."""
    return ModelReport(
        path=str(path),
        sha256=sha256(path),
        inputs=tuple(str(spec) for spec in inputs(model)),
        outputs=tuple(str(spec) for spec in outputs(model)),
        opset=opset(model),
        nodes=sum(1 for _ in model.graph.all_nodes()),
        parameters=sum(t.size for t in _weights(model) if t.dtype.is_floating_point()),
    )


def opset(model: ir.Model) -> int:
    """Return the version of the standard operators that a model imports."""
    version = model.graph.opset_imports.get("", model.graph.opset_imports.get("ai.onnx"))
    if version is None:
        raise ModelError("the model imports no standard ONNX opset")
    return version


def parse(path: Path) -> onnx.ModelProto:
    """Return a file's content, its external data left where it is.

    Raises:
        ModelError: missing, not ONNX, or truncated.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        proto = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise ModelError(
            f"{path}: not an ONNX file, or truncated ({path.stat().st_size} bytes): "
            f"{_first_line(error)}"
        ) from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not proto.graph.node:
        raise ModelError(
            f"{path}: not an ONNX model, or truncated: {path.stat().st_size} bytes hold no node"
        )
    return proto


def _opset(proto: onnx.ModelProto, path: Path) -> int:
    versions = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions:
        raise ModelError(f"{path}: imports no standard ONNX opset, so its operators are unknown")
    return int(max(versions))


def check_tensors(proto: onnx.ModelProto, path: Path) -> None:
    """Raise ModelError if a tensor's data is missing, short, or outside the file's folder."""
    folder = path.parent.resolve()
    for tensor in tensor_protos(proto.graph):
        if tensor.data_type not in onnx.TensorProto.DataType.values():
            raise ModelError(
                f"{path}: tensor {tensor.name!r} has the unknown element type {tensor.data_type}"
            )
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _check_external(tensor, path, folder)
        elif tensor.HasField("raw_data"):
            expected = ir.TensorProtoTensor(tensor).nbytes
            if len(tensor.raw_data) != expected:
                raise ModelError(
                    f"{path}: tensor {tensor.name!r} has {len(tensor.raw_data)} bytes of data, its "
                    f"type and shape {list(tensor.dims)} need {expected}; the file is damaged"
                )


def _check_external(tensor: onnx.TensorProto, path: Path, folder: Path) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    target = (folder / location).resolve()
    if not location or not target.is_relative_to(folder):
        raise ModelError(
            f"{path}: tensor {tensor.name!r} has its data in {location!r}, which is not inside "
            f"the model's folder"
        )
    if not target.is_file():
        raise ModelError(
            f"{path}: tensor {tensor.name!r} has its data in {location!r}, which is missing; "
            "copy that file beside the model"
        )
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", 0)) or _bytes_of(tensor)
    except ValueError as error:
        raise ModelError(
            f"{path}: tensor {tensor.name!r} has an offset or length that is no number"
        ) from error
    end = offset + max(length, _bytes_of(tensor))
    if offset < 0 or length < 0 or end > target.stat().st_size:
        raise ModelError(
            f"{path}: tensor {tensor.name!r} needs bytes {offset} to {end} of {location!r}, which "
            f"has {target.stat().st_size}; the file is truncated"
        )


def _bytes_of(tensor: onnx.TensorProto) -> int:
    size = 1
    for dim in tensor.dims:
        size *= dim
    return int(-(-size * ir.DataType(tensor.data_type).bitwidth // 8))


def tensor_protos(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield every constant of a graph: initializers and attributes, subgraphs included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from tensor_protos(attribute.g)
            for inner in attribute.graphs:
                yield from tensor_protos(inner)


def _check_standard(path: Path, *, named: Path | None = None) -> None:
    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ModelError(f"{named or path}: not valid ONNX: {_first_line(error)}") from error


def _weights(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value
        for node in graph:
            if node.op_type == "Constant" and node.outputs[0].const_value is not None:
                yield node.outputs[0].const_value


def _spec(value: ir.Value) -> TensorSpec:
    if not isinstance(value.type, ir.TensorType | None):
        raise ModelError(
            f"{value.name!r} is no tensor but {value.type}; only tensors are supported"
        )
    if value.dtype is None or value.shape is None:
        raise ModelError(f"tensor {value.name!r}: its type or number of axes is not known")
    return TensorSpec(str(value.name), value.dtype.numpy().name, tuple(map(_dim, value.shape)))


def _dim(dim: int | ir.SymbolicDim) -> int | str | None:
    if isinstance(dim, ir.SymbolicDim):
        made_up = dim.value is not None and dim.value.startswith("unk__")  # by onnx's inference
        return None if made_up else dim.value
    return dim if dim >= 0 else None  # some exporters write -1 for a dynamic axis


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
