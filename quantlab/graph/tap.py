"""A model whose inner tensors are outputs, for collecting activations."""

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

import onnx_ir as ir

from quantlab.errors import ModelError
from quantlab.files import translated
from quantlab.graph.model import reload
from quantlab.graph.passes import copy


def tap(model: ir.Model, tensors: Sequence[str]) -> ir.Model:
    """Return a copy that also outputs ``tensors``, after its own outputs, in the order given.

    A graph input gets no output of its own: the caller has it already.  A tensor whose type is not
    known stays without one: ONNX Runtime knows the operators that onnx does not.

    Raises:
        ModelError: a tensor is not in the graph.
    """
    tapped = copy(model)
    graph = tapped.graph
    values = {value.name: value for node in graph for value in node.outputs}
    given = {value.name for value in graph.inputs} | {value.name for value in graph.outputs}
    _check_known(tensors, values.keys() | given)
    for name in dict.fromkeys(tensors):
        if name not in given:
            graph.outputs.append(values[name])
    return tapped


def part(
    model: ir.Model, inputs: Sequence[ir.Value | str], outputs: Sequence[ir.Value | str]
) -> ir.Model:
    """Return a copy of what computes ``outputs`` from ``inputs``, and nothing else.

    Args:
        model: stays as it is.
        inputs: tensors that are given; those that nothing reads stay inputs.
        outputs: tensors that follow from these.
    """
    found = ir.convenience.extract(model.graph, inputs, outputs)
    functions = [function.clone() for function in model.functions.values()]
    return ir.Model(found, ir_version=model.ir_version, functions=functions)


def watch(model: ir.Model, tensors: Sequence[str], op: str) -> tuple[ir.Model, dict[str, str]]:
    """Return a copy that outputs ``op`` of ``tensors`` too, and these outputs by tensor.

    With ``op`` Size, which costs nothing, the tensors stay what they are whether or not they are
    outputs themselves: ONNX Runtime fuses no operator beyond a tensor that two others read, and so
    computes the same bits in each of several passes.  The model's outputs are watched as well, and
    the nodes appended from the last tensor to the first: ONNX Runtime works its way to the last
    leaf of a graph first.  So it converts each tensor from the layout of its kernels when it has
    just been made, which takes less time and half of the memory that converting all of them at the
    end does.

    Args:
        model: stays as it is.
        tensors: that are no graph inputs.
        op: Size, or Shape, which ONNX Runtime replaces by a constant where it knows the shape.

    Raises:
        ModelError: a tensor is not in the graph.
    """
    watched = copy(model)
    graph = watched.graph
    values = {value.name: value for node in graph for value in node.outputs}
    _check_known(tensors, values)
    own = [str(v.name) for v in graph.outputs if isinstance(v.type, ir.TensorType)]
    made: dict[str, str] = {}
    for name in reversed(dict.fromkeys((*tensors, *(n for n in own if n in values)))):
        node = ir.node(op, [values[name]])
        made[name] = node.outputs[0].name = f"quantlab.{op}.{len(made)}"
        node.outputs[0].dtype = ir.DataType.INT64
        graph.append(node)
        graph.outputs.append(node.outputs[0])
    return watched, {name: made[name] for name in tensors}


@contextmanager
def beside(model: ir.Model, path: Path) -> Iterator[Path]:
    """Write ``model``, made of the file ``path``, beside it, so that external data is found there.

    The file is gone after the block.

    Raises:
        OutputError: the folder is not writable or the disk is full.
    """
    with (
        translated(path),
        NamedTemporaryFile(prefix=".tapped.", suffix=".partial.onnx", dir=path.parent) as file,
    ):
        ir.save(model, file.name)
        yield Path(file.name)


@contextmanager
def tapped(path: Path, tensors: Sequence[str], watched: Sequence[str] = ()) -> Iterator[Path]:
    """Write the model of the file ``path`` with ``tensors`` as outputs, for the block.

    Args:
        path: of the model.
        tensors: to output.
        watched: the tensors of all passes, so that each pass computes the same (see ``watch``).

    Raises:
        ModelError: as ``tap``.
        OutputError: as ``beside``.
    """
    model = tap(reload(path), tensors)
    inputs = {value.name for value in model.graph.inputs}
    model, _ = watch(model, [name for name in watched if name not in inputs], "Size")
    with beside(model, path) as file:
        yield file


def _check_known(tensors: Sequence[str], known: Container[str | None]) -> None:
    missing = [name for name in tensors if name not in known]
    if missing:
        raise ModelError(
            f"{len(missing)} tensors are not in the graph, the first is {missing[0]!r}; "
            "calibrate the prepared model, not the original"
        )
