"""FashionMnist reads IDX files, plain and gzipped, in the layout that the model takes."""

import gzip
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantlab.datasets.fashion_mnist import FashionMnist
from quantlab.errors import ConfigError, DataError
from quantlab.records import TensorSpec
from tests.datasets.files import IMAGE, idx, random, read, write_idx

PIXELS = random((6, 4, 3), "uint8")
FLAT = TensorSpec("x", "uint8", ("N", 256))
LABELS = np.array([9, 0, 1, 2, 3, 255], np.uint8)


@pytest.fixture(params=["images", "images.gz"])
def images(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_idx(tmp_path / request.param, PIXELS)


@pytest.mark.parametrize(
    ("shape", "sample"),
    [
        (("N", 1, 4, 3), (1, 4, 3)),
        (("N", 4, 3, 1), (4, 3, 1)),
        (("N", 4, 3), (4, 3)),
        (("N", 12), (12,)),
        ((2, 12), (12,)),
        (("N", "C", "H", "W"), (1, 4, 3)),
        (("N", "H", "W", 1), (4, 3, 1)),
        ((None, None, None), (4, 3)),
        ((None, None), (12,)),
    ],
)
def test_images_take_the_shape_of_the_input(
    shape: tuple[int | str | None, ...], sample: tuple[int, ...], images: Path
) -> None:
    samples = read(FashionMnist(images), TensorSpec("x", "float32", shape))
    expected = PIXELS.reshape(6, *sample).astype(np.float32) * np.float32(1 / 255)
    found = np.stack([each.arrays["x"] for each in samples])
    np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_pixels_are_scaled_and_normalized(dtype: str, images: Path) -> None:
    dataset = FashionMnist(images, scale=1 / 128, mean=0.25, std=0.5)
    samples = read(dataset, TensorSpec("x", dtype, ("N", 4, 3)))
    expected = (PIXELS / 128 - 0.25) / 0.5  # exact in float32 and float16: powers of two
    found = np.stack([each.arrays["x"] for each in samples])
    np.testing.assert_array_equal(found, expected.astype(dtype), strict=True)


def test_an_8_bit_input_takes_pixels_as_they_are(images: Path) -> None:
    spec = TensorSpec("x", "uint8", ("N", 4, 3))
    for dataset in (FashionMnist(images), FashionMnist(images, scale=1)):
        found = np.stack([each.arrays["x"] for each in read(dataset, spec)])
        np.testing.assert_array_equal(found, PIXELS, strict=True)
    for scaled in (FashionMnist(images, scale=1 / 255), FashionMnist(images, mean=1)):
        with pytest.raises(DataError, match="takes 8-bit pixels as they are; leave out 'scale'"):
            read(scaled, spec)


@pytest.mark.parametrize("name", ["labels", "labels.gz"])
def test_labels(name: str, images: Path) -> None:
    labels = write_idx(images.parent / name, LABELS)
    found = [np.asarray(sample.label) for sample in read(FashionMnist(images, labels), IMAGE)]
    np.testing.assert_array_equal(np.stack(found), LABELS.astype(np.int64), strict=True)


def test_the_shipped_samples() -> None:
    folder = Path(__file__).parents[2] / "examples" / "fashion_mnist"
    dataset = FashionMnist(
        folder / "t10k-images-idx3-ubyte.gz",
        folder / "t10k-labels-idx1-ubyte.gz",
        folder / "labels.txt",
    )
    with dataset.open([TensorSpec("image", "float32", ("N", 1, 28, 28))]) as samples:
        first = next(iter(samples))
        assert samples.class_names is not None
        assert len(samples.class_names) == 10
    assert first.arrays["image"].shape == (1, 28, 28)
    assert 0 <= first.arrays["image"].min() < first.arrays["image"].max() <= 1


def test_a_sparse_file_larger_than_memory_is_read_from_anywhere(tmp_path: Path) -> None:
    count = 1 << 28
    with (tmp_path / "images").open("wb") as file:
        file.write(bytes([0, 0, 8, 3]) + struct.pack(">3I", count, 16, 16))
        file.truncate(16 + count * 256 - 1)
        file.seek(0, os.SEEK_END)
        file.write(b"\7")
    with FashionMnist(tmp_path / "images", scale=1).open([FLAT]) as samples:
        (last,) = samples.part(count - 1, count)
    assert last.origin == f"images[{count - 1}]"
    assert last.arrays["x"].tolist() == [0] * 255 + [7]


def test_a_part_of_a_gzipped_file_checks_what_lies_before_it_and_the_end(tmp_path: Path) -> None:
    (tmp_path / "images").write_bytes(gzip.compress(BYTES + b"more"))
    with FashionMnist(tmp_path / "images").open([IMAGE]) as samples:
        assert len(list(samples.part(2, 5))) == 3
        with pytest.raises(DataError, match="data go on after the 6 samples"):
            list(samples.part(5, 6))
    (tmp_path / "images").write_bytes(gzip.compress(BYTES[:-13]))
    with FashionMnist(tmp_path / "images").open([IMAGE]) as samples:
        assert len(list(samples.part(0, 4))) == 4
        with pytest.raises(DataError, match="the data end in sample 4"):
            list(samples.part(5, 6))


def test_labels_are_checked_to_their_end(images: Path) -> None:
    labels = images.parent / "labels"
    labels.write_bytes(gzip.compress(idx(LABELS) + b"more"))
    with pytest.raises(DataError, match="labels: data go on after the 6 samples"):
        read(FashionMnist(images, labels), IMAGE)


BYTES = idx(PIXELS)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected an IDX file.*got nothing"),
        (BYTES[:15], "expected an IDX file"),
        (b"\x00\x00\x0d" + BYTES[3:], "starts with 00 00 08 03; got 00 00 0d 03"),
        (idx(LABELS), "3 axes, which starts with 00 00 08 03; got 00 00 08 01"),
        (idx(PIXELS[:0]), r"holds nothing, its shape is \(0, 4, 3\)"),
        (BYTES[:-1], "truncated.*end in sample 5|72 bytes|88 bytes, but it has 87"),
        (BYTES + b"\0", "data go on after the 6 samples|88 bytes, but it has 89"),
        (BYTES[:4] + b"\xff" * 12, r"a sample of \d+ bytes|its header says"),
    ],
)
def test_damaged_files_are_refused(
    *, data: bytes, message: str, zipped: bool, tmp_path: Path
) -> None:
    (tmp_path / "images").write_bytes(gzip.compress(data) if zipped else data)
    with pytest.raises(DataError, match=message):
        read(FashionMnist(tmp_path / "images"), TensorSpec("x", "float32", (None, None, None)))


