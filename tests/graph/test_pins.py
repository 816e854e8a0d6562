"""Pins mark nodes by pattern, and every policy leaves what is marked in floating point."""

from pathlib import Path

import pytest

from quantlab.errors import ConfigError
from quantlab.graph.pins import forced, kept_in_fp32, pin, pinned
from quantlab.graph.placement import POLICIES, place
from tests.graph.cases import prepared
from tests.models import residual


def test_the_last_pattern_that_matches_counts(tmp_path: Path) -> None:
    model = prepared(residual(), tmp_path)
    names = [str(node.name) for node in model.graph]
    marked = pin(model, {"*": "fp32", names[0]: "fp16"})
    assert kept_in_fp32(marked) == tuple(names[1:])
    assert all(pinned(node) for node in marked.graph)
    assert not any(pinned(node) for node in model.graph), "the argument stays as it is"


def test_without_pins_nothing_is_copied(tmp_path: Path) -> None:
    model = prepared(residual(), tmp_path)
    assert pin(model, {}) is model


def test_a_pattern_that_names_nothing_is_an_error(tmp_path: Path) -> None:
    model = prepared(residual(), tmp_path)
    with pytest.raises(ConfigError, match=r"a name like 'nowhere\*', 'CONV'") as caught:
        pin(model, {"nowhere*": "fp32", "*": "fp16", "CONV": "fp32"})
    assert caught.value.key == "pins"


def test_int8_passes_over_what_has_no_form_in_it(tmp_path: Path) -> None:
    model = prepared(residual(), tmp_path)
    marked = pin(model, {"*": "int8"}, "layers")
    wanted = {node.op_type for node in marked.graph if forced(node)}
    assert wanted == {"Conv", "Add", "GlobalAveragePool", "Gemm"}
    relu = next(str(node.name) for node in model.graph if node.op_type == "Relu")
    with pytest.raises(ConfigError, match=f"'{relu}' and a form in INT8") as caught:
        pin(model, {relu: "int8"}, "layers")
    assert caught.value.key == "layers"


def test_a_later_type_replaces_an_earlier_one(tmp_path: Path) -> None:
    model = pin(prepared(residual(), tmp_path), {"*": "fp32"})
    marked = pin(model, {"a0": "int8"}, "layers")
    assert [str(node.name) for node in marked.graph if forced(node)] == ["a0"]
    assert "a0" not in kept_in_fp32(marked)


@pytest.mark.parametrize("policy", POLICIES)
def test_no_policy_quantizes_what_is_pinned(policy: str, tmp_path: Path) -> None:
    model = prepared(residual(), tmp_path)
    free = place(model, policy)
    chosen = free.weights[0].edge.node
    kept = place(pin(model, {chosen: "fp32"}), policy)
    assert chosen in {weight.edge.node for weight in free.weights}
    assert chosen not in {weight.edge.node for weight in kept.weights}
    read = {edge.node for activation in kept.activations for edge in activation.edges}
    if policy != "onnxruntime":  # ONNX Runtime's reads a quantized output whoever it belongs to
        assert chosen not in read
    reason = next(d.reason for d in kept.decisions if d.node == chosen)
    assert "config" in reason
