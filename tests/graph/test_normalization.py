"""Normalizations are found with all their parts, and batch normalization is none of them."""

from pathlib import Path

import numpy as np

from quantlab.graph.normalization import normalizes, parts
from tests.graph.cases import CASES, prepared
from tests.models import Net
from tests.networks import scalar


def test_every_spelling_is_found_whole(tmp_path: Path) -> None:
    model = prepared(CASES["normalization"].build(), tmp_path)
    roots = [node for node in model.graph if normalizes(node)]
    assert [node.op_type for node in roots] == ["LayerNormalization", "Sqrt", "Sqrt"]
    found = [sorted(node.op_type for node in parts(root)) for root in roots]
    assert found == [
        ["LayerNormalization"],
        sorted(["ReduceMean", "Sub", "Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul", "Add"]),
        sorted(["Mul", "ReduceMean", "Add", "Sqrt", "Reciprocal", "Mul", "Mul"]),
    ]
    products = {node for node in model.graph if node.op_type == "MatMul"}
    assert all(not parts(root) & products for root in roots)


def test_a_root_of_something_else_and_constant_statistics_normalize_nothing(tmp_path: Path) -> None:
    net = Net()
    x = net.add("Softmax", [net.input()])
    x = net.add("Sqrt", [net.add("Add", [x, scalar(net, 1)])])
    x = net.norm(x, 16)
    mean = net.add("ReduceMean", [x], attributes={"axes": [1], "keepdims": 1})
    y = net.add("Div", [x, net.add("Sqrt", [net.add("Add", [mean, scalar(net, np.e)])])])
    model = prepared(net.finish(y), tmp_path)
    assert not any(map(normalizes, model.graph))
