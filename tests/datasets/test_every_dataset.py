"""What every dataset in DATASETS promises, whatever it reads."""

import gzip
import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from quantlab.datasets import DATASETS
from quantlab.datasets.base import Array, Dataset
from quantlab.datasets.batching import batches
from quantlab.datasets.fingerprint import Fingerprint
from quantlab.errors import ConfigError, DataError
from quantlab.records import TensorSpec
from quantlab.registry import make, schema
from tests.datasets.files import (
    IMAGE,
    Save,
    assert_same,
    idx,
    random,
    savez,
    savez_compressed,
)

COUNT = 7
NAMES = ("boot", "coat", "dress")


@dataclass(frozen=True)
class Case:
    """Parameters of a dataset of COUNT samples in a folder, and what it must give."""

    parameters: dict[str, Any]
    inputs: tuple[TensorSpec, ...]
    expected: Mapping[str, Array]
    labels: Array
    shardable: bool = True


def npz_case(folder: Path, *, save: Save = savez) -> Case:
    tokens = TensorSpec("tokens", "int64", ("N", 5))
    arrays = {"image": random((COUNT, 1, 4, 3)), "tokens": random((COUNT, 5), "int64")}
    save(folder / "data.npz", labels=LABELS, **arrays)
    return Case({"path": "data.npz"}, (IMAGE, tokens), arrays, LABELS)


def numbered_npz_case(folder: Path) -> Case:
    image = random((COUNT, 1, 4, 3))
    parts = {f"image.{at:05}": image[at : at + 1] for at in range(COUNT)}
    savez(folder / "data.npz", labels=LABELS, **parts)
    return Case({"path": "data.npz"}, (IMAGE,), {"image": image}, LABELS)


def fashion_mnist_case(folder: Path, *, pack: Callable[[bytes], bytes] = bytes) -> Case:
    pixels = random((COUNT, 4, 3), "uint8")
    (folder / "images").write_bytes(pack(idx(pixels)))
    (folder / "labels").write_bytes(pack(idx(LABELS.astype(np.uint8))))
    expected = {"image": pixels[:, None].astype(np.float32) * np.float32(1 / 255)}
    return Case({"images": "images", "labels": "labels"}, (IMAGE,), expected, LABELS)


def image_folder_case(folder: Path) -> Case:
    pixels = random((COUNT, 4, 3), "uint8")
    order = np.sort(LABELS)  # images come class by class
    for at, label in enumerate(order):
        place = folder / "data" / NAMES[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[at]).save(place / f"{at}.png")
    expected = {"image": pixels[:, None].astype(np.float32) * np.float32(1 / 255)}
    return Case({"path": "data", "colour": "gray"}, (IMAGE,), expected, order)


def python_case(folder: Path, *, ranged: bool = False) -> Case:
    image = random((COUNT, 1, 4, 3))
    np.save(folder / "image.npy", image)
    (folder / "loader.py").write_text(
        "import numpy as np\n"
        f"def batches(path, labels{', start=0, stop=None' if ranged else ''}):\n"
        f"    part = {'slice(start, stop)' if ranged else 'slice(None)'}\n"
        "    image, labels = np.load(path)[part], labels[part]\n"
        "    for at in range(0, len(image), 3):\n"
        "        yield {'image': image[at:at + 3], 'labels': np.array(labels[at:at + 3])}\n"
    )
    arguments = {"path": str(folder / "image.npy"), "labels": LABELS.tolist()}
    parameters = {"function": "loader.py:batches", "arguments": arguments}
    return Case(parameters, (IMAGE,), {"image": image}, LABELS, shardable=ranged)


LABELS = np.array([2, 0, 1, 1, 0, 2, 2], np.int64)
Make = Callable[[Path], Case]
CASES: dict[str, dict[str, Make]] = {
    "npz": {
        "mapped": npz_case,
        "compressed": partial(npz_case, save=savez_compressed),
        "numbered": numbered_npz_case,
    },
    "fashion_mnist": {
        "mapped": fashion_mnist_case,
        "gzipped": partial(fashion_mnist_case, pack=gzip.compress),
    },
    "image_folder": {"classes": image_folder_case},
    "python": {"run through": python_case, "asked": partial(python_case, ranged=True)},
}


@pytest.fixture(params=[(kind, way) for kind in DATASETS for way in CASES[kind]], ids=", ".join)
def way(request: pytest.FixtureRequest) -> tuple[str, str]:
    kind, way = request.param
    return kind, way


@pytest.fixture
def kind(way: tuple[str, str]) -> str:
    return way[0]


@pytest.fixture
def case(way: tuple[str, str], tmp_path: Path) -> Case:
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    made = CASES[way[0]][way[1]](tmp_path)
    return replace(made, parameters={**made.parameters, "class_names": "names.txt"})


@pytest.fixture
def dataset(kind: str, case: Case, tmp_path: Path) -> Dataset:
    return make("dataset", DATASETS, kind, case.parameters, base=tmp_path)


