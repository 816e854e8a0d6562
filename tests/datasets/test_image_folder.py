"""ImageFolder: which files, in which order, and what becomes of their pixels."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from quantlab.datasets import DATASETS
from quantlab.datasets.base import Sample
from quantlab.datasets.image_folder import ImageFolder
from quantlab.errors import ConfigError, DataError
from quantlab.records import TensorSpec
from quantlab.registry import make
from tests.datasets.files import PIXELS, one_image, random, read, save_image


def labelled(samples: list[Sample]) -> list[tuple[str, int | None]]:
    return [(each.origin, None if each.label is None else int(each.label)) for each in samples]


# Which files


def test_class_folders_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("dog/b.png", "cat/2.png", "cat/10.PNG", "cat/deep/er/1.jpg", "Ant/x.webp"):
        save_image(tmp_path / name)
    (tmp_path / "dog" / ".hidden").write_text("")
    save_image(tmp_path / ".cache" / "thumb.png")
    with ImageFolder(tmp_path).open([PIXELS]) as samples:
        assert samples.class_names == ("Ant", "cat", "dog")
        assert labelled(list(samples)) == [
            ("Ant/x.webp", 0),
            ("cat/10.PNG", 1),
            ("cat/2.png", 1),
            ("cat/deep/er/1.jpg", 1),
            ("dog/b.png", 2),
        ]


def test_class_names_give_the_indices(tmp_path: Path) -> None:
    save_image(tmp_path / "data" / "cat" / "1.png")
    save_image(tmp_path / "data" / "dog" / "1.png")
    names = tmp_path / "names.txt"
    names.write_text("dog\neel\ncat")
    dataset = ImageFolder(tmp_path / "data", class_names=names)
    assert labelled(read(dataset, PIXELS)) == [("cat/1.png", 2), ("dog/1.png", 0)]
    names.write_text("dog\neel")
    with pytest.raises(DataError, match="folder 'cat' is not in the class names"):
        read(dataset, PIXELS)
    names.write_text("dog\ncat\ndog")
    with pytest.raises(DataError, match="two classes have the same name"):
        read(dataset, PIXELS)


def test_a_flat_folder_is_unlabelled_and_lists_what_it_passes_over(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg"):
        save_image(tmp_path / name)
    (tmp_path / "README.txt").write_text("about")
    with ImageFolder(tmp_path).open([PIXELS]) as samples:
        assert labelled(list(samples)) == [("a.jpg", None), ("b.png", None)]
        assert samples.skipped == ("README.txt: not named like an image",)
        assert len(samples) == 2
        assert samples.class_names is None


def test_images_beside_class_folders_are_refused(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png")
    save_image(tmp_path / "cat" / "a.png")
    with pytest.raises(DataError, match=r"a.png lies beside class folders"):
        read(ImageFolder(tmp_path), PIXELS)


def test_folders_without_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        read(ImageFolder(tmp_path), PIXELS)
    with pytest.raises(DataError, match=r"cannot read folder .*gone: No such file"):
        read(ImageFolder(tmp_path / "gone"), PIXELS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("b.png,3\na/c.png,0\n", [("b.png", 3), ("a/c.png", 0)]),
        ("path,label\nb.png , 3\n\nb.png,0", [("b.png", 3), ("b.png", 0)]),
        ("Path\nb.png\na/c.png", [("b.png", None), ("a/c.png", None)]),
        ("b.png,dog\na/c.png,cat", [("b.png", 1), ("a/c.png", 0)]),
        ('"b.png","big, dog"\r\n"a/c.png",cat', [("b.png", 0), ("a/c.png", 1)]),
        ("a/../b.png,1", [("a/../b.png", 1)]),
    ],
)
def test_csv(text: str, expected: list[tuple[str, int | None]], tmp_path: Path) -> None:
    save_image(tmp_path / "data" / "b.png")
    save_image(tmp_path / "data" / "a" / "c.png")
    (tmp_path / "list.csv").write_text(text, newline="")
    dataset = ImageFolder(tmp_path / "data", csv=tmp_path / "list.csv")
    assert labelled(read(dataset, PIXELS)) == expected


def test_csv_labels_by_class_names(tmp_path: Path) -> None:
    save_image(tmp_path / "b.png")
    (tmp_path / "names.txt").write_text("eel\ndog")
    (tmp_path / "list.csv").write_text("b.png,dog")
    dataset = ImageFolder(tmp_path, csv=tmp_path / "list.csv", class_names=tmp_path / "names.txt")
    with dataset.open([PIXELS]) as samples:
        assert labelled(list(samples)) == [("b.png", 1)]
        assert samples.class_names == ("eel", "dog")
    (tmp_path / "list.csv").write_text("b.png,wolf")
    with pytest.raises(
        DataError, match=r"label 'wolf' is neither a class index .* nor a class name"
    ):
        read(dataset, PIXELS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no images"),
        ("path,label\n", "no images"),
        ("b.png,1\nb.png", "row 2 has 1 columns"),
        ("b.png,1,2", "row 1 has 3 columns"),
        ("b.png,-1", "class index >= 0, got -1"),
        ("b.png,1.5", "label '1.5' is neither"),
        ("b.png,nan", "label 'nan' is neither"),
        ("b.png,1\nb.png,cat", "label '1' is neither"),
        (",1", "row 1: no path"),
        ('"b.png,1', "not a CSV file"),
        ('"b".png,1', "not a CSV file"),
        ("../secret.png,1", "row 1: '../secret.png' is outside the folder"),
        ("a/../../secret.png,1", "outside the folder"),
        ("/etc/hostname,1", "'/etc/hostname' is outside the folder"),
        ("link.png,1", "'link.png' is outside the folder"),
        ("b\0.png,1", "no path|not a CSV file"),
        ("c.png,1", r"c.png: cannot be decoded; .*No such file"),
    ],
)
def test_bad_csv(text: str, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    save_image(folder / "b.png")
    save_image(tmp_path / "secret.png")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read(ImageFolder(folder, csv=tmp_path / "list.csv"), PIXELS)


# What becomes of their pixels


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".tif"])
def test_pixels_of_lossless_files_come_as_they_are(suffix: str, tmp_path: Path) -> None:
    pixels = random((6, 8, 3), "uint8")
    save_image(tmp_path / f"a{suffix}", pixels)
    found = one_image(tmp_path, layout="nhwc")
    np.testing.assert_array_equal(found, pixels, strict=True)
    np.testing.assert_array_equal(one_image(tmp_path), pixels.transpose(2, 0, 1), strict=True)
    np.testing.assert_array_equal(
        one_image(tmp_path, layout="nhwc", colour="bgr"), pixels[..., ::-1]
    )


def test_grey(tmp_path: Path) -> None:
    pixels = random((6, 8), "uint8")
    save_image(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(one_image(tmp_path, colour="gray"), pixels[None], strict=True)
    np.testing.assert_array_equal(one_image(tmp_path), np.stack([pixels] * 3), strict=True)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
@pytest.mark.parametrize(("colour", "channels"), [("rgb", 3), ("gray", 1)])
def test_every_8_bit_mode(mode: str, colour: str, channels: int, tmp_path: Path) -> None:
    suffix = "tif" if mode in ("CMYK", "YCbCr") else "png"
    Image.new("RGB", (8, 6), (204, 204, 204)).convert(mode).save(tmp_path / f"a.{suffix}")
    found = one_image(tmp_path, colour=colour)
    assert found.shape == (channels, 6, 8)
    expected = 255 if mode == "1" else 204  # one bit a pixel: mostly white
    assert np.abs(np.median(found) - expected) <= 2


def test_transparency_is_dropped(tmp_path: Path) -> None:
    image = Image.new("P", (8, 6), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "a.png", transparency=bytes([0, 128]))
    assert one_image(tmp_path)[:, 0, 0].tolist() == [10, 20, 30]


def test_deeper_images_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((6, 8), 40000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a.png: deeper than 8 bits; feed it with 'npz'"):
        one_image(tmp_path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(orientation: int, tmp_path: Path) -> None:
    upright = random((6, 8), "uint8")
    stored = {  # how a camera stores `upright` under each value of EXIF tag 274
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    save_image(tmp_path / "a.png", np.ascontiguousarray(stored), exif=exif)
    np.testing.assert_array_equal(one_image(tmp_path, colour="gray")[0], upright)


@pytest.mark.parametrize(
    ("size", "resize", "crop", "expected"),
    [
        ((500, 375), 256, 224, (224, 224)),
        ((375, 500), 256, None, (341, 256)),
        ((500, 375), 256, None, (256, 341)),
        ((500, 375), [224, 160], None, (224, 160)),
        ((500, 375), [256, 256], [200, 100], (200, 100)),
        ((500, 375), None, 300, (300, 300)),
        ((10, 10), 20, 20, (20, 20)),
    ],
)
def test_sizes(
    size: tuple[int, int], resize: Any, crop: Any, expected: tuple[int, int], tmp_path: Path
) -> None:
    Image.new("RGB", size).save(tmp_path / "a.png")
    assert one_image(tmp_path, resize=resize, crop=crop).shape == (3, *expected)


def test_the_crop_is_the_centre(tmp_path: Path) -> None:
    pixels = random((7, 10), "uint8")
    save_image(tmp_path / "a.png", pixels)
    found = one_image(tmp_path, crop=[4, 5], colour="gray")
    np.testing.assert_array_equal(found[0], pixels[2:6, 2:7])  # round(1.5) = 2, round(2.5) = 2


def test_a_crop_larger_than_the_image_is_refused_never_padded(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a.png: a crop of 7 x 7 does not fit into 6 x 8"):
        one_image(tmp_path, crop=7, on_error="skip")


def test_interpolation(tmp_path: Path) -> None:
    pixels = np.array([[0, 255]] * 2, np.uint8)
    save_image(tmp_path / "a.png", pixels)
    nearest = one_image(tmp_path, resize=[4, 4], colour="gray", interpolation="nearest")
    assert nearest[0].tolist() == [[0, 0, 255, 255]] * 4
    bilinear = one_image(tmp_path, resize=[4, 4], colour="gray")
    assert bilinear[0].tolist() == [[0, 64, 191, 255]] * 4


def test_normalization_per_channel(tmp_path: Path) -> None:
    pixels = random((6, 8, 3), "uint8")
    save_image(tmp_path / "a.png", pixels)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    found = one_image(tmp_path, PIXELS, mean=mean, std=std, layout="nhwc", colour="bgr")
    expected = (pixels[..., ::-1] / 255 - mean) / std
    assert found.dtype == np.float32
    # float32: three operations of half a unit each, on values below 3, cancellation included
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"mean": [0.5, 0.5]}, "'mean' has 2 values.*3 channels"),
        ({"std": [1, 1, 1], "colour": "gray"}, "'std' has 3 values.*1 channels"),
        ({"std": [1, 0, 1]}, "'std' not 0"),
        ({"resize": 0}, "'resize' is 0; sizes are at least 1"),
        ({"crop": [5, -1]}, r"'crop' is \(5, -1\)"),
        ({"resize": [1, 2, 3]}, "resize"),
        ({"workers": 0}, "'workers' is 0"),
        ({"colour": "rgba"}, "colour"),
        ({"size": 3}, "no parameter 'size'"),
    ],
)
def test_bad_parameters(parameters: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        make("dataset", DATASETS, "image_folder", {"path": tmp_path, **parameters})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (replace(PIXELS, dtype="int64"), "expected float32 or uint8"),
        (
            replace(PIXELS, shape=("N", 3, 224, 224)),
            r"expected samples of shape \(3, 224, 224\), got \(3, 6, 8\) in a.png; set 'resize'",
        ),
        (replace(PIXELS, shape=("N", 6, 8, 3)), "'layout' to what the model takes"),
        (replace(PIXELS, shape=("N", 48)), r"expected samples of shape \(48\)"),
    ],
)
def test_inputs_that_do_not_fit(spec: TensorSpec, message: str, tmp_path: Path) -> None:
    save_image(tmp_path / "a.png")
    with pytest.raises(DataError, match=message):
        read(ImageFolder(tmp_path, on_error="skip"), spec)
