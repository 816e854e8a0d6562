"""What TensorRT-RTX's parser and builder accept of what quantlab emits, operator by operator.

``python -m benchmarks.rtx_operators`` prints the table; with ``--write`` it also writes it into
docs/tensorrt-operators.md.  No GPU is needed.

Each operator stands in a small model between two layers that placement quantizes, so that in the
INT8 graphs there is Q/DQ before and behind it.  Four graphs are built of each: the prepared FP32
graph, the FP16 graph, and the Q/DQ graph in FP32 and in FP16.  "accepted" means that the builder
made a plan; otherwise the cell has its own words.  Whether the plan runs, and in which precision,
only a GPU tells.
"""

import argparse
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnx_ir as ir

from quantlab.engines.base import NOTHING
from quantlab.engines.trt import builder, library, network
from quantlab.engines.trt.options import Order, Settings
from quantlab.errors import EngineError
from quantlab.graph import model as graph
from quantlab.graph.insert_qdq import insert_qdq
from quantlab.graph.placement import Placement, place
from quantlab.graph.prepare import prepare
from quantlab.graph.to_fp16 import to_fp16
from quantlab.records import Precision, TensorThreshold
from tests.models import Net, write

PAGE = Path(__file__).parents[1] / "docs" / "tensorrt-operators.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
ACCEPTED = "accepted"
NODE = "op"
"""Name of the node that a case is about."""

Part = Callable[[Net, str], str]
Targets = tuple[str, ...]

LATER: Targets = ("sm86", "sm89", "sm120")
TURING: Targets = ("sm75",)

ON_TURING = frozenset({"Conv 3x3", "Conv depthwise", "ConvTranspose", "Gemm", "MatMul"})
"""Operators that are also built for TURING, which has fewer kernels."""


Results = tuple[str, str, str, str]
"""Of the FP32, the FP16, and the Q/DQ graph in FP32 and FP16: ACCEPTED, or the builder's words."""


@dataclass(frozen=True, slots=True)
class Row:
    """An operator: what placement does with it, and what came of its graphs by targets."""

    operator: str
    placement: str
    results: Mapping[Targets, Results]


def op(name: str, **attributes: object) -> Part:
    """Return a part that is one operator of one input."""
    return lambda net, x: net.add(name, [x], name=NODE, attributes=dict(attributes))


def with_constant(name: str, shape: tuple[int, ...] = (1,)) -> Part:
    """Return a part that is one operator of the input and a constant."""
    return lambda net, x: net.add(name, [x, net.random("constant", shape)], name=NODE)


def with_integers(name: str, *values: int, **attributes: object) -> Part:
    """Return a part that is one operator of the input and integers."""

    def made(net: Net, x: str) -> str:
        given = net.weight("integers", np.array(values, np.int64))
        return net.add(name, [x, given], name=NODE, attributes=dict(attributes))

    return made


def of_two(name: str) -> Part:
    """Return a part that is one operator of the input and a second branch."""
    return lambda net, x: net.add(name, [x, net.add("Sigmoid", [x])], name=NODE)


def recurrent(name: str, gates: int) -> Part:
    """Return a part that is a recurrent layer over (steps, samples, 32)."""

    def made(net: Net, x: str) -> str:
        w = net.random("w", (1, gates * 32, 32), fan=32)
        r = net.random("r", (1, gates * 32, 32), fan=32)
        y = net.add(name, [x, w, r], name=NODE, attributes={"hidden_size": 32})
        return net.add("Squeeze", [y, net.weight("squeezed", np.array([1], np.int64))])

    return made


def layer_norm(net: Net, x: str) -> str:
    """Add LayerNormalization over the last axis."""
    scale = net.weight("scale", np.ones(32, np.float32))
    return net.add("LayerNormalization", [x, scale, net.random("shift", (32,))], name=NODE)


def instance_norm(net: Net, x: str) -> str:
    """Add InstanceNormalization of 16 channels."""
    scale = net.weight("scale", np.ones(16, np.float32))
    return net.add("InstanceNormalization", [x, scale, net.random("shift", (16,))], name=NODE)


def residual(net: Net, x: str) -> str:
    """Add an Add of two convolutions' output and their input."""
    inner = net.conv(net.relu(net.conv(x, (16, 16))), (16, 16))
    return net.add("Add", [inner, x], name=NODE)


