"""``quantlab explain``: one line a node, the rule that decided, totals that add up, exit codes."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from quantlab.explain import explain
from quantlab.graph.placement import POLICIES
from tests.graph.cases import CASES
from tests.models import Net, write
from tests.networks import NETWORKS
from tests.runs import quantlab, workspace

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "examples/fashion_mnist/mobilenet.onnx"


def test_every_node_has_a_line_with_its_rule_and_reason() -> None:
    done = quantlab("explain", MODEL)
    assert done.code == 0, done.err
    lines = [line.strip("│ ") for line in done.out.splitlines()]
    rows = {line.split("│")[0].strip(): line for line in lines if line.count("│") == 4}
    for node in onnx.load(MODEL).graph.node:
        assert node.name in rows
        assert node.op_type in rows[node.name]
    assert "INT8" in rows["stem"]
    assert "conv" in rows["stem"]
    assert "fused-activation" in rows["clip_0"]
    assert "residual-add" in rows["add_2"]
    assert "narrow-product" in rows["classifier"]
    assert "shorter than 16" in rows["classifier"]
    nodes, macs = lines[-2:]
    assert nodes == (
        "59 nodes: 36 INT8, 21 fused into INT8 layers or moving integers, 2 float; "
        "31 quantized tensors, 31 weights"
    )
    assert macs == "MACs in INT8: 100.0 % of 23.8 M a sample"


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("network", NETWORKS)
def test_counts_add_up_and_most_of_the_work_is_integer(
    network: str, policy: str, tmp_path: Path
) -> None:
    found = explain(write(NETWORKS[network](), tmp_path / "m.onnx"), policy)
    rows = [str(node.name) for node in found.prepared.graph]
    assert [row.node for row in found.rows] == rows
    counts = [found.count(runs) for runs in ("INT8", "fused", "float")]
    assert sum(counts) == len(rows)
    assert found.count("INT8") == sum(d.quantized for d in found.placement.decisions)
    integer = sum(row.macs or 0 for row in found.rows if row.runs == "INT8")
    assert found.integer_share == pytest.approx(integer / found.macs)
    assert found.integer_share > (0.6 if policy in ("conservative", "onnxruntime") else 0.9)
    rules = {rule.name for rule in POLICIES[policy].rules}
    assert {row.rule for row in found.rows if row.runs == "INT8"} <= rules
    found.check()


def test_products_of_activations_count_as_work(tmp_path: Path) -> None:
    net = Net()
    x = net.input(shape=("N", 2, 6, 32))
    turned = net.add("Transpose", [x], attributes={"perm": [0, 1, 3, 2]})
    y = net.matmul(net.add("MatMul", [x, turned], name="gram"), (6, 32), name="narrow")
    y = net.matmul(y, (32, 32), name="wide")
    found = explain(write(net.finish(y), tmp_path / "m.onnx"))
    macs = {row.node: row.macs for row in found.rows}
    assert macs["gram"] == 2 * 6 * 6 * 32
    assert macs["wide"] == 2 * 6 * 32 * 32


def test_bodies_of_control_flow_are_listed_last(tmp_path: Path) -> None:
    found = explain(write(CASES["subgraph"].build(), tmp_path / "m.onnx"))
    assert {row.node for row in found.rows[-2:]} == {"then_conv", "else_conv"}
    assert all(row.rule == "subgraph" and "'either'" in row.reason for row in found.rows[-2:])


def test_a_config_brings_its_policy_and_layers(tmp_path: Path) -> None:
    config = workspace(tmp_path, {"quantization": {"layers": {"body": "fp32"}}})
    found = explain(config)
    assert found.policy == "onnxruntime", "the backend's own"
    assert {row.node: row.rule for row in found.rows}["body"] == "pinned"
    assert explain(config, "tensorrt").policy == "tensorrt"


def test_nothing_quantizable_is_listed_node_by_node_and_refused(tmp_path: Path) -> None:
    net = Net()
    x = net.relu(net.gemm(net.input(shape=("N", 4)), (4, 4), name="tiny"))
    path = write(net.finish(net.gemm(x, (4, 2), name="last")), tmp_path / "small.onnx")
    done = quantlab("explain", path)
    assert done.code == 2
    for node in ("tiny", "last"):
        (line,) = [text for text in done.out.splitlines() if text.startswith(f"│ {node} ")]
        assert "narrow-product" in line
    assert "no quantizable layer: 2 Gemm (tiny, last)" in done.err
    assert "Traceback" not in done.err


def test_a_quantized_model_is_refused_with_a_reason(tmp_path: Path) -> None:
    net = Net()
    scale = net.weight("scale", np.asarray(0.1, np.float32))
    x = net.add("QuantizeLinear", [net.input(), scale])
    model = net.finish(net.conv(net.add("DequantizeLinear", [x, scale]), (16, 16)))
    done = quantlab("explain", write(model, tmp_path / "qdq.onnx"))
    assert done.code == 2
    assert "the model is quantized already" in done.err


def test_an_unknown_policy_names_the_nearest() -> None:
    done = quantlab("explain", MODEL, "--policy", "openvin")
    assert done.code == 2
    assert "did you mean 'openvino'?" in done.err


def test_names_from_strangers_do_not_move_the_cursor(tmp_path: Path) -> None:
    net = Net()
    path = write(
        net.finish(net.conv(net.input(), (16, 16), name="\x1b[2Jc\u202eonv")), tmp_path / "m.onnx"
    )
    done = quantlab("explain", path)
    assert done.code == 0
    assert "\x1b[2J" not in done.out
    assert "\\x1b[2Jc\\u202eonv" in done.out
