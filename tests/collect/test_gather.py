"""What was gathered comes back from its checkpoint, or as one clear error; NaN is named."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.collect.gather import Gathered, check_finite, load
from quantlab.collect.saved import save
from quantlab.collect.work import Part, Unit
from quantlab.errors import CalibrationError
from quantlab.histogram import from_array, merge
from tests.strategies import arrays

PASSES = (("a", "b/c"), ("d:0",))
KEY = {"model": "0f", "calibration batch": 2, "tensors": ["a", "b/c", "d:0"], "samples": None}


@st.composite
def all_parts(draw: st.DrawFn) -> list[Part]:
    """Parts of two passes over up to three shards of two batches."""
    found = []
    for shard in range(draw(st.integers(1, 3))):
        values = draw(arrays(max_samples=4, max_elements=3))
        first = np.arange(0, len(values), 2, dtype=np.int64) + 4 * shard
        fingerprint = draw(st.integers(0, 2**256 - 1))
        for number, names in enumerate(PASSES):
            amax = draw(st.lists(st.sampled_from([-np.inf, 0.0, 1.5]), min_size=4, max_size=4))
            part = Part(
                unit=Unit(number, shard),
                samples=len(values),
                histograms={name: from_array(name, values, 4 * shard) for name in names},
                first=first,
                amax=np.resize(np.array(amax), (len(first), len(names))),
                fingerprint=fingerprint,
                skipped=tuple(draw(st.lists(st.sampled_from(["x", "y", "z"]), unique=True))),
                inference_seconds=draw(st.floats(0, 100)),
                peak_bytes=draw(st.integers(0, 2**40)),
            )
            found.append(part)
    return found


def gathered(parts: list[Part]) -> Gathered:
    found = Gathered(PASSES)
    for part in parts:
        found.add(part)
    return found


def facts(found: Gathered) -> dict[str, Any]:
    """Return all that a Gathered tells."""
    public = {name: value for name, value in vars(found).items() if not name.startswith("_")}
    first, amax = found.batch_amax()
    tables = {"first": first.tolist(), "amax": amax.tolist()}
    return {**public, **tables, "histograms": found.histograms(), "hash": found.data_hash()}


def one() -> Gathered:
    values = np.array([[1.0, -2.0], [0.5, np.nan]], np.float32)
    found = [
        Part(
            unit=Unit(number, 0),
            samples=2,
            histograms={name: from_array(name, values) for name in names},
            first=np.array([0], np.int64),
            amax=np.full((1, len(names)), 2.0),
            fingerprint=2**255 + 1,
            skipped=(),
            inference_seconds=0.5,
            peak_bytes=1,
        )
        for number, names in enumerate(PASSES)
    ]
    return gathered(found)


@given(all_parts(), st.data())
def test_a_checkpoint_comes_back_equal_whatever_it_holds(
    tmp_path_factory: pytest.TempPathFactory, parts: list[Part], data: st.DataObject
) -> None:
    kept = data.draw(st.integers(0, len(parts)))
    found = gathered(parts[:kept])
    found.seconds = 1.25
    path = tmp_path_factory.mktemp("gather") / "checkpoint.npz"
    found.save(path, KEY)
    again, key = load(path)
    assert key == KEY
    rounds = {part.unit.round for part in parts[:kept]}
    if rounds in (set(), {0, 1}) and kept % 2 == 0:  # each shard is done in both passes
        assert facts(again) == facts(found)
    for part in parts[kept:]:
        found.add(part)
        again.add(part)
    assert facts(again) == facts(found)


@given(all_parts(), st.data())
def test_order_and_repetition_do_not_matter(parts: list[Part], data: st.DataObject) -> None:
    order = data.draw(st.permutations(parts))
    again = data.draw(st.lists(st.sampled_from(parts)))
    found, expected = facts(gathered([*order, *again])), facts(gathered(parts))
    for name in ("done", "samples", "peak_bytes", "histograms", "hash", "first", "amax", "passes"):
        assert found[name] == expected[name]
    assert set(found["skipped"]) == set(expected["skipped"])
    assert found["inference_seconds"] == pytest.approx(expected["inference_seconds"])
    for name, histogram in found["histograms"].items():
        assert histogram == merge([p.histograms[name] for p in parts if name in p.histograms])


def test_samples_are_counted_in_one_pass_only() -> None:
    assert one().samples == 2


@pytest.mark.parametrize("kept", [0, 10, 200, 5000, -100, -1])
def test_a_truncated_checkpoint_is_named_and_stays(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "checkpoint.npz"
    one().save(path, KEY)
    path.write_bytes(path.read_bytes()[:kept])
    assert_refused(path)


def assert_refused(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(CalibrationError, match=r"checkpoint\.npz.*delete it to collect anew"):
        load(path)
    assert path.read_bytes() == before


@given(st.data())
def test_a_flipped_bit_is_an_error_or_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("flip") / "checkpoint.npz"
    expected = one()
    expected.save(path, KEY)
    content = bytearray(path.read_bytes())
    # The names and lengths of a zip file's members are the likeliest places to go wrong.
    heads = [i for i in range(len(content)) if content.startswith(b"PK", i)]
    near = st.sampled_from(heads).flatmap(lambda head: st.integers(head, head + 80))
    place = data.draw(st.one_of(near, st.integers(0, len(content) - 1))) % len(content)
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        found, key = load(path)
    except CalibrationError:
        assert_refused(path)
    else:
        assert (facts(found), key) == (facts(expected), KEY)


def _edited(**changes: Any) -> Callable[[Path], None]:
    """Return what rewrites a checkpoint with other arrays; None removes one."""

    def edit(path: Path) -> None:
        with np.load(path) as file:
            kept = {**file, **changes}
        np.savez(path, **{k: v for k, v in kept.items() if v is not None})

    return edit


def _fact(name: str, value: object) -> Callable[[Path], None]:
    """Return what rewrites a checkpoint with another fact."""

    def edit(path: Path) -> None:
        with np.load(path) as file:
            known = {**json.loads(str(file["facts"])), name: value}
        _edited(facts=np.array(json.dumps(known)))(path)

    return edit


DAMAGE: dict[str, Callable[[Path], object]] = {
    "another npz": lambda path: np.savez(path, x=np.ones(3)),
    "histograms": lambda path: save(path, {"a": from_array("a", np.ones(3))}),
    "npy": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00"),
    "text": lambda path: path.write_text("checkpoint"),
    "zip without arrays": lambda path: zipfile.ZipFile(path, "w").close(),
    "pickle": _edited(counts=np.array([object()], dtype=object)),
    "facts as a pickle": _edited(facts=np.array({"passes": PASSES}, dtype=object)),
    "facts that are no JSON": _edited(facts=np.array("{")),
    "facts that are a list": _edited(facts=np.array("[]")),
    "no counts": _edited(counts=None),
    "fewer counts": _edited(counts=np.zeros((1, 4096), np.int64)),
    "counts of another type": _edited(counts=np.zeros((3, 4096), np.float32)),
    "limits of another shape": _edited(limits=np.zeros(3)),
    "fewer exponents": _edited(exponent=np.zeros(1, np.int64)),
    "fewer maxima": _edited(amax1=np.zeros((0, 1))),
    "no pass": _edited(amax1=None),
    "passes that are none": _fact("passes", 7),
    "units that are none": _fact("done", [[0, 0]]),
    "a hash that is none": _fact("done", [[0, 0, "xyz"]]),
    "samples that are no number": _fact("samples", "many"),
    "a key that is none": _fact("key", 3),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_no_checkpoint_is_refused_and_stays(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "checkpoint.npz"
    one().save(path, KEY)
    DAMAGE[damage](path)
    assert_refused(path)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"gone\.npz.*No such file"):
        load(tmp_path / "gone.npz")


@pytest.mark.parametrize(("bad", "kind"), [(np.nan, "NaN"), (-np.inf, "infinite")])
def test_the_first_element_that_is_not_finite_is_named(bad: float, kind: str) -> None:
    x = np.ones((5, 4), np.float32)
    x[3, 2] = bad
    fine = from_array("w", np.ones((5, 4)))
    with pytest.raises(
        CalibrationError, match=rf"'x': 1 elements are {kind}, first in sample 3 \(batch 1\)"
    ):
        check_finite([fine, from_array("x", x)], 2)
    check_finite([fine], 1)
