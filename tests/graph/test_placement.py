"""Each rule has a golden network; what follows from the rules holds for any network."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantlab.errors import ModelError
from quantlab.graph.placement import POLICIES, RULES, Edge, place
from quantlab.graph.policy_tensorrt import rule_for
from tests.graph.cases import CASES, GOLDEN, describe, prepared
from tests.models import BLOCKS, Net, residual, stacked

blocks = st.lists(st.sampled_from(sorted(BLOCKS)), max_size=4)


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
def test_golden(rule: str, tmp_path: Path) -> None:
    text = describe(rule, tmp_path)
    assert f"({rule})" in text, "the network is not about this rule"
    assert text == (GOLDEN / f"{rule}.txt").read_text()


def test_every_rule_says_why_and_who_says_so() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES) == len(CASES)
    assert all(len(rule.reason) > 20 and len(rule.source) > 10 for rule in RULES)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(blocks=blocks)
def test_any_network(policy: str, tmp_path: Path, blocks: list[str]) -> None:
    model = prepared(stacked(blocks), tmp_path)
    placement = place(model, policy)
    nodes = {node.name: node for node in model.graph}
    edges = [edge for activation in placement.activations for edge in activation.edges]
    assert len(set(edges)) == len(edges)
    for activation in placement.activations:
        for edge in activation.edges:
            value = nodes[edge.node].inputs[edge.index]
            assert value is not None
            assert value.name == activation.tensor
    for weight in placement.weights:
        assert Edge(weight.edge.node, 0) in edges, "INT8 weights need an INT8 input"
        assert weight.initializer in model.graph.initializers
    for group in placement.ties:
        assert set(group) <= set(placement.tensors)
    assert not set(placement.implicit) & {*placement.tensors, *placement.derived}
    assert set(placement.derived.values()) <= {*placement.tensors, *placement.implicit}


@pytest.mark.parametrize("policy", POLICIES)
def test_caches_cover_every_float_tensor_once(policy: str, tmp_path: Path) -> None:
    model = prepared(residual(), tmp_path)
    placement = place(model, policy)
    known = {*placement.tensors, *placement.derived, *placement.implicit}
    assert known == {"x", *(str(v.name) for node in model.graph for v in node.outputs)}


def test_residual_network_is_quantized_as_tensorrt_fuses_it(tmp_path: Path) -> None:
    model = prepared(residual(), tmp_path)
    adds = {
        edge.node: activation.tensor
        for activation in place(model).activations
        for edge in activation.edges
        if edge.node.startswith("add")
    }
    producers = {str(v.name): node.op_type for node in model.graph for v in node.outputs}
    assert {node: producers[tensor] for node, tensor in adds.items()} == {
        "add0": "Relu",  # the identity
        "add1": "Conv",  # the downsampling shortcut, the shorter branch
    }


def test_both_ends_of_one_convolution_are_no_residual(tmp_path: Path) -> None:
    net = Net()
    x = net.conv(net.input(), (16, 16))
    model = prepared(net.finish(net.add("Add", [x, net.relu(x)], name="same")), tmp_path)
    decisions = {d.node: d.rule for d in place(model).decisions}
    assert decisions["same"] == "float-add"


def test_broadcasting_add_is_no_residual(tmp_path: Path) -> None:
    net = Net()
    x = net.relu(net.conv(net.input(), (16, 16), name="stem"))
    gate = net.add("GlobalAveragePool", [x])
    net.conv(x, (16, 16), name="branch")
    model = prepared(net.finish(net.add("Add", ["branch_out", gate], name="wide")), tmp_path)
    assert {d.node: d.rule for d in place(model).decisions}["wide"] == "float-add"


def test_graph_input_is_no_residual(tmp_path: Path) -> None:
    net = Net()
    x = net.input()
    model = prepared(
        net.finish(net.add("Add", [x, net.conv(x, (16, 16))], name="denoise")), tmp_path
    )
    assert {d.node: d.rule for d in place(model).decisions}["denoise"] == "float-add"


def test_stem_behind_a_normalization_of_the_input_is_still_the_first_layer(tmp_path: Path) -> None:
    net = Net()
    x = net.add("Mul", [net.input(shape=("N", 3, 8, 8)), net.random("scale", (1,))])
    model = prepared(net.finish(net.conv(x, (3, 8), name="stem")), tmp_path)
    assert [d.rule for d in place(model).decisions] == ["conv"]


def test_gate_averages_in_floating_point(tmp_path: Path) -> None:
    model = prepared(stacked(["conv", "gate"]), tmp_path)
    rules = {d.op: d.rule for d in place(model).decisions}
    assert rules["GlobalAveragePool"] == "float-average"


def test_shared_weights_are_quantized_for_each_reader(tmp_path: Path) -> None:
    net = Net()
    x = net.conv(net.input(), (16, 16), name="first")
    y = net.add("Conv", [net.relu(x), "first.weight"], attributes={"pads": [1] * 4}, name="again")
    placement = place(prepared(net.finish(y), tmp_path))
    assert Counter(w.initializer for w in placement.weights) == {"first.weight": 2}


def test_a_long_chain_of_pools_is_placed_in_no_time(tmp_path: Path) -> None:
    """Each pool's readers were once asked twice: 2**60 questions."""
    net = Net()
    x = net.conv(net.input(), (16, 16))
    for _ in range(60):
        x = net.add("MaxPool", [x], attributes={"kernel_shape": [1, 1]})
    placement = place(prepared(net.finish(net.add("Sigmoid", [x])), tmp_path))
    assert placement.tensors == ("x",)


