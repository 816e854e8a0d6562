"""Resident memory is what the process holds, and its peak is since one asked to forget it."""

import sys

import numpy as np
import pytest

from quantlab.collect.memory import forget_peak, peak, release, resident

MIB = 1 << 20
SIZE = 64 * MIB
SLACK = 16 * MIB
"""What the test runner may take or give back meanwhile."""


def touch() -> int:
    """Hold SIZE bytes for a moment; return what was resident then."""
    held = np.ones(SIZE // 8, np.float64)
    assert held[-1] == 1
    return resident()


def test_resident_memory_grows_with_what_is_held() -> None:
    before = resident()
    assert touch() - before > SIZE - SLACK


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
def test_the_peak_is_what_was_held_since_it_was_forgotten() -> None:
    release()
    forget_peak()
    before = peak()
    assert before - resident() < SLACK
    held = touch()
    assert peak() - before > SIZE - SLACK
    assert peak() > held - MIB  # the kernel adds up what threads hold now and then
    release()
    assert peak() - before > SIZE - SLACK, "the peak stays when the memory is given back"
    forget_peak()
    assert abs(peak() - before) < SLACK
