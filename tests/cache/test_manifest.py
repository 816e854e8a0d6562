"""A stale, edited or incomplete cache is an error that says what changed; nothing else is."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab import cache, files, manifest
from quantlab.cache import Cache, Header
from quantlab.errors import CacheError
from quantlab.manifest import Manifest

BASIS = Manifest(
    quantlab="0.1.0",
    created="2026-01-02T03:04:05+00:00",
    versions={"onnxruntime": "1.32.0", "numpy": "2.4.6"},
    graph_hash="a" * 64,
    weights_hash="b" * 64,
    data_hash="c" * 64,
    samples=512,
    preprocessing={"kind": "image_folder", "mean": [0.5, 0.4], "size": 224, "crop": None},
    method="percentile",
    knobs={"percentile": 99.99, "nonfinite": "fail"},
    tied={"pool": "relu"},
)
SCALES = {"input": 0.5, "relu": 0.25, "pool": 0.25, "never": 0.0}

STALE: dict[str, tuple[Manifest, str]] = {
    "node": (
        replace(BASIS, graph_hash="d" * 64),
        "model graph: nodes, constants or shapes differ, hash aaaaaaaaaaaa -> dddddddddddd",
    ),
    "weight": (
        replace(BASIS, weights_hash="d" * 64),
        "model weights: initializers differ, hash bbbbbbbbbbbb -> dddddddddddd",
    ),
    "samples": (
        replace(BASIS, data_hash="d" * 64, samples=500),
        "calibration data: 512 samples, hash cccccccccccc -> 500 samples, hash dddddddddddd",
    ),
    "number of samples alone": (
        replace(BASIS, samples=500),
        "calibration data: 512 samples, hash cccccccccccc -> 500 samples, hash cccccccccccc",
    ),
    "preprocessing": (
        replace(BASIS, preprocessing={**BASIS.preprocessing, "mean": [0.5, 0.5]}),
        "preprocessing 'mean': [0.5, 0.4] -> [0.5, 0.5]",
    ),
    "preprocessing added": (
        replace(BASIS, preprocessing={**BASIS.preprocessing, "std": 2}),
        "preprocessing 'std': not set -> 2",
    ),
    "preprocessing removed": (
        replace(BASIS, preprocessing={"kind": "npz"}),
        "preprocessing 'crop': null -> not set",
    ),
    "method": (replace(BASIS, method="entropy"), "method: percentile -> entropy"),
    "knob": (
        replace(BASIS, knobs={**BASIS.knobs, "percentile": 99.9}),
        "knob 'percentile': 99.99 -> 99.9",
    ),
    "policy": (
        replace(BASIS, knobs={**BASIS.knobs, "nonfinite": "ignore"}),
        'knob \'nonfinite\': "fail" -> "ignore"',
    ),
    "tie": (replace(BASIS, tied={}), "tied tensor 'pool': \"relu\" -> not set"),
}
FRESH: dict[str, Manifest] = {
    "the same": BASIS,
    "calibrated at another time": replace(BASIS, created="2030-01-01T00:00:00+00:00"),
    "tuples for lists": replace(
        BASIS,
        preprocessing={**BASIS.preprocessing, "mean": (0.5, 0.4)},  # type: ignore[dict-item]  # as configs have them
    ),
    "another order of keys": replace(
        BASIS,
        preprocessing=dict(sorted(BASIS.preprocessing.items())),
        knobs=dict(sorted(BASIS.knobs.items())),
    ),
    "another library": replace(BASIS, versions={"onnxruntime": "1.33.0", "numpy": "2.4.6"}),
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A cache with its manifest; returns the cache's path."""
    path = tmp_path / "calibration.cache"
    cache.write(path, Cache(Header("8.6.1", "EntropyCalibration2"), SCALES))
    recorded = replace(BASIS, cache_sha256=files.sha256(path), tensors=tuple(SCALES))
    recorded.save(manifest.beside(path))
    return path


def check(path: Path, expected: Manifest) -> tuple[str, ...]:
    return manifest.check(path, manifest.beside(path), expected, list(SCALES))


@pytest.mark.parametrize("name", STALE)
def test_every_change_is_detected_and_named(name: str, saved: Path) -> None:
    expected, sentence = STALE[name]
    with pytest.raises(CacheError, match=r"calibration.cache is stale") as caught:
        check(saved, expected)
    assert f"\n  {sentence}\n" in str(caught.value)
    assert str(caught.value).endswith("recalibrate, or undo the change")