def concat(net: Net, x: str) -> str:
    """Add a Concat, and a convolution back to 16 channels."""
    both = net.add("Concat", [x, net.relu(x)], name=NODE, attributes={"axis": 1})
    return net.conv(both, (32, 16), kernel=1)


def split(net: Net, x: str) -> str:
    """Add a Split whose halves change places."""
    net.add("Split", [x], name=NODE, attributes={"axis": 1}, outputs=2)
    return net.add("Concat", [f"{NODE}_out1", f"{NODE}_out"], attributes={"axis": 1})


def attention(net: Net, x: str) -> str:
    """Add two products of activations."""
    turned = net.add("Transpose", [x], attributes={"perm": [0, 2, 1]})
    return net.add("MatMul", [net.add("MatMul", [x, turned], name=NODE), x])


def left_product(net: Net, x: str) -> str:
    """Add a product whose left factor is constant."""
    turn = {"perm": [0, 2, 1]}
    y = net.add("Transpose", [x], attributes=turn)
    y = net.add("MatMul", [net.random("left", (32, 32), fan=32), y], name=NODE)
    return net.add("Transpose", [y], attributes=turn)


def computed_weights(net: Net, x: str) -> str:
    """Add a convolution whose weights are computed."""
    kernel = net.add("Neg", [net.input("kernel", (16, 16, 1, 1))])
    return net.add("Conv", [x, kernel], name=NODE)


def resize(net: Net, x: str) -> str:
    """Add an image of twice the size."""
    scales = net.weight("scales", np.array([1, 1, 2, 2], np.float32))
    return net.add("Resize", [x, "", scales], name=NODE, attributes={"mode": "nearest"})


def linear_resize(net: Net, x: str) -> str:
    """Add an interpolated image of twice the size."""
    scales = net.weight("scales", np.array([1, 1, 2, 2], np.float32))
    return net.add("Resize", [x, "", scales], name=NODE, attributes={"mode": "linear"})


def gate(net: Net, x: str) -> str:
    """Add a squeeze-and-excitation gate."""
    y = net.conv(net.add("GlobalAveragePool", [x]), (16, 16), kernel=1)
    return net.add("Mul", [x, net.add("Sigmoid", [y])], name=NODE)


def space_to_depth(net: Net, x: str) -> str:
    """Add SpaceToDepth, and a convolution back to 16 channels."""
    y = net.add("SpaceToDepth", [x], name=NODE, attributes={"blocksize": 2})
    return net.conv(y, (64, 16), kernel=1)


def clip(net: Net, x: str) -> str:
    """Add a Clip to 0 to 6."""
    low, high = (net.weight(n, np.array(v, np.float32)) for n, v in (("low", 0), ("high", 6)))
    return net.add("Clip", [x, low, high], name=NODE)


SLICE = (("from", 0), ("to", 2), ("axis", 0))
POOL = {"kernel_shape": [2, 2], "strides": [2, 2]}

