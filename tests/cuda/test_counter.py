"""Counts made on the GPU equal the plain definition, bit for bit."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from quantlab.cuda.counter import UNREAD, Counter, View
from quantlab.cuda.device import Device
from quantlab.cuda.layout import TILE
from quantlab.histogram import from_array, merge
from tests.cuda.conftest import Count

pytestmark = pytest.mark.gpu

FLOATS = hnp.arrays(
    st.sampled_from([np.float16, np.float32]), st.tuples(st.integers(1, 6), st.integers(0, 40))
)
"""NaN, infinities, both zeros and subnormal numbers among them."""


@settings(max_examples=300)
@given(FLOATS, st.data())
def test_any_cut_in_any_order_equals_one_pass(
    count: Count, array: NDArray[np.floating], data: st.DataObject
) -> None:
    order = np.array(data.draw(st.permutations(range(len(array)))), np.int64)
    size = data.draw(st.integers(1, len(array)))
    cuts = [order[i : i + size] for i in range(0, len(order), size)]
    assert count([(array[rows], rows) for rows in cuts]) == from_array("t", array)


@settings(max_examples=150)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.floats(-44, 37), min_size=1, max_size=4),
    st.sampled_from([1, 3, 4, 7, TILE - 1, TILE, TILE + 1, 9 * TILE + 5, 300_001]),
    st.sampled_from([-np.inf, 0.0]),
    st.sampled_from([0, 4, 12]),
)
def test_batches_of_any_scale_equal_the_definition(
    count: Count, seed: int, scales: list[float], size: int, lowest: float, offset: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = [
        np.maximum(rng.standard_normal((1, size)) * 10.0**scale, lowest).astype(np.float32)
        for scale in scales
    ]
    found = count([(row, np.array([i])) for i, row in enumerate(rows)], offset=offset)
    assert found == from_array("t", np.concatenate(rows))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("offset", [0, 2])
def test_every_16_bit_number(count: Count, dtype: type[np.generic], offset: int) -> None:
    array = np.arange(2**16, dtype=np.uint16).view(dtype).reshape(16, -1)
    finite = np.where(np.isfinite(array), array, array.dtype.type(0))
    for values in (array, finite, np.flip(finite)):
        with np.errstate(invalid="ignore"):  # signalling NaN among them
            expected = from_array("t", values)
        assert count([(values, np.arange(16))], offset=offset) == expected


@pytest.mark.parametrize("seed", range(4))
def test_random_bits(count: Count, seed: int) -> None:
    bits = np.random.default_rng(seed).integers(0, 2**32, (7, 300_000), np.uint32)
    array = bits.view(np.float32)
    with np.errstate(invalid="ignore"):  # signalling NaN among them
        expected = from_array("t", array)
    assert count([(array, np.arange(7))]) == expected


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -3.5, 2.0**-149, 3e38, np.nan, -np.inf])
def test_a_constant(count: Count, value: float) -> None:
    array = np.full((3, 50_001), value, np.float32)
    assert count([(array, np.arange(3))] * 2) == merge([from_array("t", array)] * 2)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 3, TILE - 1, 2 * TILE + 3, 6 * TILE])
def test_a_bad_element_is_counted_apart_and_its_sample_named(
    count: Count, bad: float, place: int
) -> None:
    values = np.ones((3, 6 * TILE + 1), np.float32)
    values[:2, place] = bad
    found = count([(values, np.array([17, 11, 40]))])
    assert (found.nans, found.infs) == ((2, 0) if np.isnan(bad) else (0, 2))
    assert (found.first_nan if np.isnan(bad) else found.first_inf) == 11
    assert found.total == values.size - 2


def test_a_tensor_without_batch_axis_is_the_first_samples(count: Count) -> None:
    assert count([(np.array([1.0, np.nan, 2.0], np.float32), np.array([5, 6]))]).first_nan == 5


def test_many_tensors_in_one_launch_and_their_ranges(device: Device) -> None:
    rng = np.random.default_rng(0)
    batch = 2
    kinds = [np.dtype(kind) for kind in (np.float32, np.float16, ml_dtypes.bfloat16)]
    sizes = [0, 1, 5, 1000, TILE, 70_003, 0, 400_000, 3, 0]
    arrays = [
        (rng.standard_normal((batch, size)) * 10.0 ** rng.integers(-3, 3)).astype(kinds[i % 3])
        for i, size in enumerate(sizes)
    ]
    names = [str(i) for i in range(len(arrays))]
    counter = Counter(device, names)
    with device.current():
        memories = [device.cuda.mem_alloc(max(array.nbytes, 16)) for array in arrays]
        for place, array in zip(memories, arrays, strict=True):
            if array.size:
                device.cuda.memcpy_htod(place, array)
    views = [
        View(int(place), array.shape, array.dtype.name)
        for place, array in zip(memories, arrays, strict=True)
    ]
    ranges = counter.add(views, np.arange(batch))
    expected = [from_array(name, array) for name, array in zip(names, arrays, strict=True)]
    assert list(counter.take().values()) == expected
    assert ranges().tolist() == [[one.minimum, one.maximum] for one in expected]


def test_ranges_of_each_batch_can_be_read_late_and_taking_starts_anew(
    device: Device, memory: int
) -> None:
    counter = Counter(device, ["t"])
    batches = [np.arange(i, i + 5, dtype=np.float32) for i in range(-3, 2 * UNREAD)]
    for _ in range(2):
        ranges = []
        for array in batches:
            with device.current():
                device.stream.synchronize()
                device.cuda.memcpy_htod(memory, array)
            ranges.append(counter.add([View(memory, array.shape, "float32")], np.array([0])))
        assert [found().tolist() for found in ranges] == [[[a.min(), a.max()]] for a in batches]
        assert counter.take()["t"] == from_array("t", np.concatenate(batches))
    assert counter.take()["t"].total == 0
