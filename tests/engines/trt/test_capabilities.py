"""The table gives every version the row that begins at or before it, and knows its limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.engines.trt.capabilities import RTX, TABLE, capabilities
from quantlab.errors import EngineUnavailable


@given(st.sampled_from(list(TABLE)), st.integers(0, 40), st.lists(st.integers(0, 99), max_size=2))
def test_a_row_holds_from_its_version_on(
    since: tuple[int, int], more: int, rest: list[int]
) -> None:
    major, minor = since
    version = ".".join(map(str, (major, minor + more, *rest)))
    assert capabilities("tensorrt", version) is TABLE[since]


@pytest.mark.parametrize(
    ("version", "generation", "has"),
    [
        ("8.6.1", "8", {"implicit"}),
        ("9.0.1", "8", {"implicit"}),
        ("9.1.0", "9", {"implicit", "strong"}),
        ("10.0.1.6", "10", {"implicit", "strong"}),
        ("10.16.1.11", "10", {"implicit", "strong"}),
        ("11.4.0.106", "11", {"strong"}),
    ],
)
def test_what_the_releases_have(version: str, generation: str, has: set[str]) -> None:
    found = capabilities("tensorrt", version)
    assert found.generation == generation
    assert (found.strong, found.implicit) == ("strong" in has, "implicit" in has)


@pytest.mark.parametrize("version", ["7.2.3", "8.5.3.1", "12.0.0", "13.1"])
def test_other_tensorrts_are_refused_with_what_to_install(version: str) -> None:
    message = rf"TensorRT {version} cannot be used.*8\.6 to 11; pip install 'tensorrt>=8\.6,<12'"
    with pytest.raises(EngineUnavailable, match=message):
        capabilities("tensorrt", version)


def test_tensorrt_rtx_has_a_row_of_its_own() -> None:
    for version in ("1.1.0", "1.7.1.116", "2.0"):
        assert capabilities("tensorrt-rtx", version) is RTX
    with pytest.raises(EngineUnavailable, match=r"1\.0\.0 is too old.*--upgrade"):
        capabilities("tensorrt-rtx", "1.0.0")


@pytest.mark.parametrize("version", ["", "10", "ten.three", "10.x.1"])
def test_what_is_no_version_is_said(version: str) -> None:
    with pytest.raises(EngineUnavailable, match="expected a version such as"):
        capabilities("tensorrt", version)
