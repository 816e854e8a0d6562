"""docs/tensorrt-operators.md says what the installed TensorRT-RTX really accepts."""

import platform
import re
import sys

import onnx
import pytest

from quantlab.graph.elementwise import ELEMENT_WISE
from quantlab.graph.moving import COPIES, VIEWS
from quantlab.graph.policy_tensorrt import RECURRENT
from quantlab.graph.view import BINARY, CLAMPS, MOVING, SAME_SCALE, UNARY, WEIGHTED

if (sys.platform, platform.machine()) != ("linux", "x86_64"):
    pytest.skip("TensorRT-RTX is published for Linux on x86-64", allow_module_level=True)

from benchmarks import rtx_operators
from benchmarks.rtx_operators import ACCEPTED, PAGE, Targets

CASES = dict(rtx_operators.cases())
POOLS = {"AveragePool", "GlobalAveragePool", "ReduceMean"}


def published() -> dict[tuple[Targets, str], list[str]]:
    """Return the page's rows by targets and operator; a refusal is its words."""
    found: dict[tuple[Targets, str], list[str]] = {}
    for part in PAGE.read_text().split("Built for ")[1:]:
        targets = tuple(part.partition(":")[0].split(", "))
        words = dict(re.findall(r"^(\d+)\. (.*)$", part, re.MULTILINE))
        for line in re.findall(r"^\| (?!operator)(.*) \|$", part, re.MULTILINE):
            operator, *cells = line.split(" | ")
            numbers = [re.fullmatch(r"\*\*refused\*\* \((\d+)\)", cell) for cell in cells]
            found[targets, operator] = [
                words[number[1]] if number else cell
                for cell, number in zip(cells, numbers, strict=True)
            ]
    return found


ROWS = published()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("operator", CASES)
def test_the_page_is_true(operator: str) -> None:
    row = rtx_operators.row(operator, CASES[operator])
    assert {(targets, operator): [row.placement, *r] for targets, r in row.results.items()} == {
        key: cells for key, cells in ROWS.items() if key[1] == operator
    }, "if TensorRT-RTX changed: python -m benchmarks.rtx_operators --write"


def test_the_page_lists_no_other_operator() -> None:
    assert {operator for _, operator in ROWS} == set(CASES)


def test_all_that_placement_emits_for_later_gpus_is_accepted() -> None:
    refused = {key for key, cells in ROWS.items() if set(cells[1:]) != {ACCEPTED}}
    assert refused == {(rtx_operators.TURING, "Gemm"), (rtx_operators.TURING, "MatMul")}


def operators(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


def test_every_operator_that_placement_knows_is_in_the_table() -> None:
    known = UNARY | BINARY | MOVING | SAME_SCALE | WEIGHTED | CLAMPS | RECURRENT | POOLS
    known |= ELEMENT_WISE | VIEWS | COPIES
    assert known <= set().union(*map(operators, CASES.values()))
