"""PythonDataset calls the user's function and checks what it yields."""

import json
import sys
from pathlib import Path
from textwrap import dedent, indent

import numpy as np
import pytest

from quantlab.datasets.base import Sample
from quantlab.datasets.batching import batches
from quantlab.datasets.python import PythonDataset
from quantlab.errors import ConfigError, DataError
from quantlab.records import TensorSpec
from tests.datasets.files import stacked

X = TensorSpec("x", "float32", ("N", 2))
STATE = TensorSpec("state", "int64", ("N",))

LOADER = r"""
import json
from pathlib import Path
import numpy as np

def load(SIGNATURE):
    given = dict(locals())
    with Path(__file__).with_name("calls").open("a") as calls:
        calls.write(json.dumps(given) + "\n")
    start, stop = given.get("start", 0), given.get("stop")
    for at in range(start, 6 if stop is None else stop):
        yield np.full((1, 2), at, np.float32), [at]
"""

BATCH = "np.arange(6, dtype=np.float32).reshape(3, 2)"


def dataset(folder: Path, body: str, *, name: str = "loader.py") -> PythonDataset:
    code = f"import numpy as np\n\ndef load():\n{indent(dedent(body), '    ')}\n"
    (folder / name).write_text(code)
    return PythonDataset(f"{name}:load", folder=folder)


def read(source: PythonDataset, *inputs: TensorSpec) -> list[Sample]:
    with source.open(inputs or (X,)) as samples:
        return list(samples)


def values(samples: list[Sample]) -> list[list[float]]:
    return [sample.arrays["x"].tolist() for sample in samples]


@pytest.mark.parametrize(
    "body",
    [
        f"yield {{'x': {BATCH}}}",
        f"yield {BATCH}",
        f"return [{BATCH}[:1], {BATCH}[1:]]",
        f"yield {BATCH}[:0]; yield {BATCH}",
        f"yield {BATCH}.astype(np.float16)",
        f"return iter(({BATCH},))",
        f"yield [np.float32([0, 1]), {BATCH}[1], {BATCH}[2]]",
    ],
)
def test_batches_of_one_input(body: str, tmp_path: Path) -> None:
    samples = read(dataset(tmp_path, body))
    assert values(samples) == [[0, 1], [2, 3], [4, 5]]
    assert [sample.label for sample in samples] == [None] * 3
    assert [sample.arrays["x"].dtype for sample in samples] == [np.float32] * 3


@pytest.mark.parametrize(
    "body",
    [
        f"yield {{'x': {BATCH}, 'labels': np.array([2, 0, 1])}}",
        f"yield {BATCH}, [2, 0, 1]",
    ],
)
def test_batches_with_labels(body: str, tmp_path: Path) -> None:
    samples = read(dataset(tmp_path, body))
    assert [np.asarray(sample.label).tolist() for sample in samples] == [2, 0, 1]
    assert samples[1].origin == "loader.py:load[1]"


def test_several_inputs_and_an_input_named_labels(tmp_path: Path) -> None:
    source = dataset(tmp_path, f"yield {{'x': {BATCH}, 'labels': np.arange(3)}}")
    samples = read(source, X, TensorSpec("labels", "int64", ("N",)))
    assert [int(sample.arrays["labels"]) for sample in samples] == [0, 1, 2]
    assert samples[0].label is None


def test_shapes_may_change_from_batch_to_batch(tmp_path: Path) -> None:
    body = "for n in (3, 5, 3):\n    yield np.full((2, n), n, np.float32)"
    spec = TensorSpec("x", "float32", ("N", "S"))
    with dataset(tmp_path, body).open([spec]) as samples:
        found = list(batches(samples, [spec], size=4))
    assert [batch.arrays["x"].shape for batch in found] == [(4, 3), (2, 5)]
    assert [list(batch.indices) for batch in found] == [[0, 1, 4, 5], [2, 3]]