IMAGE: dict[str, Part] = {
    "Conv 3x3": lambda net, x: net.conv(x, (16, 16), name=NODE),
    "Conv 3x3 with bias": lambda net, x: net.conv(x, (16, 16), bias=True, name=NODE),
    "Conv 1x1": lambda net, x: net.conv(x, (16, 16), kernel=1, name=NODE),
    "Conv depthwise": lambda net, x: net.conv(x, (16, 16), groups=16, name=NODE),
    "Conv in 4 groups": lambda net, x: net.conv(x, (16, 16), groups=4, name=NODE),
    "Conv of 4 channels": lambda net, x: net.conv(
        net.conv(net.conv(x, (16, 4), kernel=1), (4, 4), name=NODE), (4, 16), kernel=1
    ),
    "Conv with computed weights": computed_weights,
    "ConvTranspose": lambda net, x: net.conv_transpose(x, (16, 16), name=NODE),
    "ConvTranspose in 2 groups": lambda net, x: net.conv_transpose(
        x, (16, 16), groups=2, name=NODE
    ),
    "Add, residual": residual,
    "Add of a constant": with_constant("Add"),
    "Add of two branches": of_two("Add"),
    "Sub": of_two("Sub"),
    "Mul": of_two("Mul"),
    "Div": of_two("Div"),
    "Mul by a constant": with_constant("Mul", (1, 16, 1, 1)),
    "Concat": concat,
    "Split": split,
    "MaxPool": op("MaxPool", **POOL),
    "AveragePool": op("AveragePool", **POOL),
    "GlobalAveragePool": op("GlobalAveragePool"),
    "ReduceMean over pixels": op("ReduceMean", axes=[2, 3], keepdims=1),
    "Relu": op("Relu"),
    "Clip": clip,
    "LeakyRelu": op("LeakyRelu"),
    "PRelu": with_constant("PRelu", (16, 1, 1)),
    "Elu": op("Elu"),
    "Sigmoid": op("Sigmoid"),
    "HardSigmoid": op("HardSigmoid"),
    "HardSwish": op("HardSwish"),
    "Tanh": op("Tanh"),
    "Softplus": op("Softplus"),
    "Identity": op("Identity"),
    "Neg": op("Neg"),
    "Abs": op("Abs"),
    "Erf": op("Erf"),
    "Softmax": op("Softmax", axis=1),
    "InstanceNormalization": instance_norm,
    "Pad": with_integers("Pad", 0, 0, 1, 1, 0, 0, 1, 1),
    "Resize, nearest": resize,
    "Resize, linear": linear_resize,
    "Squeeze-and-excitation gate": gate,
    "SpaceToDepth": space_to_depth,
    "Expand": with_integers("Expand", 4, 16, 8, 8),
    "Tile": with_integers("Tile", 1, 1, 2, 1),
    "Gelu": op("Gelu"),
    "Mish": op("Mish"),
    "Selu": op("Selu"),
    "ThresholdedRelu": op("ThresholdedRelu"),
    "Softsign": op("Softsign"),
    "Exp": op("Exp"),
    "Log": op("Log"),
    "Sqrt": op("Sqrt"),
    "Reciprocal": op("Reciprocal"),
    "Pow by a constant": with_constant("Pow"),
    "Min with a constant": with_constant("Min"),
    "Max with a constant": with_constant("Max"),
    "DepthToSpace": lambda net, x: net.conv(
        net.add("DepthToSpace", [x], name=NODE, attributes={"blocksize": 2}), (4, 16), kernel=1
    ),
}
"""Parts of (4, 16, 8, 8) tensors, between two convolutions of 16 channels."""

ROWS: dict[str, Part] = {
    "Gemm": lambda net, x: net.gemm(x, (32, 32), transposed=False, name=NODE),
    "Gemm, transposed": lambda net, x: net.gemm(x, (32, 32), name=NODE),
    "Gemm of 8 columns": lambda net, x: net.gemm(
        net.gemm(x, (32, 8), name=NODE), (8, 32), name="back"
    ),
    "Reshape": with_integers("Reshape", -1, 32),
    "Flatten": op("Flatten"),
    "Unsqueeze and Squeeze": lambda net, x: net.add(
        "Squeeze",
        [
            net.add("Unsqueeze", [x, net.weight("axis", np.array([1], np.int64))], name=NODE),
            "axis",
        ],
    ),
    "Slice": lambda net, x: net.add(
        "Slice",
        [x, *(net.weight(n, np.array([v], np.int64)) for n, v in SLICE)],
        name=NODE,
    ),
    "Gather": with_integers("Gather", 1, 0, axis=0),
}
"""Parts of (4, 32) tensors, between two Gemm."""

SEQUENCE: dict[str, Part] = {
    "MatMul": lambda net, x: net.matmul(x, (32, 32), name=NODE),
    "MatMul of two activations": attention,
    "MatMul by the left": left_product,
    "MatMul with a stack of matrices": lambda net, x: net.add(
        "MatMul", [x, net.random("stack", (6, 32, 32), fan=32)], name=NODE
    ),
    "Transpose": op("Transpose", perm=[1, 0, 2]),
    "LayerNormalization": layer_norm,
    "LSTM": recurrent("LSTM", 4),
    "GRU": recurrent("GRU", 3),
    "RNN": recurrent("RNN", 1),
}
"""Parts of (6, 4, 32) tensors, between two MatMul."""


OPSETS = {"ReduceMean over pixels": 17, "Split": 17, "Gelu": 20}
"""Where it is not 18: the opsets of attributes that became inputs later, or of newer operators."""


