"""The names are those of the real library, and a plan runs where it was built for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.engines.trt import library, targets
from quantlab.errors import ConfigError, EngineError

NAMES = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")


@pytest.fixture(scope="module")
def rtx() -> library.Library:
    pytest.importorskip("tensorrt_rtx")
    return library.load("tensorrt-rtx")


def test_known_are_those_of_the_library(rtx: library.Library) -> None:
    assert targets.known(rtx.module) == NAMES
    assert set(targets.DEFAULT) < set(NAMES)
    enum = pytest.importorskip("tensorrt_rtx").ComputeCapability
    for name in NAMES:
        major, minor = targets.capability(name)
        assert int(enum.__members__[name.upper()]) == 10 * major + minor


def test_what_the_library_has_not_is_refused(rtx: library.Library) -> None:
    targets.require(NAMES, rtx.module)
    message = (
        r"target 'sm90': TensorRT-RTX 1\..* has no such compute capability; it builds for sm75"
    )
    with pytest.raises(ConfigError, match=message):
        targets.require(("sm86", "sm90"), rtx.module)


@given(st.lists(st.sampled_from(NAMES), min_size=1), st.sampled_from([",", ", ", " ,", ",,"]))
def test_parse_keeps_each_name_once(names: list[str], comma: str) -> None:
    assert targets.parse(comma.join(names).upper()) == tuple(dict.fromkeys(names))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected targets such as sm86,sm89,sm120, got none"),
        (" , ", "got none"),
        ("8.6", "target '8.6': expected a compute capability such as sm86 for 8.6"),
        ("sm86,rtx4090", "target 'rtx4090'"),
    ],
)
def test_what_is_no_name_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        targets.parse(text)
    assert caught.value.key == "targets"


@given(st.lists(st.sampled_from(NAMES), min_size=1), st.sampled_from(NAMES))
def test_chosen_targets_cover_themselves_and_nothing_else(names: list[str], gpu: str) -> None:
    assert targets.covers(names, targets.capability(gpu)) == (gpu in names)


@pytest.mark.parametrize(
    ("gpu", "covered"),
    [
        ((7, 5), False),
        ((8, 0), True),
        ((8, 6), True),
        ((8, 7), False),
        ((9, 0), False),
        ((10, 0), False),
        ((12, 1), True),
        ((13, 0), True),
    ],
)
def test_the_default_covers_what_the_runtime_said(gpu: tuple[int, int], *, covered: bool) -> None:
    assert targets.covers((), gpu) == covered


def test_a_supported_gpu_that_is_no_target_gets_the_remedy() -> None:
    with pytest.raises(EngineError, match=r"a\.plan: built for sm120, .* --targets sm86$"):
        targets.check(("sm120",), "NVIDIA A10", (8, 6), what="a.plan")
    with pytest.raises(EngineError, match=r"built for TensorRT-RTX's default targets.*sm75$"):
        targets.check((), "NVIDIA T4", (7, 5), what="a.plan")
    targets.check(("sm75",), "NVIDIA T4", (7, 5), what="a.plan")


def test_an_unsupported_gpu_is_told_what_is() -> None:
    message = (
        r"NVIDIA H100 with compute capability 9\.0 .* does not support this GPU at all .*"
        r"7\.5 if asked for, 8\.0, 8\.6, 8\.9, 12\.0, 12\.1 and later.*'backend: tensorrt'"
    )
    with pytest.raises(EngineError, match=message):
        targets.check((), "NVIDIA H100", (9, 0), what="a.plan")
