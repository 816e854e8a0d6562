"""What every dataset in DATASETS promises, whatever it reads."""

import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from quantlab.datasets import DATASETS
from quantlab.datasets.base import Array, Dataset
from quantlab.datasets.batching import batches
from quantlab.datasets.fingerprint import Fingerprint
from quantlab.errors import ConfigError, DataError
from quantlab.records import TensorSpec
from quantlab.registry import make, schema
from tests.datasets.files import IMAGE, idx, random, savez

COUNT = 7
NAMES = ("boot", "coat", "dress")


@dataclass(frozen=True)
class Case:
    """Parameters of a dataset of COUNT samples in a folder, and what it must give."""

    parameters: dict[str, Any]
    inputs: tuple[TensorSpec, ...]
    expected: Mapping[str, Array]
    labels: Array


def npz_case(folder: Path) -> Case:
    tokens = TensorSpec("tokens", "int64", ("N", 5))
    arrays = {"image": random((COUNT, 1, 4, 3)), "tokens": random((COUNT, 5), "int64")}
    savez(folder / "data.npz", labels=LABELS, **arrays)
    return Case({"path": "data.npz"}, (IMAGE, tokens), arrays, LABELS)


def fashion_mnist_case(folder: Path) -> Case:
    pixels = random((COUNT, 4, 3), "uint8")
    (folder / "images").write_bytes(idx(pixels))
    (folder / "labels").write_bytes(idx(LABELS.astype(np.uint8)))
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


def python_case(folder: Path) -> Case:
    image = random((COUNT, 1, 4, 3))
    np.save(folder / "image.npy", image)
    (folder / "loader.py").write_text(
        "import numpy as np\n"
        "def batches(path, labels):\n"
        "    image = np.load(path)\n"
        "    for at in range(0, len(image), 3):\n"
        "        yield {'image': image[at:at + 3], 'labels': np.array(labels[at:at + 3])}\n"
    )
    arguments = {"path": str(folder / "image.npy"), "labels": LABELS.tolist()}
    parameters = {"function": "loader.py:batches", "arguments": arguments}
    return Case(parameters, (IMAGE,), {"image": image}, LABELS)


LABELS = np.array([2, 0, 1, 1, 0, 2, 2], np.int64)
CASES: dict[str, Callable[[Path], Case]] = {
    "npz": npz_case,
    "fashion_mnist": fashion_mnist_case,
    "image_folder": image_folder_case,
    "python": python_case,
}


@pytest.fixture(params=DATASETS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def case(kind: str, tmp_path: Path) -> Case:
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    made = CASES[kind](tmp_path)
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