def cases() -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield each operator with its model."""
    for name, part in IMAGE.items():
        net = Net(opset=OPSETS.get(name, 18))
        x = part(net, net.conv(net.input(shape=(4, 16, 8, 8)), (16, 16), name="before"))
        yield name, net.finish(net.conv(x, (16, 16), name="after"))
    for name, part in ROWS.items():
        net = Net(opset=18)
        x = part(net, net.gemm(net.input(shape=(4, 32)), (32, 32), name="before"))
        yield name, net.finish(net.gemm(x, (32, 32), name="after"))
    for name, part in SEQUENCE.items():
        net = Net(opset=18)
        x = part(net, net.matmul(net.input(shape=(6, 4, 32)), (32, 32), name="before"))
        yield name, net.finish(net.matmul(x, (32, 32), name="after"))


def row(name: str, model: onnx.ModelProto) -> Row:
    """Build the four graphs of a case."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepared = prepare(graph.load(write(model, folder / "model.onnx"))).model
        placement = place(prepared)
        quantized = {decision.node for decision in placement.decisions if decision.quantized}
        assert {"before", "after"} <= quantized, f"{name} does not stand between INT8 layers"
        thresholds = {n: TensorThreshold(n, 1.0, 1.0, "fixed", -1.0) for n in placement.tensors}
        half = to_fp16(insert_qdq(prepared, placement, thresholds, float16=True)).model
        graphs: dict[str, ir.Model] = {
            "fp32": prepared,
            "fp16": to_fp16(prepared).model,
            "int8": insert_qdq(prepared, placement, thresholds),
            "int8 in fp16": half,
        }
        files = {key: folder / f"{key}.onnx" for key in graphs}
        for key, made in graphs.items():
            graph.save(made, files[key])
        results = {
            targets: (
                _built(files["fp32"], "fp32", targets),
                _built(files["fp16"], "fp16", targets),
                _built(files["int8"], "int8", targets),
                _built(files["int8 in fp16"], "int8", targets),
            )
            for targets in ((LATER, TURING) if name in ON_TURING else (LATER,))
        }
        return Row(name, _placement(placement), results)


def _placement(placement: Placement) -> str:
    decision = next((d for d in placement.decisions if d.node == NODE), None)
    if decision is None:
        return "passes"
    return f"{'INT8' if decision.quantized else 'float'} ({decision.rule})"


def _built(path: Path, precision: Precision, targets: Targets) -> str:
    """Return ACCEPTED, or why TensorRT-RTX refused."""
    order = Order(library.load("tensorrt-rtx"), Settings(targets=targets), precision, path, NOTHING)
    try:
        builder.build(order)
    except EngineError as error:
        words = str(error).partition(f"{path.name}: ")[2] or str(error)
        for remedy in (builder.OTHERWISE, network.OTHERWISE):
            words = words.removesuffix(f"; {remedy}")
        return words
    return ACCEPTED


HEAD = ("operator", "placement", "FP32", "FP16", "Q/DQ in FP32", "Q/DQ in FP16")


def line(found: Row, targets: Targets, said: dict[str, int]) -> str:
    """Return an operator's line in a table; ``said`` numbers the builder's words."""
    cells = [
        text if text == ACCEPTED else f"**refused** ({said.setdefault(text, len(said) + 1)})"
        for text in found.results[targets]
    ]
    return f"| {found.operator} | {found.placement} | {' | '.join(cells)} |"


def tables(rows: list[Row]) -> str:
    """Return the tables in Markdown, each with the builder's words below it."""
    text: list[str] = []
    for targets in (LATER, TURING):
        said: dict[str, int] = {}
        told = [line(row, targets, said) for row in rows if targets in row.results]
        text += [f"Built for {', '.join(targets)}:", ""]
        text += [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}", *told, ""]
        text += [*(f"{number}. {words}" for words, number in said.items()), ""] if said else []
    return "\n".join(text).rstrip()


def page(text: str, made: str) -> str:
    """Return a page with the table between its marks replaced."""
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}\n{made}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Print the table, and write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    arguments = parser.parse_args()
    made = tables([row(name, model) for name, model in cases()])
    print(made)
    if arguments.write:
        PAGE.write_text(page(PAGE.read_text(), made))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
