"""ImageFolder on files that are no images, damaged or hostile; and its threads."""

import io
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from quantlab.datasets.base import Array
from quantlab.datasets.batching import batches, take
from quantlab.datasets.image_folder import LOOK_AHEAD, Entry, ImageFolder, ahead
from quantlab.errors import DataError
from tests.datasets.files import PIXELS, assert_same, one_image, read, save_image


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Make a folder of five images, the second and the last unreadable."""
    for name in "aceg":
        save_image(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_text("not an image")
    (tmp_path / "g.png").write_bytes((tmp_path / "a.png").read_bytes()[:100])
    return tmp_path


def test_an_unreadable_image_is_named(mixed: Path) -> None:
    with pytest.raises(DataError, match=r"b.png: not a BMP, .*image; repair it, or set 'on_error"):
        read(ImageFolder(mixed), PIXELS)


def test_skipped_images_are_counted_and_listed_once(mixed: Path) -> None:
    with ImageFolder(mixed, on_error="skip").open([PIXELS]) as samples:
        assert take(samples, None) == 5
        for _ in range(2):
            assert [sample.origin for sample in samples] == ["a.png", "c.png", "e.png"]
            assert len(samples.skipped) == 2
            assert samples.skipped[0].startswith("b.png: not a BMP")
            assert samples.skipped[1].startswith("g.png: cannot be decoded")
            assert len(samples) == 5
        (batch,) = batches(samples.part(0, 5), [PIXELS], size=8, count=5)
        assert list(batch.indices) == [0, 2, 3]


@given(st.lists(st.integers(0, 5), min_size=3, max_size=3).map(sorted))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_skipped_images_leave_gaps_in_every_part(mixed: Path, cuts: list[int]) -> None:
    start, cut, stop = cuts
    with ImageFolder(mixed, on_error="skip").open([PIXELS]) as samples:
        later = list(samples.part(cut, stop))  # parts may be read in any order
        found = [*samples.part(start, cut), *later]
        assert [sample.index for sample in found] == [i for i in (0, 2, 3) if start <= i < stop]
        assert_same(found, samples.part(start, stop))
        names = [reason.split(":")[0] for reason in samples.skipped]
        assert names == [name for at, name in ((1, "b.png"), (4, "g.png")) if start <= at < stop]


def test_a_part_in_which_every_image_was_skipped(mixed: Path) -> None:
    with ImageFolder(mixed, on_error="skip").open([PIXELS]) as samples:
        part = samples.part(4, 5)
        assert list(batches(part, [PIXELS], size=2, count=1, empty_ok=True)) == []
        assert len(samples.skipped) == 1
        with pytest.raises(DataError, match="holds no samples"):
            list(batches(samples.part(4, 5), [PIXELS], size=2, count=1))


def test_a_part_does_not_read_the_images_before_and_behind_it(mixed: Path) -> None:
    with ImageFolder(mixed).open([PIXELS]) as samples:
        assert [sample.origin for sample in samples.part(2, 4)] == ["c.png", "e.png"]


def test_a_folder_of_nothing_readable_is_an_error(mixed: Path) -> None:
    for name in "ace":
        (mixed / f"{name}.png").write_bytes(b"")
    with (
        ImageFolder(mixed, on_error="skip").open([PIXELS]) as samples,
        pytest.raises(DataError, match="holds no samples"),
    ):
        list(batches(samples, [PIXELS], size=2))


@pytest.mark.parametrize("pixels", [70 << 20, 1 << 27, 1 << 31])
def test_decompression_bombs_are_refused(pixels: int, tmp_path: Path) -> None:
    header = f"P5 {1 << 14} {pixels >> 14} 255\n".encode()
    (tmp_path / "a.pgm").write_bytes(header + bytes(100))
    with pytest.raises(DataError, match=r"a.pgm: .*(too large|decompression bomb)"):
        one_image(tmp_path)


def test_resizing_is_bounded(tmp_path: Path) -> None:
    Image.new("L", (100_000, 1)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a.png: 25600000 x 256 pixels once resized; too large"):
        one_image(tmp_path, resize=256)


def test_formats_that_run_programs_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n%%EndComments\nshowpage\n"
    )
    with pytest.raises(DataError, match=r"a.png: not a BMP"):
        one_image(tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of odd metadata and goes on
@pytest.mark.parametrize("suffix", ["bmp", "jpeg", "png", "ppm", "tiff", "webp"])
@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_damage_is_read_or_refused(*, suffix: str, data: st.DataObject, tmp_path: Path) -> None:
    """No damage to a file leads to another exception than DataError."""
    file = io.BytesIO()
    Image.fromarray(np.arange(144, dtype=np.uint8).reshape(6, 8, 3)).save(file, suffix)
    damaged = bytearray(file.getvalue())
    for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=6)):
        damaged[at] = data.draw(st.integers(0, 255))
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(damaged[: data.draw(st.none() | st.integers(0, len(damaged)))])
    with suppress(DataError):
        assert one_image(tmp_path, resize=[4, 4]).shape == (3, 4, 4)


@pytest.mark.parametrize("workers", [1, 3])
def test_decoding_ahead_is_bounded_ordered_and_stops(workers: int) -> None:
    entries = [Entry(Path(str(at)), str(at), at) for at in range(50)]
    started = []
    lock = threading.Lock()

    def decode(entry: Entry) -> Array:
        with lock:
            started.append(entry.label)
        return np.array(entry.label)

    results = ahead(decode, entries, workers)
    for at in range(20):
        entry, image = next(results)
        assert entry.label == at == int(image.result())
        assert len(started) <= at + 1 + LOOK_AHEAD * workers
    results.close()  # type: ignore[attr-defined]  # a generator
    assert len(started) <= 20 + LOOK_AHEAD * workers
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
