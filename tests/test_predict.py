"""``quantlab predict``: an engine's best classes, whatever the backend and however it is given."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

import quantlab as ql
from quantlab import predict
from quantlab.errors import QuantlabError
from quantlab.records import Precision, TensorSpec
from tests.models import write
from tests.runs import COMMAND, configured, network, outputs, quantlab, samples, workspace

NAMES = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen")
SMALL = {"benchmark": None, "engines": {"backend": "openvino", "precisions": ["fp32", "int8"]}}
ROW = re.compile(r"^ +(\d+) +([\d.]+) %  (.+)  \(([-\d.e+]+)\)$", re.M)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with OpenVINO, on arrays."""
    folder = tmp_path_factory.mktemp("npz")
    (folder / "names.txt").write_text("\n".join(NAMES))
    evaluation = {"kind": "npz", "path": "eval.npz", "class_names": "names.txt"}
    ql.run(workspace(folder, {**SMALL, "evaluation.dataset": evaluation}))
    return folder / "run"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on folders of pictures, without evaluation; only the engines are there."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(3)
    for name in NAMES:
        for number in range(2):
            path = folder / "images" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (12, 10, 3), np.uint8)).save(path)
    write(network(), folder / "model.onnx")
    dataset = {"kind": "image_folder", "path": "images", "resize": [8, 8], "mean": 0.5, "std": 0.25}
    changes = {"calibration.dataset": dataset, "evaluation": None, "benchmark": None}
    config = configured(folder, {**changes, "engines.precisions": ["fp32", "fp16"]})
    ql.calibrate(config)
    ql.build(config)
    return folder / "run"


