"""Every golden INT8 graph, and networks of real families, in the engines that can run here.

ONNX Runtime computes it close to FP32; OpenVINO's run-time model shows the integer kernels that the
rules promise and every fusion that the FP32 model has; TensorRT-RTX builds a plan of it.
"""

import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from quantlab.graph.insert_qdq import insert_qdq
from quantlab.graph.model import save
from quantlab.graph.pins import Kind, pin
from quantlab.graph.placement import POLICIES, Activation, Edge, Placement, place
from quantlab.graph.view import WEIGHTED
from tests.graph import fusions
from tests.graph.cases import CASES, prepared
from tests.graph.running import Array, kernels, relative_error, run, thresholds
from tests.models import feeds
from tests.networks import NETWORKS

EXAMPLES = Path(__file__).parents[2] / "examples" / "fashion_mnist"

INTEGERS_ONLY_ON_GPU = {"grouped-conv-transpose"}
"""Rules of TensorRT's for which OpenVINO has no INT8 kernel; its own policy leaves them out."""


@dataclass(frozen=True, slots=True)
class Made:
    """A network in FP32 and INT8, in ``folder``."""

    folder: Path
    given: Mapping[str, Array]
    prepared: ir.Model
    placement: Placement

    @property
    def names(self) -> set[str]:
        """The nodes of the FP32 model."""
        return {str(node.name) for node in self.prepared.graph}

    @property
    def int8(self) -> Path:
        """The INT8 model."""
        return self.folder / "int8.onnx"

    @property
    def fp32(self) -> Path:
        """The FP32 model."""
        return self.folder / "prepared.onnx"


@dataclass(frozen=True, slots=True)
class Subject:
    """A network and who places it."""

    build: Callable[[], onnx.ModelProto]
    policy: str
    layers: Mapping[str, Kind] = field(default_factory=dict)

    def make(self, folder: Path) -> Made:
        """Write both models."""
        original = self.build()
        given = {name: np.asarray(array) for name, array in feeds(original).items()}
        model = pin(prepared(original, folder), self.layers)
        save(model, folder / "prepared.onnx")
        placement = place(model, self.policy)
        found = thresholds(model, placement.tensors, given, folder)
        quantized = insert_qdq(model, placement, found, policy=self.policy)
        save(quantized, folder / "int8.onnx")
        return Made(folder, given, model, placement)


SHIPPED = {path.stem: partial(onnx.load, path) for path in sorted(EXAMPLES.glob("*.onnx"))}
SUBJECTS: dict[str, Subject] = {
    **{name: Subject(case.build, case.policy, case.layers) for name, case in CASES.items()},
    **{
        f"{name}-{policy}": Subject(build, policy)
        for policy in POLICIES
        for name, build in (NETWORKS | SHIPPED).items()
    },
}
OPENVINO = [name for name, subject in SUBJECTS.items() if subject.policy != "onnxruntime"]
FOREIGN = "other-domain"
"""A network with an operator of ONNX Runtime's own."""

TENSORRT = [
    name
    for name, subject in SUBJECTS.items()
    if name != FOREIGN and not POLICIES[subject.policy].unsigned
]
FAMILIES = [name for name in SUBJECTS if name not in CASES]


@pytest.mark.parametrize("name", SUBJECTS)
def test_onnxruntime_computes_it_close_to_fp32(name: str, tmp_path: Path) -> None:
    made = SUBJECTS[name].make(tmp_path)
    expected, got = run(made.fp32, made.given), run(made.int8, made.given)
    assert list(got) == list(expected)
    for output, values in expected.items():
        # Random weights average nothing out: each layer adds about 1 % of noise.
        assert relative_error(values, got[output]) < 0.05


@pytest.mark.parametrize("name", OPENVINO)
def test_openvino_runs_integer_kernels_where_the_rules_promise_them(
    name: str, tmp_path: Path
) -> None:
    made = SUBJECTS[name].make(tmp_path)
    ran = {n: k for k in fusions.kernels(made.int8, made.names) for n in k.nodes}
    promised = {
        decision.node
        for decision in made.placement.decisions
        if decision.quantized and decision.op in WEIGHTED
    }
    kept = {d.node for d in made.placement.decisions if d.rule in INTEGERS_ONLY_ON_GPU}
    for node in promised - kept:
        assert ran[node].precision in fusions.INTEGERS, node


