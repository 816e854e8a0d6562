"""How numbers and foreign text are written in every table, chart and sentence.

Units: milliseconds and rates with 3 and 4 significant digits, sizes in powers of 1000 (1 MB is
1e6 bytes), differences of percentages in percentage points (pp) and always with their sign.  A
value and its interval have the same number of decimals.
"""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from quantlab.measured import Interval, Performance
from quantlab.records import EngineReport
from quantlab.visible import visible

MISSING = "\N{EN DASH}"
"""Stands for what was not measured or does not apply."""

EXACT = "exact"
"""Stands for the SQNR of values that equal FP32's: it has no end."""

MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"

LABELS = {"fp32": "FP32", "fp16": "FP16", "int8": "INT8"}
"""How precisions are written."""

_SIZES = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
_PLACES = {"%": 2, "dB": 1}


def places(value: float, digits: int) -> int:
    """Return the decimals that show ``digits`` significant digits of ``value``, at least 0."""
    if value == 0:
        return 0
    rounded = float(f"{value:.{digits - 1}e}")
    return max(0, digits - 1 - math.floor(math.log10(abs(rounded))))


def fixed(value: float, decimals: int, *, signed: bool = False) -> str:
    """Return ``value`` with ``decimals`` decimals, thousands separated, and a true minus sign."""
    text = f"{value:+,.{decimals}f}" if signed else f"{value:,.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")  # a rounded zero has no sign
    return text.replace("-", MINUS)


def number(value: float, digits: int = 3) -> str:
    """Return ``value`` with ``digits`` significant digits; very small or large ones as 1.2e-05."""
    if value != 0 and not 1e-4 <= abs(value) < 1e9:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa.replace('-', MINUS)}e{exponent}"
    return fixed(value, places(value, digits))


def count(value: int) -> str:
    """Return an integer with its thousands separated."""
    return f"{value:,}"


def interval(low: float, high: float, decimals: int, *, signed: bool = False) -> str:
    """Return ``(low to high)``."""
    return f"({fixed(low, decimals, signed=signed)} to {fixed(high, decimals, signed=signed)})"


def ratio(value: float) -> str:
    """Return how many times as fast, with two decimals."""
    return f"{fixed(value, 2)}{TIMES}"


def rate(found: Performance) -> str:
    """Return the throughput in samples a second, without the unit."""
    return fixed(found.throughput, places(found.throughput, 4))


def rate_interval(found: Performance) -> str:
    """Return the throughput's interval, with its decimals."""
    decimals = places(found.throughput, 4)
    return interval(found.throughput_low, found.throughput_high, decimals)


def size(value: float) -> str:
    """Return bytes in the largest unit of which there is at least one, e.g. ``47.2 MB``."""
    for unit, scale in _SIZES:
        if value >= scale:
            return f"{number(value / scale)} {unit}"
    return f"{number(value)} bytes"


def seconds(value: float) -> str:
    """Return e.g. ``3 min 20 s``, ``12.3 s`` or ``45.0 ms``."""
    if value >= 120:
        minutes, rest = divmod(round(value), 60)
        return f"{count(minutes)} min {rest} s"
    return f"{number(value)} s" if value >= 1 or value == 0 else f"{number(value * 1000)} ms"


def moment(iso: str) -> str:
    """Return e.g. ``2026-05-04 10:20 UTC``; ``iso`` itself if it is no ISO 8601 time."""
    try:
        return datetime.fromisoformat(iso).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return iso


def sqnr(value: float | None, unit: str = "") -> str:
    """Return an SQNR in dB; ``exact`` where there is no difference."""
    return EXACT if value is None else with_unit(fixed(value, _PLACES["dB"]), unit)


def share(fraction: float) -> str:
    """Return a fraction in percent; what is not zero never reads as zero."""
    percent = 100 * fraction
    if 0 < percent < 0.001:
        return "<0.001 %"
    return f"{number(percent, 2)} %" if percent < 10 else f"{fixed(percent, 1)} %"


NEAR_ONE = 0.99
"""Values, of a cosine for example, from which on the digits that tell it from 1 are shown."""


def metric_places(unit: str, values: Sequence[float]) -> int:
    """Return the decimals for values of a metric: by unit, else 4 significant digits.

    Differences of less than a decibel are told to 2 significant digits: a target may be 0.05 dB.
    """
    largest = max((abs(value) for value in values), default=0.0)
    if unit == "dB" and 0 < largest < 1:
        return min(places(largest, 2), 4)
    if unit in _PLACES:
        return _PLACES[unit]
    gap = min((1 - value for value in values if NEAR_ONE < value < 1), default=1.0)
    return min(max(places(largest, 4), places(gap, 1)), 12)


def delta_unit(unit: str) -> str:
    """Return the unit of a difference: ``pp`` for percentages."""
    return "pp" if unit == "%" else unit


def with_unit(text: str, unit: str) -> str:
    """Return ``text`` and its unit, if it has one."""
    return f"{text}{'' if unit == TIMES else ' '}{unit}" if unit else text


def bounds(found: Interval) -> tuple[float, float, float]:
    """Return value, low and high, e.g. for ``metric_places``."""
    return (found.value, found.low, found.high)


def label(engine: EngineReport) -> str:
    """Return the precision as it is written: ``INT8``."""
    return LABELS[engine.precision]


def plural(amount: int, noun: str) -> str:
    """Return e.g. ``1 layer`` or ``12 layers``."""
    return f"{count(amount)} {noun}{'' if amount == 1 else 's'}"


def shortened(text: str, width: int) -> str:
    """Return ``text`` cut in its middle to ``width`` columns; wide characters count twice."""
    shown = visible(text)
    if columns(shown) <= width:
        return shown
    head, tail = shown[:width], shown[-width:]
    while columns(head) > (width - 1) // 2:
        head = head[:-1]
    while columns(tail) > width - 1 - columns(head):
        tail = tail[1:]
    return f"{head}…{tail}"


def columns(text: str) -> int:
    """Return the width of ``text``; wide characters count twice."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def plain(value: Any, name: str = "") -> str:
    """Return a JSON value in words; a number named ``..._bytes`` as a size."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: MISSING}[value]
    if isinstance(value, int | float):
        if name.endswith("bytes"):
            return size(value)
        return str(value) if isinstance(value, int) else number(value, 4)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain(item, str(key))}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(plain(item) for item in value)
    return str(value)
