"""Each rule has a golden network; what follows from the rules holds for any network."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantlab.errors import ConfigError, ModelError
from quantlab.graph.followers import FOLLOWERS, follow
from quantlab.graph.moving import commutes
from quantlab.graph.pins import pin
from quantlab.graph.placement import POLICIES, RULES, Edge, place
from quantlab.graph.rules import Answers
from quantlab.graph.sites import SUBGRAPH
from quantlab.graph.view import WEIGHTED
from tests.graph.cases import CASES, GOLDEN, describe, prepared
from tests.models import BLOCKS, Net, residual, stacked
from tests.networks import NETWORKS, attention

blocks = st.lists(st.sampled_from(sorted(BLOCKS)), max_size=4)


ALL = {
    **{(policy, rule.name): rule for policy, chosen in POLICIES.items() for rule in chosen.rules},
    **{("tensorrt", rule.name): rule for rule in FOLLOWERS},
    ("tensorrt", SUBGRAPH.name): SUBGRAPH,
}
"""Every rule by policy; the followers are every policy's."""


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, tmp_path: Path) -> None:
    text = describe(name, tmp_path)
    for rule in CASES[name].rules:
        assert f"({rule})" in text, "the network is not about this rule"
    assert text == (GOLDEN / f"{name}.txt").read_text()


def test_there_is_no_golden_file_of_a_case_that_is_gone() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(CASES)


def test_every_rule_has_a_golden_network() -> None:
    own = {(case.policy, rule) for case in CASES.values() for rule in case.rules}
    shared = {rule.name for rule in RULES}  # conservative and openvino ask these too
    for policy, rule in ALL:
        assert (policy, rule) in own or (policy != "onnxruntime" and rule in shared), (policy, rule)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_rule_says_why_and_who_says_so(policy: str) -> None:
    names = [rule.name for rule in POLICIES[policy].rules]
    assert len(set(names)) == len(names)
    for rule in (*POLICIES[policy].rules, *FOLLOWERS):
        assert len(rule.reason) > 20
        assert len(rule.source) > 7


def on_grid(model: ir.Model, edges: list[Edge]) -> set[ir.Value | None]:
    """Return the tensors that come from integers through nodes that only move or choose them."""
    found: set[ir.Value | None] = set()
    for node in model.graph:
        inputs = commutes(node)
        integers = (Edge(str(node.name), i) in edges or node.inputs[i] in found for i in inputs)
        if inputs and all(integers):
            found.update(node.outputs)
    return found


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
    ready = on_grid(model, edges)
    for weight in placement.weights:
        read = nodes[weight.edge.node].inputs[1 - weight.edge.index]
        own = Edge(weight.edge.node, 1 - weight.edge.index) in edges
        assert own or read in ready, "INT8 weights need an INT8 input"
        assert weight.initializer in model.graph.initializers
    for group in placement.ties:
        assert set(group) <= set(placement.tensors)
    assert not set(placement.implicit) & {*placement.tensors, *placement.derived}
    assert set(placement.derived.values()) <= {*placement.tensors, *placement.implicit}
    decided = [d.node for d in (*placement.decisions, *follow(model, placement))]
    assert len(decided) == len(nodes)
    assert set(decided) == nodes.keys(), "each node has one decision"


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


def test_an_input_is_residual_where_a_quantized_layer_reads_it_too(tmp_path: Path) -> None:
    net = Net()
    x = net.input()
    same = net.add("Add", [x, net.conv(x, (16, 16))], name="denoise")
    other = net.input("other")
    model = prepared(
        net.finish(net.add("Add", [other, net.conv(same, (16, 16))], name="join")), tmp_path
    )
    placement = place(model)
    rules = {d.node: d.rule for d in placement.decisions}
    assert (rules["denoise"], rules["join"]) == ("residual-add", "float-add")
    [quantized] = [a for a in placement.activations if a.tensor == "x"]
    assert {edge.node for edge in quantized.edges} == {"conv0", "denoise"}


