"""Profiles are those of the config or of the run, and what does not fit is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.engines.base import ShapeRange
from quantlab.engines.trt import log, profiles
from quantlab.engines.trt.library import Library
from quantlab.engines.trt.profiles import Shapes, chosen, covers
from quantlab.errors import EngineError

INPUTS = {"image": (-1, 3, 8, 8), "mask": (-1, 8), "table": (4, 4)}


def batch(least: int, usual: int, most: int) -> dict[str, Shapes]:
    return {
        "image": Shapes((least, 3, 8, 8), (usual, 3, 8, 8), (most, 3, 8, 8)),
        "mask": Shapes((least, 8), (usual, 8), (most, 8)),
    }


def needed(least: int, usual: int, most: int) -> dict[str, ShapeRange]:
    return {n: ShapeRange(s.min, s.opt, s.max) for n, s in batch(least, usual, most).items()}


def test_without_an_open_axis_there_is_none() -> None:
    assert chosen({"table": (4, 4)}, (), {}) == ()
    assert chosen({}, (), {}) == ()


def test_without_a_config_the_run_decides() -> None:
    assert chosen(INPUTS, (), needed(1, 8, 32)) == (needed(1, 8, 32),)


def test_the_configs_come_in_order() -> None:
    found = chosen(INPUTS, (batch(1, 1, 1), batch(2, 16, 32)), needed(1, 16, 32))
    assert found == (needed(1, 1, 1), needed(2, 16, 32))


def test_an_input_that_needs_none_may_stand_in_a_profile() -> None:
    given_too = batch(1, 2, 4) | {"table": Shapes((4, 4), (4, 4), (4, 4))}
    assert chosen(INPUTS, (given_too,), {}) == (needed(1, 2, 4),)


sizes = st.lists(st.integers(1, 40), min_size=3, max_size=3).map(sorted)


@given(st.lists(sizes, min_size=1, max_size=3), sizes)
def test_profiles_that_do_not_take_what_the_run_feeds_are_refused(
    ranges: list[list[int]], fed: list[int]
) -> None:
    configured = [batch(*three) for three in ranges]
    taken = all(any(low <= size <= high for low, _, high in ranges) for size in fed)
    if taken:
        assert len(chosen(INPUTS, configured, needed(*fed))) == len(ranges)
    else:
        with pytest.raises(EngineError, match=r"'image': the run needs shape \[\d+, 3, 8, 8\]"):
            chosen(INPUTS, configured, needed(*fed))


@given(sizes, st.integers(0, 50))
def test_covers_is_the_range(three: list[int], size: int) -> None:
    given_range = needed(*three)["mask"]
    assert covers(given_range, (size, 8)) == (three[0] <= size <= three[2])
    assert not covers(given_range, (size,))
    assert not covers(given_range, (size, 9))


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"nose": Shapes((1,), (1,), (1,))}, r"profiles\[0\]\.nose: the model has no input 'nose'"),
        (
            batch(1, 2, 4) | {"mask": Shapes((1, 9), (2, 9), (4, 9))},
            r"mask\.min.*\[-1, 8\].*\[1, 9\]",
        ),
        (batch(1, 2, 4) | {"mask": Shapes((1, 8), (2,), (4, 8))}, r"mask\.opt.*got \[2\]"),
        (batch(1, 2, 4) | {"mask": Shapes((1, 8), (2, 8), (-4, 8))}, r"mask\.max"),
        (batch(4, 2, 8), r"profiles\[0\]\.image: expected min <= opt <= max"),
        ({"image": batch(1, 2, 4)["image"]}, r"profiles\[0\]: input 'mask'.*is missing"),
    ],
)
def test_a_wrong_profile_is_named(profile: dict[str, Shapes], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        chosen(INPUTS, (profile,), {})


def test_unknown_shapes_say_how_to_give_them() -> None:
    with pytest.raises(
        EngineError, match=r"'image' has the open shape.*profiles: \[\{image: \{min"
    ):
        chosen(INPUTS, (), {"mask": needed(1, 1, 1)["mask"]})


def test_tensorrt_gets_them_and_its_refusal_is_ours(rtx: Library) -> None:
    told = log.Log()
    logger = log.make(rtx.module, told)
    builder = rtx.module.Builder(logger)
    config = builder.create_builder_config()
    profiles.add(builder, config, needed(1, 2, 4))
    profiles.add(builder, config, needed(8, 8, 8))
    with pytest.raises(EngineError, match=r"refuses.*image: \[4, 3, 8, 8\] to \[2, 3, 8, 8\]"):
        profiles.add(builder, config, needed(4, 3, 2))
    assert "MIN<=OPT<=MAX" in told.why()
    assert profiles.fixed({"x": (1, 2)}) == {"x": ShapeRange((1, 2), (1, 2), (1, 2))}
