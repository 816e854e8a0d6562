"""A small network for each placement rule, and the text that its golden file holds.

``PYTHONPATH=. python -P -m tests.graph.cases`` writes the golden files anew, after a deliberate
change of a rule; read the difference before keeping it.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto

from quantlab.graph.followers import follow
from quantlab.graph.insert_qdq import insert_qdq
from quantlab.graph.model import load
from quantlab.graph.pins import pin
from quantlab.graph.placement import Placement, place
from quantlab.graph.prepare import prepare
from quantlab.records import Decision, TensorThreshold
from tests.graph import cases_joins, cases_layers, cases_policies
from tests.graph.case import Case
from tests.models import Net, write

GOLDEN = Path(__file__).parent.parent / "golden" / "graph"


def conv() -> onnx.ModelProto:
    net = Net()
    x = net.relu(net.norm(net.conv(net.input(shape=("N", 1, 8, 8)), (1, 32), name="stem"), 32))
    x = net.conv(x, (32, 32), groups=32, name="depthwise")
    return net.finish(net.conv(x, (32, 16), kernel=1, bias=True, name="pointwise"))


def pinned() -> onnx.ModelProto:
    net = Net()
    x = net.relu(net.conv(net.input(), (16, 32), name="stem"))
    x = net.relu(net.conv(x, (32, 32), name="body.0"))
    return net.finish(net.conv(x, (32, 32), name="body.1"))


def small_channels() -> onnx.ModelProto:
    net = Net()
    x = net.conv(net.input(), (16, 4), name="narrow")
    return net.finish(net.conv(x, (4, 4), name="tiny"))


def computed_weights() -> onnx.ModelProto:
    net = Net()
    x = net.conv(net.input(), (16, 16))
    kernel = net.input("kernel", (16, 16, 1, 1))
    return net.finish(net.add("Conv", [x, kernel], name="dynamic"))


def not_float32() -> onnx.ModelProto:
    net = Net()
    x = net.conv(net.input(), (16, 16))
    half = net.add("Cast", [x], attributes={"to": TensorProto.FLOAT16})
    weight = net.weight("half.weight", np.ones((16, 16, 1, 1), np.float16))
    half = net.add("Conv", [half, weight], name="half")
    return net.finish(net.add("Cast", [half], attributes={"to": TensorProto.FLOAT}))


def conv_transpose() -> onnx.ModelProto:
    net = Net()
    return net.finish(net.conv_transpose(net.input(), (16, 24), name="up"))


def grouped_conv_transpose() -> onnx.ModelProto:
    net = Net()
    x = net.input(shape=("N", 32, 8, 8))
    return net.finish(net.conv_transpose(x, (32, 32), groups=2, name="up"))


def matrix_vector() -> onnx.ModelProto:
    net = Net()
    x = net.conv(net.input(shape=(1, 16, 4, 4)), (16, 16))
    return net.finish(net.gemm(net.add("Flatten", [x]), (256, 32), name="one_row"))


def narrow_product() -> onnx.ModelProto:
    net = Net()
    x = net.relu(net.gemm(net.input(shape=("N", 32)), (32, 32), name="hidden"))
    return net.finish(net.gemm(x, (32, 10), name="classes"))


def product() -> onnx.ModelProto:
    net = Net()
    x = net.relu(net.gemm(net.input(shape=("N", 32)), (32, 24), name="turned"))
    x = net.relu(net.gemm(x, (24, 48), transposed=False, name="straight"))
    return net.finish(net.matmul(x, (48, 16), name="plain"))


def constant_add() -> onnx.ModelProto:
    net = Net()
    x = net.relu(net.conv(net.input(), (16, 16)))
    return net.finish(net.add("Add", [x, net.random("three", (1,))], name="shift"))


def residual_add() -> onnx.ModelProto:
    net = Net()
    x = net.relu(net.conv(net.input(), (16, 16), name="stem"))
    y = net.norm(net.conv(net.relu(net.conv(x, (16, 16), name="a1")), (16, 16), name="a2"), 16)
    x = net.relu(net.add("Add", [y, x], name="identity"))
    y = net.conv(net.relu(net.conv(x, (16, 16), name="b1")), (16, 16), name="b2")
    shortcut = net.conv(x, (16, 16), kernel=1, name="b0")
    return net.finish(net.relu(net.add("Add", [shortcut, y], name="downsample")))


def residual_input() -> onnx.ModelProto:
    net = Net()
    x = net.input()
    y = net.conv(net.relu(net.conv(x, (16, 16), name="first")), (16, 16), name="noise")
    return net.finish(net.add("Sub", [x, y], name="denoise"))


def float_add() -> onnx.ModelProto:
    net = Net()
    x = net.input(shape=("N", 6, 32))
    y = net.matmul(net.relu(net.matmul(x, (32, 64), name="up")), (64, 32), name="down")
    return net.finish(net.add("Add", [x, y], name="stream"))


def float_max() -> onnx.ModelProto:
    net = Net()
    return net.finish(net.pool(net.relu(net.conv(net.input(), (16, 16)))))


def integer_max() -> onnx.ModelProto:
    net = Net()
    x = net.pool(net.relu(net.conv(net.input(), (16, 16), name="first")))
    return net.finish(net.conv(x, (16, 16), name="second"))


def integer_average() -> onnx.ModelProto:
    net = Net()
    x = net.relu(net.conv(net.input(), (16, 32)))
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x], name="average")])
    return net.finish(net.gemm(x, (32, 16), name="classifier"))


def float_average() -> onnx.ModelProto:
    net = Net()
    x = net.relu(net.conv(net.input(), (16, 32)))
    return net.finish(
        net.add("ReduceMean", [x], name="average", attributes={"axes": [2, 3], "keepdims": 0})
    )


def concat() -> onnx.ModelProto:
    net = Net()
    x = net.relu(net.conv(net.input(), (16, 16), name="stem"))
    left, right = net.relu(net.conv(x, (16, 16), name="left")), net.pool(x, "MaxPool")
    both = net.add("Concat", [x, left], name="joined", attributes={"axis": 1})
    last = net.conv(net.pool(both), (32, 16), name="after")
    return net.finish(net.add("Concat", [last, right], name="end", attributes={"axis": 1}))


def recurrent() -> onnx.ModelProto:
    net = Net()
    x = net.matmul(net.input(shape=(5, "N", 16)), (16, 16))
    w, r = net.random("lstm.w", (1, 64, 16), fan=16), net.random("lstm.r", (1, 64, 16), fan=16)
    return net.finish(net.add("LSTM", [x, w, r], name="lstm", attributes={"hidden_size": 16}))


OWN: dict[str, Case] = {
    "pinned": Case("pinned", pinned, layers={"body.*": "fp16", "*.1": "fp32"}),
    "not-float32": Case("not-float32", not_float32),
    "computed-weights": Case("computed-weights", computed_weights),
    "small-channels": Case("small-channels", small_channels),
    "conv": Case("conv", conv),
    "conv-transpose": Case("conv-transpose", conv_transpose),
    "grouped-conv-transpose": Case("grouped-conv-transpose", grouped_conv_transpose),
    "matrix-vector": Case("matrix-vector", matrix_vector),
    "narrow-product": Case("narrow-product", narrow_product),
    "product": Case("product", product),
    "constant-add": Case("constant-add", constant_add),
    "residual-add": Case("residual-add", residual_add),
    "residual-input": Case("residual-add", residual_input),
    "float-add": Case("float-add", float_add),
    "integer-max": Case("integer-max", integer_max),
    "float-max": Case("float-max", float_max),
    "integer-average": Case("integer-average", integer_average),
    "float-average": Case("float-average", float_average),
    "concat": Case("concat", concat),
    "recurrent": Case("recurrent", recurrent),
}

CASES: dict[str, Case] = {
    **OWN,
    **cases_layers.CASES,
    **cases_joins.CASES,
    **cases_policies.CASES,
}
"""By the name of the golden file."""


def prepared(model: onnx.ModelProto, folder: Path) -> ir.Model:
    """Return a model as the pipeline would have it before placement."""
    return prepare(load(write(model, folder / "model.onnx"))).model


def describe(name: str, folder: Path) -> str:
    """Return the text of a golden file: the graph before, the placement, the graph after."""
    case = CASES[name]
    before = pin(prepared(case.build(), folder), case.layers)
    placement = place(before, case.policy)
    one = {name: TensorThreshold(name, 1.0, 1.0, "fixed", 0.0) for name in placement.tensors}
    after = insert_qdq(before, placement, one, policy=case.policy)
    parts = {
        "before": _nodes(before),
        "decisions": list(map(_decision, placement.decisions)),
        "scales": _scales(placement),
        "after": _nodes(after),
        "others": list(map(_decision, follow(before, placement))),
    }
    written = "written by PYTHONPATH=. python -P -m tests.graph.cases"
    text = [f"# {case.policy} policy, rule {case.rule}; {written}"]
    for title, lines in parts.items():
        text += ["", f"[{title}]", *lines]
    return "\n".join(text) + "\n"


def _decision(decision: Decision) -> str:
    kind = "INT8" if decision.quantized else "float"
    return f"{decision.op} {decision.node}: {kind} ({decision.rule})"


def _scales(placement: Placement) -> list[str]:
    lines = [f"tied: {', '.join(group)}" for group in placement.ties]
    lines += [f"{name} has the scale of {source}" for name, source in placement.derived.items()]
    return [*lines, f"only for caches: {', '.join(placement.implicit) or 'none'}"]


def _nodes(model: ir.Model) -> list[str]:
    return [
        f"{node.op_type} {node.name}: {', '.join(str(v.name) for v in node.inputs if v)} -> "
        f"{', '.join(str(v.name) for v in node.outputs)}{_axis(node)}"
        for node in model.graph
    ]


def _axis(node: ir.Node) -> str:
    quantizing = node.op_type in ("QuantizeLinear", "DequantizeLinear")
    return f" axis={node.attributes['axis'].as_int()}" if quantizing and node.attributes else ""


if __name__ == "__main__":
    with TemporaryDirectory() as temporary:
        for case in CASES:
            (GOLDEN / f"{case}.txt").write_text(describe(case, Path(temporary)))
