"""Whose scale a cache's line is: exact names, suffixes, the same values, ties."""

from hypothesis import given
from hypothesis import strategies as st

from quantlab.cache_names import Match, match

NAMES = st.lists(
    st.sampled_from(["x", "x_1", "x:0", "conv", "conv_0", "/a/b", "a_b", "y", "y_2", "image"]),
    unique=True,
    min_size=1,
)
SCALES = st.dictionaries(NAMES.map(lambda names: names[0]), st.sampled_from([0.0, 0.5, 2.0]))


def test_an_exact_name_is_never_taken_for_another() -> None:
    found = match({"x": 1.0, "x_1": 2.0, "x_2": 3.0}, ["x", "x_1", "x_3"])
    assert {name: m.entry for name, m in found.matches.items()} == {"x": "x", "x_1": "x_1"}
    assert found.unused == ("x_2",)


def test_suffixes_and_punctuation() -> None:
    scales = {"image:0": 1.0, "conv1_0": 2.0, "model/block.2/out": 3.0, "relu": 4.0}
    found = match(scales, ["image", "conv1", "model_block_2_out", "relu:0"])
    assert list(found.matches.values()) == [
        Match("image", 1.0, "suffix", "image:0"),
        Match("conv1", 2.0, "suffix", "conv1_0"),
        Match("model_block_2_out", 3.0, "suffix", "model/block.2/out"),
        Match("relu:0", 4.0, "suffix", "relu"),
    ]
    assert found.unused == found.ambiguous == ()


def test_what_could_mean_two_is_not_used() -> None:
    one_for_two = match({"conv": 1.0}, ["conv_1", "conv_2"])
    assert (one_for_two.matches, one_for_two.ambiguous) == ({}, ("conv",))
    two_for_one = match({"conv:0": 1.0, "conv_0": 2.0}, ["conv"])
    assert (two_for_one.matches, two_for_one.ambiguous) == ({}, ("conv:0", "conv_0"))


def test_entries_of_the_parsers_own_tensors_are_told_apart() -> None:
    scales = {
        "(Unnamed Layer* 12) [Constant]_output": 1.0,
        "(Unnamed Layer* 3) [Fully Connected]_output": 1.0,
        "ONNXTRT_Broadcast_5_output": 1.0,
        "other": 1.0,
    }
    found = match(scales, ["x"])
    assert found.parsers_own == tuple(scales)[:3]
    assert found.unused == ("other",)


def test_the_same_values_and_ties_give_a_scale_to_those_without() -> None:
    found = match(
        {"kept": 1.0, "relu": 2.0, "pool": 3.0, "own": 4.0},
        ["kept", "gone", "relu", "pool", "flat", "own"],
        same=[("gone", "kept")],
        tied=[("flat", "relu", "pool"), ("own",)],
    )
    assert found.matches["gone"] == Match("gone", 1.0, "same values", "kept")
    assert found.matches["flat"] == Match("flat", 3.0, "tied", "pool")  # the larger of the two
    assert found.matches["relu"].scale == 2.0  # has its own
    assert found.matches["own"].how == "exact"


def test_one_grid_means_one_scale() -> None:
    found = match({"a": 1.0, "b": 2.0}, ["a", "b", "c"], shared=[("a", "b", "c")])
    assert [found.matches[name].scale for name in "abc"] == [2.0, 2.0, 2.0]
    assert [found.matches[name].how for name in "abc"] == ["shared", "exact", "shared"]


def test_a_scale_of_zero_is_none_unless_a_tied_tensor_has_one() -> None:
    scales = {"dead": 0.0, "relu": 0.0, "conv": 2.0}
    found = match(scales, ["dead", "relu", "conv"], tied=[("relu", "conv")])
    assert found.zero == ("dead",)
    assert set(found.matches) == {"relu", "conv"}


def test_sources_are_told_in_words() -> None:
    scales = {"x:0": 1.0, "y": 2.0}
    found = match(scales, ["x", "y", "z", "w"], same=[("z", "y")], tied=[("w", "y")])
    assert {name: str(m) for name, m in found.matches.items()} == {
        "x": "suffix: 'x:0'",
        "y": "the cache's own",
        "z": "same values as 'y'",
        "w": "tied to 'y'",
    }


@given(SCALES, NAMES)
def test_every_entry_is_accounted_for_once_and_scales_are_the_caches(
    scales: dict[str, float], names: list[str]
) -> None:
    found = match(scales, names)
    used = {m.entry for m in found.matches.values()}
    zero = set(found.zero)
    rest = [*found.parsers_own, *found.ambiguous, *found.unused]
    assert len(rest) == len(set(rest))
    assert used.isdisjoint(rest)
    assert set(scales) == used | set(rest) | {
        e for e, s in scales.items() if s == 0 and e not in rest
    }
    assert all(scales[m.entry] == m.scale > 0 for m in found.matches.values())
    assert set(found.matches) <= set(names) - zero


@given(SCALES, NAMES)
def test_the_order_of_a_cache_does_not_matter(scales: dict[str, float], names: list[str]) -> None:
    backwards = dict(reversed(scales.items()))
    assert match(scales, names).matches == match(backwards, names).matches


@given(SCALES, NAMES, st.data())
def test_an_exact_name_more_never_changes_another_exact_one(
    scales: dict[str, float], names: list[str], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(names))
    before = match(scales, names).matches
    after = match(scales | {name: 7.0}, names).matches
    assert after[name] == Match(name, 7.0, "exact", name)
    for other, found in before.items():
        if other != name and found.how == "exact":
            assert after[other] == found