@pytest.mark.parametrize("name", OPENVINO)
def test_no_pair_blocks_a_fusion_in_openvino(name: str, tmp_path: Path) -> None:
    made = SUBJECTS[name].make(tmp_path)
    fused = fusions.fused(fusions.kernels(made.fp32, made.names))
    alone = fusions.alone(fusions.kernels(made.int8, made.names))
    layers = {str(node.name) for node in made.prepared.graph if node.op_type in WEIGHTED}
    assert (fused & alone) - layers == set(), "an Add may change its layer, and be fused there"


def test_a_pair_inside_of_an_activation_would_be_seen(tmp_path: Path) -> None:
    made = SUBJECTS["fused-activation"].make(tmp_path)
    wrong = Activation("sigmoid11_out", (Edge("mul12", 1),))
    placement = replace(made.placement, activations=(*made.placement.activations, wrong))
    found = thresholds(made.prepared, placement.tensors, made.given, tmp_path)
    save(insert_qdq(made.prepared, placement, found), made.int8)
    assert "mul12" in fusions.fused(fusions.kernels(made.fp32, made.names))
    assert "mul12" in fusions.alone(fusions.kernels(made.int8, made.names))


@pytest.mark.parametrize("name", [name for name in FAMILIES if name.endswith("-openvino")])
def test_openvino_converts_nothing_between_its_integer_layers(name: str, tmp_path: Path) -> None:
    """Each pair is inside a kernel, but where a tensor is read in floating point as well."""
    made = SUBJECTS[name].make(tmp_path)
    pairs = {f"{a.tensor}_quantized": a.tensor for a in made.placement.activations}
    alone = {
        pairs[node]
        for kernel in fusions.kernels(made.int8, pairs)
        for node in kernel.nodes
        if kernel.type == "FakeQuantize"
    }
    quantized = {a.tensor: {e.node for e in a.edges} for a in made.placement.activations}
    values = {str(v.name): v for node in made.prepared.graph for v in node.outputs}
    inner = {
        name
        for name in alone & values.keys()
        if {str(n.name) for n in values[name].consumers()} == quantized[name]
    }
    assert {_maker(values[name]) for name in inner} <= {"Reshape", "LayerNormalization"}


def _maker(value: ir.Value) -> str:
    node = value.producer()
    return "" if node is None else node.op_type


@pytest.mark.parametrize(
    "name", [name for name in SUBJECTS if SUBJECTS[name].policy == "onnxruntime"]
)
def test_onnxruntime_makes_an_integer_kernel_of_every_quantized_layer(
    name: str, tmp_path: Path
) -> None:
    made = SUBJECTS[name].make(tmp_path)
    ran = kernels(made.int8, tmp_path)
    decided = [d.op for d in made.placement.decisions if d.quantized]
    for ops, forms in KERNELS.items():
        assert sum(map(decided.count, ops)) <= sum(ran[form] for form in forms), ops
    left = [d.op for d in made.placement.decisions if not d.quantized]
    for op in ("Conv", "Gemm", "Add", "Mul", "Sigmoid", "Concat"):
        assert ran[op] <= left.count(op) or op in ("Add", "Mul")  # bias and GELU have none


KERNELS = {
    ("Conv",): ("QLinearConv",),
    ("Gemm", "MatMul"): ("QGemm", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"),
    ("Add",): ("QLinearAdd",),
    ("Mul",): ("QLinearMul",),
    ("Sigmoid",): ("QLinearSigmoid",),
    ("Concat",): ("QLinearConcat",),
    ("GlobalAveragePool",): ("QLinearGlobalAveragePool",),
    ("LeakyRelu",): ("QLinearLeakyRelu",),
}
"""What ONNX Runtime makes of operators."""


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="TensorRT-RTX is published for Linux on x86-64",
)
@pytest.mark.xdist_group("rtx")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TENSORRT)
def test_tensorrt_rtx_builds_it(name: str, tmp_path: Path) -> None:
    from quantlab.engines.base import BuildContext, ShapeRange
    from quantlab.engines.trt import builder, library
    from quantlab.engines.trt.options import Order, Settings

    made = SUBJECTS[name].make(tmp_path)
    shapes = {key: ShapeRange(a.shape, a.shape, a.shape) for key, a in made.given.items()}
    settings = Settings(around="fp32", targets=("sm86",))
    context = BuildContext(shapes=shapes)
    order = Order(library.load("tensorrt-rtx"), settings, "int8", made.int8, context)
    assert builder.build(order).plan