def test_a_generator_may_fill_the_same_memory_again(tmp_path: Path) -> None:
    body = """
        memory = np.empty((2, 2), np.float32)
        for at in range(3):
            memory[:] = at
            yield memory
    """
    with dataset(tmp_path, body).open([X]) as samples:
        found = list(batches(samples, [X], size=5))
    assert stacked(found, "x")[:, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_arguments_are_keywords(tmp_path: Path) -> None:
    (tmp_path / "loader.py").write_text(
        "import numpy as np\ndef load(count, value=0):\n"
        "    yield np.full((count, 2), value, np.float32)\n"
    )
    source = PythonDataset("loader.py:load", {"count": 2, "value": 7}, folder=tmp_path)
    assert values(read(source)) == [[7, 7], [7, 7]]


@pytest.mark.parametrize(
    ("signature", "arguments", "shardable"),
    [
        ("start, stop", {}, True),
        ("*, start=0, stop=None, count=9", {"count": 6}, True),
        ("start=0", {}, False),
        ("**others", {}, False),
        ("start=0, stop=None, /", {}, False),
        ("start=0, stop=None", {"stop": 6}, False),
        ("start, stop", {"start": 0, "stop": 6}, False),
    ],
)
def test_a_function_with_start_and_stop_is_asked_for_parts(
    signature: str, arguments: dict[str, int], *, shardable: bool, tmp_path: Path
) -> None:
    loader = LOADER.replace("SIGNATURE", signature)
    (tmp_path / "loader.py").write_text(loader)
    source = PythonDataset("loader.py:load", arguments, folder=tmp_path)
    with source.open([X]) as samples:
        assert len(samples) == 6
        assert samples.shardable == shardable
        part = list(samples.part(1, 4))
    assert [sample.index for sample in part] == [1, 2, 3]
    assert values(part) == [[1, 1], [2, 2], [3, 3]]
    assert [sample.origin for sample in part] == [f"loader.py:load[{at}]" for at in (1, 2, 3)]
    calls = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
    if shardable:
        assert [(call["start"], call["stop"]) for call in calls] == [(0, None), (1, 2), (1, 4)]
    else:
        assert calls == [calls[0]] * 2


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        ("0", "6", "other"),  # ignores both
        ("0", "stop or 6", "other"),
        ("start", "6", "more"),
        ("start", "(stop or 6) + 1", "more"),
        ("start", "start if stop else 6", "0"),
        ("start // 4 * 4", "start // 4 * 4 + ((stop or 6) - start)", "other"),
    ],
)
def test_a_function_that_ignores_what_it_is_asked_for_is_found_out(
    first: str, last: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "loader.py").write_text(
        "import numpy as np\ndef load(start, stop):\n"
        f"    for at in range({first}, {last}):\n        yield np.full((1, 2), at, np.float32)\n"
    )
    message = (
        rf"loader.py:load yielded {said} samples for start=1, stop=2, after . from start=0 .* must "
        r"yield the samples start to stop - 1 \(1 here\)"
    )
    source = PythonDataset("loader.py:load", folder=tmp_path)
    with pytest.raises(DataError, match=message), source.open([X]):
        pytest.fail("opened")


@pytest.mark.parametrize(("change", "said"), [(1, "more"), (-1, "1"), (-2, "0")])
def test_a_part_of_another_number_than_was_asked_for_is_an_error(
    change: int, said: str, tmp_path: Path
) -> None:
    (tmp_path / "loader.py").write_text(
        "import numpy as np\ndef load(start, stop):\n"
        f"    stop = 6 if stop is None else stop + {change} * (start == 2)\n"
        "    yield np.zeros((stop - start, 2), np.float32)\n"
    )
    with PythonDataset("loader.py:load", folder=tmp_path).open([X]) as samples:
        assert len(list(samples.part(3, 6))) == 3
        message = rf"yielded {said} samples for start=2, stop=4, after 6 from .* \(2 here\)"
        with pytest.raises(DataError, match=message):
            list(samples.part(2, 4))


def test_messages_about_a_part_say_which_call_it_was(tmp_path: Path) -> None:
    (tmp_path / "loader.py").write_text(
        "import numpy as np\ndef load(start, stop):\n"
        "    stop = 6 if stop is None else stop\n"
        "    yield np.zeros((stop - start, 2), np.float64 if stop == 4 else np.float32)\n"
    )
    with (
        PythonDataset("loader.py:load", folder=tmp_path).open([X]) as samples,
        pytest.raises(DataError, match=r"load\(start=2, stop=4\) batch 0: x"),
    ):
        list(samples.part(2, 4))


def test_a_builtin_without_a_signature_is_called_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "loader.py").write_text("load = zip\n")
    with PythonDataset("loader.py:load", folder=tmp_path).open([X]) as samples:
        assert (len(samples), samples.shardable) == (0, False)


def test_a_module_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset(tmp_path, f"yield {BATCH}", name="quantlab_test_loader.py")
    monkeypatch.syspath_prepend(tmp_path)
    assert len(read(PythonDataset("quantlab_test_loader:load"))) == 3
    del sys.modules["quantlab_test_loader"]