def expected(run: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    return outputs(run / "prepared.onnx", {"x": x})


def test_the_command_prints_the_best_classes_by_name(run: Path, tmp_path: Path) -> None:
    x = samples(seed=5, count=1)
    np.save(tmp_path / "x.npy", x[0])
    options = ("--input", tmp_path / "x.npy", "--precision", "fp32", "--top", "3")
    command = [str(each) for each in (COMMAND, "predict", run, *options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    title, origin, *_ = done.stdout.splitlines()
    assert title.startswith("fp32: openvino ")
    assert origin == str(tmp_path / "x.npy")
    (scores,) = expected(run, x)
    best = np.argsort(-scores)[:3]
    found = ROW.findall(done.stdout)
    assert [rank for rank, *_ in found] == ["1", "2", "3"]
    assert [name for _, _, name, _ in found] == [NAMES[i] for i in best]
    chances = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    for (_, percent, _, score), i in zip(found, best, strict=True):
        assert float(score) == pytest.approx(float(scores[i]), rel=1e-3)
        assert float(percent) == pytest.approx(100 * float(chances[i]), abs=0.01)


def test_int8_is_the_default_and_a_batch_is_printed_sample_by_sample(
    run: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", samples(seed=6, count=3))
    outcome = quantlab("predict", run, "-i", tmp_path / "x.npy", "--top", 1)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("int8: openvino ")
    assert [f"{tmp_path / 'x.npy'}[{i}]" in outcome.out for i in range(3)] == [True] * 3
    assert len(ROW.findall(outcome.out)) == 3


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_file_of_a_run_folder_is_that_engine(
    run: Path, tmp_path: Path, precision: Precision
) -> None:
    np.save(tmp_path / "x.npy", samples(seed=7, count=1))
    by_file = predict.predict(run / "engines" / f"{precision}.xml", tmp_path / "x.npy")
    by_run = predict.predict(run, tmp_path / "x.npy", precision=precision)
    assert by_file == by_run
    assert by_file.notes == ()


def test_an_engine_file_alone_prints_numbers_and_says_what_is_not_known(
    run: Path, pictures: Path, tmp_path: Path
) -> None:
    x = samples(seed=8, count=2)
    np.save(tmp_path / "x.npy", x)
    for name in ("fp32.xml", "fp32.bin"):
        shutil.copyfile(run / "engines" / name, tmp_path / name)
    shutil.copyfile(pictures / "engines" / "fp32.onnx", tmp_path / "fp32.onnx")
    for name in ("fp32.xml", "fp32.onnx"):
        found = predict.predict(tmp_path / name, tmp_path / "x.npy", top=8)
        best = [sample[0].index for sample in found.samples]
        assert best == expected(run, x).argmax(axis=1).tolist()
        assert {guess.name for guess in found.samples[0]} == {None}
        assert sorted(guess.index for guess in found.samples[0]) == list(range(8))
        assert "class names and preprocessing are not known" in found.notes[0]
    outcome = quantlab("predict", tmp_path / "fp32.onnx", "-i", tmp_path / "x.npy")
    assert "note: class names are not known: classes are printed by number" in outcome.err
    assert re.search(r"^  1 .* %  class \d  \(", outcome.out, re.M)


def test_a_picture_is_read_as_the_dataset_reads_it(pictures: Path) -> None:
    path = pictures.parent / "images" / "dog" / "1.png"
    with Image.open(path) as image:
        pixels = np.asarray(image.resize((8, 8), Image.Resampling.BILINEAR), np.float32)
    x = ((pixels / np.float32(255) - np.float32(0.5)) / np.float32(0.25)).transpose(2, 0, 1)[None]
    found = predict.predict(pictures, path, precision="fp32")
    (scores,) = expected(pictures, np.ascontiguousarray(x))
    assert [guess.name for guess in found.samples[0]] == [NAMES[i] for i in np.argsort(-scores)[:5]]
    assert found.samples[0][0].score == pytest.approx(float(scores.max()), rel=1e-4)
    assert found.notes == ()
    np.save(pictures.parent / "x.npy", x)  # rounded otherwise
    same = predict.predict(pictures, pictures.parent / "x.npy", precision="fp32")
    assert [guess.name for guess in same.samples[0]] == [guess.name for guess in found.samples[0]]


def test_an_image_for_the_shipped_network_is_read_in_grey(tmp_path: Path) -> None:
    from quantlab.datasets.fashion_mnist import FashionMnist

    pixels = np.arange(784, dtype=np.uint8).reshape(28, 28)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    dataset = FashionMnist(tmp_path / "unread", mean=0.25, std=0.5)
    for shape in (("N", 1, 28, 28), (None, 28, 28, 1), ("N", 784)):
        found = dataset.image(tmp_path / "x.png", TensorSpec("image", "float32", shape))
        assert found.shape == shape[1:]
        values = found.reshape(28, 28).astype(np.float64)
        np.testing.assert_allclose(values, (pixels / 255 - 0.25) / 0.5, atol=1e-6)
    with pytest.raises(QuantlabError, match=r"expected samples of shape \(1, 14, 14\)"):
        dataset.image(tmp_path / "x.png", TensorSpec("image", "float32", ("N", 1, 14, 14)))


def test_a_fixed_batch_axis_is_filled_up(tmp_path: Path) -> None:
    model = network()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    write(model, tmp_path / "fp32.onnx")
    for number in (1, 4, 6):
        x = samples(seed=number, count=number)
        np.save(tmp_path / "x.npy", x)
        found = predict.predict(tmp_path / "fp32.onnx", tmp_path / "x.npy", top=1)
        whole = np.resize(x, (8, 3, 8, 8))
        wanted = [outputs(tmp_path / "fp32.onnx", {"x": part}) for part in (whole[:4], whole[4:])]
        best = np.concatenate(wanted).argmax(axis=1)[:number]
        assert [guess.index for (guess,) in found.samples] == best.tolist()


def test_names_that_do_not_fit_the_classes_are_not_used(run: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(run, tmp_path / "run")
    record = json.loads((copied / "evaluation.json").read_text())
    (copied / "evaluation.json").write_text(json.dumps(record | {"class_names": ["one", "two"]}))
    np.save(tmp_path / "x.npy", samples(seed=1, count=1))
    found = predict.predict(copied, tmp_path / "x.npy")
    assert found.notes == ("there are 2 class names for 8 classes: printing numbers",)
    assert found.samples[0][0].name is None


def test_a_run_whose_samples_moved_still_takes_arrays(pictures: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(pictures, tmp_path / "run")
    facts = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps(facts | {"config_folder": str(tmp_path / "gone")}))
    np.save(tmp_path / "x.npy", samples(seed=1, count=1))
    found = predict.predict(copied, tmp_path / "x.npy", precision="fp16")
    assert re.search("class names are not known: cannot read folder .*gone", found.notes[0])
    assert len(found.samples[0]) == 5


@given(
    arrays(np.float64, (3, 7), elements=st.floats(-50, 50)),
    st.floats(0, 1e3),
)
def test_probabilities_are_a_softmax(scores: NDArray[np.float64], shift: float) -> None:
    found = predict.probabilities(scores)
    if scores.min() < 0 or np.abs(scores.sum(axis=1) - 1).max() > predict.SUM:
        np.testing.assert_allclose(found.sum(axis=1), 1)
        np.testing.assert_allclose(found[:, 0] * np.exp(scores[:, 1] - scores[:, 0]), found[:, 1])
        moved = predict.probabilities(scores - shift - 51)
        np.testing.assert_allclose(moved, found, rtol=1e-6)
    else:
        assert found is scores


Give = Callable[[Path, Path], tuple[object, ...]]


def bad() -> Iterator[tuple[str, Give, str]]:
    """Yield what is wrong, the arguments, and what is said."""

    def saved(folder: Path, values: object) -> Path:
        np.save(folder / "x.npy", np.asarray(values))
        return folder / "x.npy"

    def text(folder: Path, name: str, content: str = "text") -> Path:
        (folder / name).write_text(content)
        return folder / name

    good = samples(seed=1, count=1)
    yield "no target", lambda _, t: (t / "no", "-i", saved(t, good)), "no such run folder or engine"
    yield "no run", lambda _, t: (t, "-i", saved(t, good)), "is no run folder: it has no run.json"
    yield "no input", lambda r, t: (r, "-i", t / "y.npy"), "y.npy: there is no such file"
    yield "no array", lambda r, t: (r, "-i", text(t, "x.npy")), "x.npy as .npy: .*numpy.save"
    yield "a picture", lambda r, t: (r, "-i", text(t, "x.png")), "dataset Npz of this run holds arr"
    yield (
        "shape",
        lambda r, t: (r, "-i", saved(t, good[:, :, :4])),
        r"expected samples of shape \(3, 8, 8\), got \(3, 4, 8\).*first axis counts samples",
    )
    yield "rank", lambda r, t: (r, "-i", saved(t, np.float32(1))), "the array's shape is"
    yield "empty", lambda r, t: (r, "-i", saved(t, good[:0])), r"the array's shape is \[0, 3, 8, 8"
    yield "dtype", lambda r, t: (r, "-i", saved(t, good.astype(int))), "expected float32, got int64"
    yield "nan", lambda r, t: (r, "-i", saved(t, good * np.nan)), "values are NaN or infinite"
    yield (
        "precision",
        lambda r, t: (r, "-i", saved(t, good), "--precision", "fp16"),
        "holds no fp16 engine, but fp32, int8; choose with --precision",
    )
    yield (
        "no precision",
        lambda r, t: (r, "-i", saved(t, good), "--precision", "int4"),
        "--precision int4: choose from fp32, fp16, int8",
    )
    yield (
        "two precisions",
        lambda r, t: (r / "engines/int8.xml", "-i", saved(t, good), "--precision", "fp32"),
        "is the int8 engine, and fp32 was asked for",
    )
    yield "ending", lambda _, t: (text(t, "x.txt"), "-i", saved(t, good)), "got .txt"
    yield "half", lambda _, t: (text(t, "a.xml"), "-i", saved(t, good)), "a.bin must lie beside it"
    yield "plan", lambda _, t: (text(t, "a.plan"), "-i", saved(t, good)), "its manifest a.plan.json"
    yield "model", lambda _, t: (text(t, "a.onnx"), "-i", saved(t, good)), "cannot load a.onnx"
    yield (
        "damaged",
        lambda r, t: (text(shutil.copytree(r, t / "r"), "run.json", "{"), "-i", saved(t, good)),
        "run.json",
    )


@pytest.mark.parametrize(("give", "says"), [pytest.param(g, s, id=n) for n, g, s in bad()])
def test_bad_input_is_one_message(run: Path, tmp_path: Path, give: Give, says: str) -> None:
    target, *rest = give(run, tmp_path)
    if isinstance(target, Path) and target.name == "run.json":
        target = target.parent
    outcome = quantlab("predict", target, *rest)
    assert outcome.code == 2
    assert outcome.out == ""
    assert re.search(f"quantlab: .*{says}", outcome.err)


def test_an_engine_that_was_changed_is_not_run(run: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(run, tmp_path / "run")
    path = copied / "engines" / "int8.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    np.save(tmp_path / "x.npy", samples(seed=1, count=1))
    outcome = quantlab("predict", copied, "-i", tmp_path / "x.npy")
    assert outcome.code == 2
    assert "changed since it was built" in outcome.err