def test_stem_behind_a_normalization_of_the_input_is_still_the_first_layer(tmp_path: Path) -> None:
    net = Net()
    x = net.add("Mul", [net.input(shape=("N", 3, 8, 8)), net.random("scale", (1,))])
    model = prepared(net.finish(net.conv(x, (3, 8), name="stem")), tmp_path)
    assert [d.rule for d in place(model).decisions] == ["conv"]


@pytest.mark.parametrize("policy", ["tensorrt", "conservative"])
def test_stem_behind_what_moves_the_input_is_still_the_first_layer(
    policy: str, tmp_path: Path
) -> None:
    net = Net()
    x = net.add("Transpose", [net.input(shape=("N", 8, 8, 3))], attributes={"perm": [0, 3, 1, 2]})
    x = net.add("Pad", [x, net.weight("pads", np.array([0, 0, 1, 1, 0, 0, 1, 1]))])
    x = net.relu(net.conv(net.relu(net.conv(x, (3, 8), name="stem")), (8, 16), name="next"))
    found = rules(net.finish(net.conv(x, (16, 16), name="last")), tmp_path, policy)
    assert found["stem"] == ("first-layer" if policy == "conservative" else "conv")


def rules(original: onnx.ModelProto, folder: Path, policy: str = "tensorrt") -> dict[str, str]:
    return {d.node: d.rule for d in place(prepared(original, folder), policy).decisions}


def test_a_gate_and_its_average_read_the_same_integers(tmp_path: Path) -> None:
    model = prepared(stacked(["conv", "gate"]), tmp_path)
    placement = place(model)
    gate = next(d.node for d in placement.decisions if d.rule == "integer-gate")
    pool = next(d.node for d in placement.decisions if d.rule == "integer-average")
    (edges,) = (a.edges for a in placement.activations if Edge(gate, 0) in a.edges)
    assert set(edges) == {Edge(gate, 0), Edge(pool, 0)}, "the gate itself stays in float"


def test_a_gate_whose_stream_is_read_in_floating_point_too_reads_floats(tmp_path: Path) -> None:
    net = Net()
    x = net.relu(net.conv(net.input(), (16, 16)))
    gated = BLOCKS["gate"](net, x)
    y = net.conv(gated, (16, 16))
    found = rules(net.finish(y, net.add("Softmax", [x], attributes={"axis": 1})), tmp_path)
    assert "gate" in found.values()
    assert "float-average" in found.values()


@pytest.mark.parametrize(
    ("axes", "rule"), [([2, 3], "integer-gate"), ([1], "gate"), ([1, 2, 3], "integer-gate")]
)
def test_a_gate_has_one_value_a_channel(axes: list[int], rule: str, tmp_path: Path) -> None:
    """A value for each pixel is as large as a channel, and is attention over the picture."""
    net = Net()
    x = net.relu(net.conv(net.input(), (16, 16)))
    mean = net.add("ReduceMean", [x], attributes={"axes": axes, "keepdims": 1})
    gated = net.add("Mul", [net.relu(net.conv(x, (16, 16))), net.add("Sigmoid", [mean])], name="m")
    assert rules(net.finish(net.conv(gated, (16, 16))), tmp_path)["m"] == rule


def test_a_copy_with_a_float_reader_or_a_float_source_moves_floats(tmp_path: Path) -> None:
    turn = {"perm": [0, 1, 3, 2]}

    def made(*, source: str = "Relu", read_twice: bool = False) -> onnx.ModelProto:
        net = Net()
        x = net.add(source, [net.conv(net.input(), (16, 16))])
        y = net.add("Transpose", [x], name="turn", attributes=turn)
        outputs = [net.conv(y, (16, 16))]
        return net.finish(*outputs, *([net.add("Erf", [y])] if read_twice else []))

    assert rules(made(), tmp_path)["turn"] == "integer-copy"
    assert "turn" not in rules(made(source="Softmax"), tmp_path)
    assert "turn" not in rules(made(read_twice=True), tmp_path)