def test_every_sample_comes_once_in_order_and_the_same_again(dataset: Dataset, case: Case) -> None:
    with dataset.open(case.inputs) as samples:
        assert len(samples) == COUNT
        assert samples.class_names == NAMES
        assert samples.skipped == ()
        for _ in range(2):
            seen = list(samples)
            assert [sample.index for sample in seen] == list(range(COUNT))
            assert len({sample.origin for sample in seen}) == COUNT
            for name, expected in case.expected.items():
                found = np.stack([sample.arrays[name] for sample in seen])
                np.testing.assert_array_equal(found, expected, strict=True)
            labels = np.stack([np.asarray(sample.label) for sample in seen])
            np.testing.assert_array_equal(labels, case.labels, strict=True)


@given(st.lists(st.integers(0, COUNT), min_size=3, max_size=3).map(sorted))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_parts_put_together_are_the_whole(dataset: Dataset, case: Case, cuts: list[int]) -> None:
    start, cut, stop = cuts
    with dataset.open(case.inputs) as samples:
        assert samples.shardable == case.shardable
        later = list(samples.part(cut, stop))  # read first: no part needs another
        found = [*samples.part(start, cut), *later]
        assert [sample.index for sample in found] == list(range(start, stop))
        assert_same(found, samples.part(start, stop))
        assert_same(found, list(samples)[start:stop])


@pytest.mark.parametrize(("start", "stop"), [(3, 3), (5, 2), (COUNT, COUNT + 9), (-4, -2)])
def test_a_part_without_places_is_empty(
    dataset: Dataset, case: Case, start: int, stop: int
) -> None:
    with dataset.open(case.inputs) as samples:
        assert list(samples.part(start, stop)) == []


def test_a_part_holds_no_place_that_is_not_there(dataset: Dataset, case: Case) -> None:
    with dataset.open(case.inputs) as samples:
        assert_same(samples.part(-3, COUNT + 3), samples)


def test_a_part_can_be_left_in_the_middle(dataset: Dataset, case: Case) -> None:
    with dataset.open(case.inputs) as samples:
        left = samples.part(1, COUNT)
        assert next(left).index == 1
        assert [sample.index for sample in samples.part(2, 4)] == [2, 3]
        assert next(left).index == 2


def test_two_passes_at_once_do_not_disturb_each_other(dataset: Dataset, case: Case) -> None:
    with dataset.open(case.inputs) as samples:
        for one, other in zip(samples, samples, strict=True):
            assert one.index == other.index
            np.testing.assert_array_equal(one.arrays["image"], other.arrays["image"])


@pytest.mark.parametrize("size", [1, 3, 100])
def test_batches_fit_the_model_and_hash_alike(dataset: Dataset, case: Case, size: int) -> None:
    whole, parts = Fingerprint(), Fingerprint()
    with dataset.open(case.inputs) as samples:
        for batch in batches(samples, case.inputs, size=COUNT):
            whole.add(batch)
        for batch in batches(samples, case.inputs, size=size):
            parts.add(batch)
            for spec in case.inputs:
                assert batch.arrays[spec.name].dtype == spec.dtype
                assert batch.arrays[spec.name].shape == (batch.size, *spec.shape[1:])
    assert whole.hexdigest() == parts.hexdigest()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dtype": "int32"}, r"image int32\[N, 1, 4, 3\]"),
        ({"shape": ("N", 1, 8, 8)}, r"expected samples of shape \(1, 8, 8\)"),
    ],
)
def test_what_does_not_fit_is_refused(
    dataset: Dataset, case: Case, changed: dict[str, Any], message: str
) -> None:
    inputs = (replace(case.inputs[0], **changed), *case.inputs[1:])
    with pytest.raises(DataError, match=message), dataset.open(inputs) as samples:
        list(samples)


def test_an_input_without_data_is_named(dataset: Dataset, case: Case) -> None:
    missing = TensorSpec("state", "float32", ("N", 4))
    with (
        pytest.raises(DataError, match="state"),
        dataset.open((*case.inputs, missing)) as samples,
    ):
        list(samples)


def test_a_missing_file_is_named(kind: str, case: Case, tmp_path: Path) -> None:
    dataset = make("dataset", DATASETS, kind, case.parameters, base=tmp_path / "moved")
    with (
        pytest.raises((DataError, ConfigError), match="moved"),
        dataset.open(case.inputs) as samples,
    ):
        list(samples)


def test_the_folder_cannot_be_imported_under_the_name_of_another_project() -> None:
    folder = Path(__file__).parents[2] / "datasets"
    with pytest.raises(ImportError, match=r"is the package quantlab.datasets"):
        SourceFileLoader("datasets", str(folder / "__init__.py")).exec_module(
            ModuleType("datasets")
        )


def test_datasets_cross_processes_and_have_a_schema(kind: str, dataset: Dataset) -> None:
    assert pickle.loads(pickle.dumps(dataset)) == dataset  # noqa: S301  # our own bytes
    assert json.loads(json.dumps(schema(DATASETS[kind])))["additionalProperties"] is False
