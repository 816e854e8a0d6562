"""An old cache and its model become a Q/DQ model with the cache's scales, whole or in part."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from quantlab import cache, files, manifest
from quantlab.cache import Cache, Header
from quantlab.errors import CacheError, ModelError
from quantlab.graph import model as graph
from quantlab.graph.foreign_qdq import check
from quantlab.graph.insert_qdq import insert_qdq
from quantlab.graph.normalize import normalize
from quantlab.graph.placement import place
from quantlab.graph.prepare import prepare
from quantlab.graph.qdq_points import points, settle
from quantlab.graph.sites import tensors
from quantlab.migrate import Migrated, migrate
from tests.cache.test_manifest import BASIS
from tests.models import Net, residual, stacked, write

HEADER = Header("8.6.1", "EntropyCalibration2")


def write_cache(path: Path, scales: dict[str, float]) -> Path:
    cache.write(path, Cache(HEADER, scales))
    return path


def complete(path: Path) -> dict[str, float]:
    """Return a scale for every float tensor of a model, as TensorRT would have written."""
    model = normalize(graph.load(path)).model
    names = [str(value.name) for value in tensors(model)]
    return {name: float(np.float32(0.01 + 0.001 * i)) for i, name in enumerate(names)}


def migrated(
    folder: Path, model: onnx.ModelProto, scales: dict[str, float] | None = None
) -> Migrated:
    path = write(model, folder / "model.onnx")
    return migrate(write_cache(folder / "old.cache", scales or complete(path)), path)


def test_a_complete_cache_gives_the_model_that_a_run_would_build(tmp_path: Path) -> None:
    path = write(residual(), tmp_path / "model.onnx")
    scales = complete(path)
    found = migrate(write_cache(tmp_path / "old.cache", scales), path)
    prepared = prepare(graph.load(path)).model
    placement = place(prepared)
    expected = insert_qdq(prepared, placement, cache.thresholds_from(Cache(HEADER, scales)))
    assert ir.to_proto(found.model) == ir.to_proto(expected)
    report = found.report
    assert (report.missing, report.lost, report.unused) == ((), (), ())
    assert report.needed == placement.tensors
    assert all(match.how == "exact" for match in report.matches)
    quantized = {d.node for d in placement.decisions if d.quantized}
    assert {row.node for row in report.layers if row.quantized} == quantized


def test_the_scales_in_the_model_are_those_of_the_cache_and_tensorrt_takes_it(
    tmp_path: Path,
) -> None:
    path = write(residual(), tmp_path / "model.onnx")
    scales = complete(path)
    made = migrate(write_cache(tmp_path / "old.cache", scales), path).model
    assert check(settle(made)) == ()
    for point in points(made):
        if point.quantizer is not None:
            assert point.scale == scales[point.tensor]


def three_convs() -> onnx.ModelProto:
    net = Net()
    x = net.relu(net.conv(net.input(shape=(2, 16, 8, 8)), (16, 16), name="first"))
    y = net.relu(net.conv(x, (16, 32), name="second"))
    return net.finish(net.conv(y, (32, 32), kernel=1, name="third"))


def test_a_layer_without_a_scale_stays_in_float_by_name_and_share(tmp_path: Path) -> None:
    found = migrated(tmp_path, three_convs(), {"x": 0.02, "relu1_out": 0.03})
    (lost,) = found.report.lost
    assert (lost.node, lost.tensor, lost.scale) == ("third", "relu3_out", None)
    assert lost.reason == "'relu3_out' has no scale in the cache"
    # Products of a pixel: 16 * 16 * 9, 16 * 32 * 9 and 32 * 32; two samples of 64 pixels.
    assert lost.macs == 2 * 64 * 32 * 32
    assert found.report.share(found.report.lost) == pytest.approx(1024 / (2304 + 4608 + 1024))
    ops = {str(node.name): node for node in found.model.graph}
    assert ops["third"].inputs[1] is not None
    assert ops["third"].inputs[1].is_initializer()
    assert [p.tensor for p in points(found.model) if p.node is p.quantizer] == ["x", "relu1_out"]


def test_ties_give_a_pooled_or_clamped_tensor_its_partners_scale(tmp_path: Path) -> None:
    found = migrated(tmp_path, three_convs(), {"x": 0.02, "first_out": 0.03, "second_out": 0.04})
    told = {match.tensor: str(match) for match in found.report.matches}
    assert told == {
        "x": "the cache's own",
        "relu1_out": "tied to 'first_out'",
        "relu3_out": "tied to 'second_out'",
    }
    assert found.report.missing == ()


def test_the_inputs_of_a_concat_get_one_scale(tmp_path: Path) -> None:
    path = write(stacked(["concat", "conv"]), tmp_path / "model.onnx")
    scales = complete(path)
    made = migrate(write_cache(tmp_path / "old.cache", scales), path)
    prepared = prepare(graph.load(path)).model
    groups = place(prepared).ties
    assert groups
    used = {match.tensor: match.scale for match in made.report.matches}
    for group in groups:
        assert {used[name] for name in group} == {max(scales[name] for name in group)}


@pytest.mark.parametrize("op", ["Identity", "Dropout"])
def test_a_tensor_that_preparing_removed_lends_its_scale(tmp_path: Path, op: str) -> None:
    net = Net()
    x = net.relu(net.conv(net.input(), (16, 16), name="first"))
    y = net.add(op, [x], name="same")
    model = net.finish(net.conv(y, (16, 16), name="second"))
    found = migrated(tmp_path, model, {"x": 0.02, "same_out": 0.03})
    assert found.report.missing == ()
    sources = {match.tensor: (match.how, match.entry) for match in found.report.matches}
    assert sources == {
        "x": ("exact", "x"),
        "relu1_out": ("same values", "same_out"),
    }


def test_a_folded_normalization_leaves_names_that_match(tmp_path: Path) -> None:
    net = Net()
    x = net.norm(net.conv(net.input(), (16, 16), name="first"), 16, name="norm")
    model = net.finish(net.conv(x, (16, 16), name="second"))
    found = migrated(tmp_path, model)
    assert [match.how for match in found.report.matches] == ["exact", "exact"]
    assert found.report.unused == ()  # the tensor that was folded away is the model's all the same


def test_an_add_without_its_convolution_is_not_read_as_int8(tmp_path: Path) -> None:
    path = write(residual(), tmp_path / "model.onnx")
    scales = complete(path)
    placement = place(prepare(graph.load(path)).model)
    reads = {edge.node: a.tensor for a in placement.activations for edge in a.edges}
    assert "add0" in reads
    lacking = {name: s for name, s in scales.items() if name != reads["b0"]}
    for name in placement.derived:  # nor from a partner
        if placement.derived[name] == reads["b0"]:
            lacking.pop(name, None)
    found = migrate(write_cache(tmp_path / "old.cache", lacking), path)
    rows = {row.node: row for row in found.report.layers}
    assert rows["b0"].reason == f"{reads['b0']!r} has no scale in the cache"
    assert not rows["add0"].quantized
    assert rows["add0"].reason.startswith("without the layers that stay in floating point: ")
    assert [row.node for row in found.report.lost] == ["b0", "add0"]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_part_of_a_cache_gives_a_valid_model_that_adds_up(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("part")
    path = write(stacked(["residual", "concat", "depthwise"]), folder / "model.onnx")
    scales = complete(path)
    kept = data.draw(st.sets(st.sampled_from(sorted(scales)), min_size=1))
    part = {name: scale for name, scale in scales.items() if name in kept}
    try:
        found = migrate(write_cache(folder / "old.cache", part), path)
    except CacheError:
        assume(False)  # noqa: FBT003  # nothing of it is a layer's; tested apart
    report = found.report
    assert {m.tensor for m in report.matches} | set(report.missing) == set(report.needed)
    quantized = [row for row in report.layers if row.quantized]
    assert all(row.scale for row in quantized)
    assert all(row.scale is None for row in report.lost if "no scale" in row.reason)
    total = report.share(report.layers)
    assert total == pytest.approx(1)
    assert check(settle(found.model)) == ()
    graph.save(found.model, folder / "int8.onnx")
    graph.validate(folder / "int8.onnx")


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ({"other": 1.0}, r"gives none .* of 3 tensors .* lacks 'x', .*it has 'other', which"),
        ({"x": 0.0}, r"gives none .* lacks 'x'"),
    ],
    ids=["another model", "zero"],
)
def test_a_cache_that_gives_nothing_is_an_error(
    tmp_path: Path, scales: dict[str, float], message: str
) -> None:
    with pytest.raises(CacheError, match=message):
        migrated(tmp_path, three_convs(), scales)


def test_a_manifest_of_another_model_is_an_error(tmp_path: Path) -> None:
    path = write(three_convs(), tmp_path / "model.onnx")
    source = write_cache(tmp_path / "old.cache", complete(path))
    beside = manifest.beside(source)
    replace(BASIS, cache_sha256=files.sha256(source)).save(beside)
    with pytest.raises(CacheError, match=r"old\.cache was made for another model: .*recalibrate"):
        migrate(source, path)
    prepared = tmp_path / "prepared.onnx"
    graph.save(prepare(graph.load(path)).model, prepared)
    hashes = manifest.model_digests(prepared)
    own = replace(BASIS, cache_sha256=files.sha256(source))
    replace(own, graph_hash=hashes[0], weights_hash=hashes[1]).save(beside)
    assert migrate(source, path).report.missing == ()


def test_a_model_that_is_quantized_already_is_pointed_to_the_other_form(tmp_path: Path) -> None:
    path = write(three_convs(), tmp_path / "model.onnx")
    made = migrate(write_cache(tmp_path / "old.cache", complete(path)), path).model
    graph.save(made, tmp_path / "int8.onnx")
    with pytest.raises(ModelError, match=r"quantized already.*'quantlab migrate MODEL.onnx'"):
        migrate(tmp_path / "old.cache", tmp_path / "int8.onnx")
