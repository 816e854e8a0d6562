"""Means of channels, made inside the model so that only small arrays leave a run.

A mean is over all axes but that of the channels, samples included.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from quantlab.graph.editor import Editor
from quantlab.graph.passes import copy
from quantlab.graph.reduce import reduce
from quantlab.graph.view import CLAMPS, CONVOLUTIONS, only_reader, rank


@dataclass(frozen=True, slots=True)
class Point:
    """Where a layer's channels are looked at.

    Attributes:
        tensor: its name, of a known rank.
        axis: of the channels, -1 for the last.
    """

    tensor: str
    axis: int


def point(layer: ir.Node) -> Point:
    """Return where a layer's result is whole: behind its Relu or Clip, and an Add before that.

    Where no Relu or Clip follows, it is the layer's own output.
    """
    made = layer.outputs[0]
    axis = 1 if layer.op_type in CONVOLUTIONS else -1
    reader = only_reader(made)
    added = reader.outputs[0] if reader is not None and reader.op_type == "Add" else made
    behind = only_reader(added)
    clamped = behind is not None and behind.op_type in CLAMPS and behind.inputs[0] is added
    found = behind.outputs[0] if clamped and behind is not None else made
    return Point(str(found.name), axis)


def with_means(model: ir.Model, points: Mapping[str, Point]) -> tuple[ir.Model, dict[str, str]]:
    """Return a copy that also outputs the channel means of points, and these outputs by key.

    Args:
        model: stays as it is.
        points: by any key.
    """
    editor = Editor(copy(model))
    found = {}
    for key, where in points.items():
        mean = _mean(editor, where)
        editor.model.graph.outputs.append(mean)
        found[key] = str(mean.name)
    editor.model.graph.sort()
    return editor.model, found


def with_given_means(
    model: ir.Model, points: Mapping[str, Point]
) -> tuple[ir.Model, dict[str, str], dict[str, str]]:
    """Return a copy whose points have the channel means that they are given at run time.

    So every layer is shown what it reads when those before it are right in the mean.

    Args:
        model: stays as it is.
        points: by any key.

    Returns:
        The copy; by key, the input that takes what ``with_means`` gives; by key, the output that
        tells what was added to each channel.
    """
    editor = Editor(copy(model))
    given, added = {}, {}
    for key, where in points.items():
        value = editor.tensor(where.tensor)
        uses = list(value.uses())
        mean = _mean(editor, where)
        wanted = editor.input(f"{where.tensor}_mean_given", ir.DataType.FLOAT)
        wanted.shape = ir.Shape([None] * (rank(value) or 0))
        shift = editor.insert("Sub", (wanted, mean), f"{where.tensor}_shift")
        moved = editor.insert("Add", (value, shift), f"{where.tensor}_moved")
        shift.dtype = moved.dtype = ir.DataType.FLOAT
        moved.shape = value.shape
        for reader, index in uses:
            reader.replace_input_with(index, moved)
        editor.model.graph.outputs.append(shift)
        given[key], added[key] = str(wanted.name), str(shift.name)
    editor.model.graph.sort()
    return editor.model, given, added


def _mean(editor: Editor, where: Point) -> ir.Value:
    """Add the mean of each channel, with 1 on the other axes."""
    value = editor.tensor(where.tensor)
    count = rank(value) or 0
    others = [axis for axis in range(count) if axis != where.axis % count]
    return reduce(editor, "ReduceMean", value, others, keepdims=True)