def test_concatenated_tensors_are_tied_across_nests_and_pools(tmp_path: Path) -> None:
    model = prepared(CASES["integer-concat"].build(), tmp_path)
    (group,) = place(model).ties
    assert {"relu1_out", "inner_out", "outer_out"} <= set(group)


@pytest.mark.parametrize(
    ("width", "tokens", "rule"),
    [
        (16, 6, "attention-kernel"),
        (64, 512, "attention-kernel"),
        (64, 513, "attention"),
        (48, 6, "attention"),
        (128, 6, "attention"),
    ],
)
def test_attention_is_told_by_head_size_and_length(
    width: int, tokens: int, rule: str, tmp_path: Path
) -> None:
    net = Net()
    made = attention(net, net.input(shape=("N", tokens, width)), width, 1, tokens)
    found = rules(net.finish(made), tmp_path)
    assert {r for node, r in found.items() if node.startswith("matmul")} == {rule}


def test_forcing_reaches_what_can_be_quantized_and_names_what_cannot(tmp_path: Path) -> None:
    net = Net()
    x = net.conv(net.input(), (16, 4), name="narrow")
    y = net.conv(net.conv(x, (4, 4), name="tiny"), (4, 16), name="back")
    kernel = net.input("kernel", (16, 16, 1, 1))
    model = prepared(net.finish(net.add("Conv", [y, kernel], name="dynamic")), tmp_path)
    free, wanted = place(model), place(pin(model, {"tin?": "int8"}, "layers"))
    assert {d.node: d.rule for d in free.decisions}["tiny"] == "small-channels"
    assert {d.node: d.rule for d in wanted.decisions}["tiny"] == "forced"
    with pytest.raises(ConfigError, match=r"'dynamic' cannot be INT8: .*at run time") as caught:
        place(pin(model, {"dynamic": "int8"}, "layers"))
    assert caught.value.key == "layers"
    every = {d.node: d for d in place(pin(model, {"*": "int8"}, "layers")).decisions}
    assert every["narrow"].quantized
    assert not every["dynamic"].quantized, "a pattern takes what can be"


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("network", NETWORKS)
def test_networks_of_real_families(network: str, policy: str, tmp_path: Path) -> None:
    model = prepared(NETWORKS[network](), tmp_path)
    placement = place(model, policy)
    edges = [edge for activation in placement.activations for edge in activation.edges]
    assert len(set(edges)) == len(edges)
    quantized = {d.node for d in placement.decisions if d.quantized}
    assert {edge.node for edge in edges} <= quantized | {str(n.name) for n in model.graph}
    floats = [d for d in placement.decisions if d.op in WEIGHTED and not d.quantized]
    allowed = {
        "tensorrt": {"attention-kernel"},
        "openvino": {"attention-kernel"},
        "onnxruntime": {"float-weights", "model-output"},
        "conservative": {"attention-kernel", "first-layer", "last-layer", "depthwise"},
    }
    assert {d.rule for d in floats} <= allowed[policy]


def test_layers_that_no_rule_speaks_for_are_listed(tmp_path: Path) -> None:
    net = Net()
    model = prepared(net.finish(net.conv_transpose(net.input(), (16, 16), name="up")), tmp_path)
    with pytest.raises(ModelError, match=r"1 ConvTranspose \(up\): no rule of the policy"):
        place(model, "onnxruntime")


def test_a_product_of_activations_is_a_layer(tmp_path: Path) -> None:
    net = Net()
    x = net.input(shape=("N", 32, 32))
    model = prepared(net.finish(net.add("MatMul", [x, net.relu(x)], name="product")), tmp_path)
    assert place(pin(model, {"product": "int8"})).tensors == ("x", "relu0_out")


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
    assert Answers(RULES).find(node) is not None
    node.domain = "com.example"
    assert Answers(RULES).find(node) is None


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