def test_damaged_compression_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(idx(random((90, 4, 3), "uint8")))
    for data in (whole[:4], whole[:-20], whole[:-8] + bytes(8), whole[:40] + bytes(40)):
        (tmp_path / "images").write_bytes(data)
        with pytest.raises(DataError, match="images"):
            read(FashionMnist(tmp_path / "images"), IMAGE)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"scale": float("nan")}, ConfigError, "must be finite, and 'std' not 0"),
        ({"std": 0}, ConfigError, "must be finite, and 'std' not 0"),
        ({"labels": Path("images")}, DataError, "1 axes"),
        ({"labels": Path("fewer")}, DataError, "different numbers of samples: images 6, fewer 5"),
        ({"images": Path("nowhere")}, DataError, "cannot read nowhere: .*No such file"),
    ],
)
def test_parameters_that_do_not_fit(
    parameters: dict[str, Any],
    error: type[Exception],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_idx(Path("images"), PIXELS)
    write_idx(Path("fewer"), LABELS[:5])
    with pytest.raises(error, match=message):
        read(FashionMnist(**{"images": Path("images"), **parameters}), IMAGE)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "feeds one input, the model has 0 .none.; use 'npz' or 'python'"),
        ([IMAGE, IMAGE], r"the model has 2 \(image, image\)"),
        ([TensorSpec("x", "int64", ("N", 12))], "expected float32 or uint8 to feed pixels to"),
        ([TensorSpec("x", "bfloat16", ("N", 12))], "expected float32 or uint8"),
        (
            [TensorSpec("x", "float32", ("N", 3, 4, 3))],
            r"expected samples of shape \(3, 4, 3\), got \(1, 4, 3\) in images; .*\[N, h \* w\]",
        ),
        ([TensorSpec("x", "float32", (1,))], r"expected samples of shape \(\)"),
    ],
)
def test_inputs_that_take_no_images(inputs: list[TensorSpec], message: str, tmp_path: Path) -> None:
    dataset = FashionMnist(write_idx(tmp_path / "images", PIXELS))
    with pytest.raises(DataError, match=message):
        read(dataset, *inputs)


@pytest.mark.parametrize("zipped", [False, True])
@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_any_damage_is_read_or_refused(
    *, zipped: bool, data: st.DataObject, tmp_path: Path
) -> None:
    """No damage to a file leads to another exception than DataError."""
    damaged = bytearray(gzip.compress(BYTES) if zipped else BYTES)
    for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=4)):
        damaged[at] = data.draw(st.integers(0, 255))
    path = tmp_path / "images"
    path.write_bytes(damaged[: data.draw(st.none() | st.integers(0, len(damaged)))])
    with suppress(DataError):
        assert len(read(FashionMnist(path), IMAGE)) == 6