def test_all_changes_are_listed_together(saved: Path) -> None:
    expected = replace(BASIS, weights_hash="d" * 64, method="mse", knobs={"nonfinite": "fail"})
    with pytest.raises(CacheError) as caught:
        check(saved, expected)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()[1:-1]] == [
        "  model weights",
        "  method",
        "  knob 'percentile'",
    ]


@pytest.mark.parametrize("name", FRESH)
def test_what_is_no_change_is_no_alarm(name: str, saved: Path) -> None:
    check(saved, FRESH[name])


def test_saving_again_is_no_alarm(saved: Path) -> None:
    for _ in range(2):
        cache.write(saved, cache.read(saved))
        manifest.load(manifest.beside(saved)).save(manifest.beside(saved))
        assert check(saved, BASIS) == ()


def test_a_new_version_is_a_note(saved: Path) -> None:
    versions = {"onnxruntime": "1.33.0", "numba": "0.61"}
    assert check(saved, replace(BASIS, versions=versions, quantlab="0.2.0")) == (
        "version 'numba': not set -> \"0.61\"",
        "version 'numpy': \"2.4.6\" -> not set",
        'version \'onnxruntime\': "1.32.0" -> "1.33.0"',
        'version \'quantlab\': "0.1.0" -> "0.2.0"',
    )


def test_every_truncation_of_the_cache_is_detected(saved: Path) -> None:
    whole = saved.read_bytes()
    for length in range(len(whole)):
        saved.write_bytes(whole[:length])
        with pytest.raises(CacheError, match="truncated, edited or replaced"):
            check(saved, BASIS)
    saved.write_bytes(whole)
    assert check(saved, BASIS) == ()


def test_every_truncation_of_the_manifest_is_detected(saved: Path) -> None:
    path = manifest.beside(saved)
    whole = path.read_bytes()
    for length in range(len(whole) - 1):  # the last byte is a line end, which JSON does not need
        path.write_bytes(whole[:length])
        with pytest.raises(CacheError, match=r"calibration.json: not a calibration manifest"):
            check(saved, BASIS)


@given(st.data())
def test_every_changed_byte_of_the_cache_is_detected(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "edited.cache"
    cache.write(path, Cache(Header("8.6.1", "EntropyCalibration2"), SCALES))
    replace(BASIS, cache_sha256=files.sha256(path)).save(manifest.beside(path))
    raw = bytearray(path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    with pytest.raises(CacheError, match="truncated, edited or replaced"):
        check(path, BASIS)


def test_missing_tensors_are_named(saved: Path) -> None:
    beside = manifest.beside(saved)
    with pytest.raises(CacheError, match=r"no scale for 1 of the model's 2 tensors: 'added'"):
        manifest.check(saved, beside, BASIS, ["relu", "added"])
    with pytest.raises(CacheError, match="this is the cache of another model"):
        manifest.check(saved, beside, BASIS, ["other"])
    assert manifest.check(saved, beside, BASIS, ["relu"]) == ()


def test_missing_files_are_named(saved: Path) -> None:
    manifest.beside(saved).unlink()
    with pytest.raises(CacheError, match=r"cannot read .*calibration.json"):
        check(saved, BASIS)
    replace(BASIS, cache_sha256="0" * 64).save(manifest.beside(saved))
    saved.unlink()
    with pytest.raises(CacheError, match=r"cannot read .*calibration.cache"):
        check(saved, BASIS)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.dictionaries(KEYS, JSON, max_size=4), st.dictionaries(KEYS, JSON, max_size=4))
def test_what_was_saved_is_not_changed(
    tmp_path_factory: pytest.TempPathFactory,
    preprocessing: dict[str, object],
    knobs: dict[str, object],
) -> None:
    path = tmp_path_factory.getbasetemp() / "manifest.json"
    saved = replace(BASIS, preprocessing=preprocessing, knobs=knobs)  # type: ignore[arg-type]
    saved.save(path)
    assert manifest.changes(manifest.load(path), saved) == ()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("samples", "512", r"'samples': Input should be a valid integer"),
        ("tensors", "relu", r"'tensors': Input should be a valid array"),
        ("surprise", 1, r"'surprise': Unexpected keyword argument"),
        ("method", None, r"'method': Input should be a valid string"),
        ("format", 2, r"expected manifest format 1, got 2; .*use the quantlab that wrote it"),
    ],
)
def test_malformed_manifests_name_the_key(
    saved: Path, key: str, value: object, message: str
) -> None:
    path = manifest.beside(saved)
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(CacheError, match=message):
        manifest.load(path)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_no_manifest(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(data)
    with pytest.raises(CacheError, match="not a calibration manifest"):
        manifest.load(path)
