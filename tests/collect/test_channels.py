"""Channel ranges: equal to NumPy's for any cut of the samples, and no NaN passes."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantlab.collect.channels import channel_amax
from quantlab.errors import CalibrationError, ModelError
from quantlab.graph.channel_sets import axes
from quantlab.graph.model import reload, save
from quantlab.graph.tap import tap
from tests.graph.cases import prepared
from tests.graph.running import run
from tests.models import feeds, residual

SAMPLES = 9


@pytest.fixture(scope="module", params=[13, 18])
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("channels") / "prepared.onnx"
    save(prepared(residual(opset=request.param), path.parent), path)
    return path


def _samples(network: Path) -> np.ndarray:
    return feeds(onnx.load(network), batch=SAMPLES)["x"]


@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sets(st.integers(1, SAMPLES - 1)))
def test_ranges_are_numpys_for_any_cut(network: Path, cuts: set[int]) -> None:
    samples, wanted = _samples(network), axes(reload(network))
    parts = np.split(samples, sorted(cuts))
    found = channel_amax(network, wanted, ({"x": part} for part in parts))
    tapped = network.with_name("tapped.onnx")
    save(tap(reload(network), list(wanted)), tapped)
    seen = {**run(tapped, {"x": samples}), "x": samples}
    assert found.keys() == wanted.keys()
    for name, axis in wanted.items():
        others = tuple(place for place in range(seen[name].ndim) if place != axis)
        # Fused kernels may round a sum otherwise than node by node.
        np.testing.assert_allclose(found[name], np.abs(seen[name]).max(others), rtol=1e-4)
        assert found[name].dtype == np.float64


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(network: Path, bad: float) -> None:
    samples = _samples(network)
    samples[4, 0, 3, 3] = bad
    parts = [{"x": samples[:3]}, {"x": samples[3:]}]
    with pytest.raises(CalibrationError, match=r"tensor '.+' was NaN or infinite in batch 1 "):
        channel_amax(network, axes(reload(network)), parts)


def test_no_sample_is_refused(network: Path) -> None:
    with pytest.raises(CalibrationError, match="give at least one sample"):
        channel_amax(network, axes(reload(network)), [])


def test_a_tensor_of_another_model_is_named(network: Path) -> None:
    with pytest.raises(ModelError, match="'elsewhere' is not in the graph"):
        channel_amax(network, {"elsewhere": 1}, [{"x": _samples(network)}])


def test_nothing_is_left_beside_the_model(network: Path) -> None:
    before = sorted(network.parent.iterdir())
    channel_amax(network, {"x": 1}, [{"x": _samples(network)}])
    assert sorted(network.parent.iterdir()) == before


def test_weights_beside_the_file_are_found(network: Path, tmp_path: Path) -> None:
    moved = tmp_path / "large.onnx"
    save(reload(network), moved, external_bytes=0)
    wanted, batch = axes(ir.from_proto(onnx.load(network))), {"x": _samples(network)}
    expected = channel_amax(network, wanted, [batch])
    for name, amax in channel_amax(moved, wanted, [batch]).items():
        np.testing.assert_array_equal(amax, expected[name])