def test_files_of_one_name_in_two_folders_stay_apart(tmp_path: Path) -> None:
    for name, value in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        dataset(tmp_path / name, f"yield np.full((1, 2), {value}, np.float32)")
    found = [
        values(read(PythonDataset(f"{name}/loader.py:load", folder=tmp_path))) for name in "ab"
    ]
    assert found == [[[1, 1]], [[2, 2]]]


def test_a_file_may_define_dataclasses_with_postponed_annotations(tmp_path: Path) -> None:
    (tmp_path / "loader.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\nfrom typing import ClassVar\nimport numpy as np\n"
        "@dataclass\nclass Part:\n    kind: ClassVar[str] = 'a'\n    n: int = 2\n"
        "def load():\n    yield np.ones((Part().n, 2), np.float32)\n"
    )
    assert len(read(PythonDataset("loader.py:load", folder=tmp_path))) == 2


@pytest.mark.parametrize("function", ["loader.py", "load", ":load", "loader.py:", "m:a b", ""])
def test_what_names_no_function(function: str) -> None:
    with pytest.raises(ConfigError, match=r"expected 'module:function' or 'file.py:function'"):
        PythonDataset(function)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("gone.py:load", r"cannot import 'gone.py': there is no file"),
        ("no_such_module_here:load", r"cannot import 'no_such_module_here': No module named"),
        ("loader.py:other", r"loader.py has no function 'other'"),
        ("loader.py:np", r"loader.py has no function 'np'"),
        ("broken.py:load", r"cannot import 'broken.py': No module named 'nowhere_to_be_found'"),
    ],
)
def test_functions_that_cannot_be_loaded(function: str, message: str, tmp_path: Path) -> None:
    dataset(tmp_path, f"yield {BATCH}")
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found")
    before = set(sys.modules)
    with pytest.raises(ConfigError, match=message):
        read(PythonDataset(function, folder=tmp_path))
    assert not any("broken" in str(vars(sys.modules[name])) for name in set(sys.modules) - before)


def test_what_the_function_raises_comes_through(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        read(dataset(tmp_path, "yield 1 / 0"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return None", "loader.py:load returned NoneType, not batches"),
        ("yield {}", "batch 0: nothing for input 'x'; got nothing"),
        (f"yield {{'y': {BATCH}}}", "nothing for input 'x'; got 'y'"),
        (f"yield {{'x': {BATCH}, 'lable': 1}}", r"'lable' is no input of the model \('x'\)"),
        (f"yield {BATCH}, 1, 2", "expected an array and labels, got a tuple of 3"),
        (f"yield {BATCH}, [1, 2]", "different numbers of samples: x 3, labels 2"),
        (f"yield {BATCH}.astype(float)", "expected float32, got float64 in .* batch 0: x"),
        (f"yield {BATCH}[:, :1]", r"expected samples of shape \(2\), got \(1\)"),
        ("yield [[1.0, 2.0], [3.0]]", "'x' does not convert to an array"),
        ("yield np.array([object()])", "got ndarray of dtype object"),
        ("yield 3.0", r"got float of dtype float64 and shape \(\)"),
        (f"yield {BATCH}, [0.5, 1, 2]", "expected an integer class index, got float64"),
        (f"yield {BATCH}, [0, 1, -2]", r"label of .*batch 0\[2\]: .*got -2"),
    ],
)
def test_what_does_not_fit_is_refused_on_opening(body: str, message: str, tmp_path: Path) -> None:
    source = dataset(tmp_path, body)
    with pytest.raises(DataError, match=message), source.open([X]):
        pytest.fail("opened")


def test_a_model_of_several_inputs_needs_names(tmp_path: Path) -> None:
    source = dataset(tmp_path, f"yield {BATCH}")
    with pytest.raises(DataError, match="expected a mapping from input name to array, got ndarray"):
        read(source, X, STATE)


@pytest.mark.parametrize(("later", "said"), [(2, "2"), (4, "more")])
def test_a_pass_that_differs_from_the_first_is_an_error(
    later: int, said: str, tmp_path: Path
) -> None:
    counts = tmp_path / "counts"
    counts.write_text(f"3 {later}")
    source = dataset(
        tmp_path,
        f"""
        from pathlib import Path
        now, *rest = Path({str(counts)!r}).read_text().split()
        Path({str(counts)!r}).write_text(" ".join(rest))
        yield np.zeros((int(now), 2), np.float32)
        """,
    )
    with (
        source.open([X]) as samples,
        pytest.raises(DataError, match=f"yielded 3 samples at first and {said} in another pass"),
    ):
        list(samples)
