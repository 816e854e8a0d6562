"""Numbers read as they should, and foreign text cannot hide."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.reports import formats
from quantlab.visible import visible
from tests.reports.strange import JSON

ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"),
        (0.01234, "0.0123"),
        (9.996, "10.0"),
        (12.34, "12.3"),
        (999.6, "1,000"),
        (1234.5, "1,234"),
        (-3.2, "\N{MINUS SIGN}3.20"),
        (1.2e-5, "1.20e-05"),
        (-1.2e-5, "\N{MINUS SIGN}1.20e-05"),
        (3.4e38, "3.40e+38"),
    ],
)
def test_number_has_three_significant_digits(value: float, expected: str) -> None:
    assert formats.number(value) == expected


@given(st.floats(1e-4, 1e8), st.integers(2, 6))
def test_number_is_within_half_a_unit_of_its_last_digit(value: float, digits: int) -> None:
    read = float(formats.number(value, digits).replace(",", ""))
    assert read == pytest.approx(value, rel=0.51 * 10 ** (1 - digits))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formats.fixed(-0.004, 2, signed=True), "0.00"),
        (formats.fixed(0.05, 2, signed=True), "+0.05"),
        (formats.interval(-0.1, 0.2, 2, signed=True), "(\N{MINUS SIGN}0.10 to +0.20)"),
        (formats.ratio(2.1), "2.10\N{MULTIPLICATION SIGN}"),
        (formats.size(999), "999 bytes"),
        (formats.size(47_210_000), "47.2 MB"),
        (formats.size(1_500), "1.50 kB"),
        (formats.size(2.5e9), "2.50 GB"),
        (formats.seconds(0.41), "410 ms"),
        (formats.seconds(12.34), "12.3 s"),
        (formats.seconds(200), "3 min 20 s"),
        (formats.share(0), "0 %"),
        (formats.share(1e-9), "<0.001 %"),
        (formats.share(0.0005), "0.050 %"),
        (formats.share(0.4567), "45.7 %"),
        (formats.plural(1, "layer"), "1 layer"),
        (formats.plural(1200, "layer"), "1,200 layers"),
        (formats.with_unit("3", ""), "3"),
        (formats.moment("2026-05-04T10:20:30+00:00"), "2026-05-04 10:20 UTC"),
        (formats.moment("yesterday"), "yesterday"),
    ],
)
def test_units(text: str, expected: str) -> None:
    assert text == expected


@pytest.mark.parametrize(
    ("unit", "values", "expected"),
    [
        ("%", [1.0], 2),
        ("dB", [30.0], 1),
        ("dB", [0.05, 0.02], 3),
        ("dB", [0.0], 1),
        ("", [0.01234], 5),
    ],
)
def test_metric_places_follow_the_unit(unit: str, values: list[float], expected: int) -> None:
    assert formats.metric_places(unit, values) == expected


def test_plain_writes_json_in_words() -> None:
    host = {"cores": 2, "memory_bytes": 8e9, "vnni": False, "gpu": None, "flags": ["avx", "fma"]}
    assert formats.plain(host) == (
        "cores: 2, memory_bytes: 8.00 GB, vnni: no, gpu: \N{EN DASH}, flags: avx, fma"
    )


@given(JSON)
def test_plain_writes_any_json(value: object) -> None:
    assert isinstance(formats.plain(value), str)


def test_control_and_direction_characters_become_visible() -> None:
    assert visible("a\x00b\n\u202ec\ud800") == "a\\x00b\\n\\u202ec\\ud800"


@given(st.text(max_size=90), st.integers(8, 40))
def test_shortened_fits_and_keeps_both_ends(text: str, width: int) -> None:
    short = formats.shortened(text, width)
    columns = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in short)
    shown = visible(text)
    assert columns <= width
    if short != shown and short.count(ELLIPSIS) == 1:
        head, tail = short.split(ELLIPSIS)
        assert shown.startswith(head)
        assert shown.endswith(tail)