def test_nothing_quantizable_lists_the_reasons(tmp_path: Path) -> None:
    net = Net()
    model = prepared(net.finish(net.gemm(net.input(shape=("N", 4)), (4, 4), name="tiny")), tmp_path)
    with pytest.raises(ModelError, match=r"no quantizable layer: 1 Gemm \(tiny\): .*narrow"):
        place(model)


def test_model_without_arithmetic_is_refused(tmp_path: Path) -> None:
    net = Net()
    with pytest.raises(ModelError, match="has no Conv, ConvTranspose, Gemm or MatMul"):
        place(prepared(net.finish(net.relu(net.input())), tmp_path))


def test_unknown_policy_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'tensort'; did you mean 'tensorrt'\?"):
        place(prepared(residual(), tmp_path), "tensort")


def test_operators_of_other_domains_are_left_alone(tmp_path: Path) -> None:
    model = prepared(residual(), tmp_path)
    node = next(node for node in model.graph if node.op_type == "Conv")
    assert rule_for(node) is not None
    node.domain = "com.example"
    assert rule_for(node) is None


def test_onnxruntime_says_why_a_node_stays_in_floating_point(tmp_path: Path) -> None:
    net = Net()
    x = net.input(shape=(2, 16, 16))
    y = net.matmul(net.relu(net.matmul(x, (16, 32), name="made")), (32, 16), name="kept")
    product = net.add("MatMul", [y, x], name="both")
    stacked_weights = net.random("stack", (2, 16, 16), fan=16)
    net.add("MatMul", [product, stacked_weights], name="batched")
    model = prepared(net.finish("batched_out"), tmp_path)
    reasons = {d.node: d.reason for d in place(model, "onnxruntime").decisions if not d.quantized}
    assert reasons == {
        "both": "it has no constant float32 weights",
        "batched": "its weights are no matrix",
    }


def test_onnxruntime_leaves_a_convolution_that_is_an_output(tmp_path: Path) -> None:
    net = Net()
    x = net.relu(net.conv(net.input(), (16, 16), name="inner"))
    model = prepared(net.finish(net.conv(x, (16, 16), name="last")), tmp_path)
    decisions = {d.node: d for d in place(model, "onnxruntime").decisions}
    assert decisions["inner"].quantized
    assert "an output of the model" in decisions["last"].reason
