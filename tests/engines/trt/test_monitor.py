"""The bar rises and ends full; Ctrl-C ends a build; what a callback raises is not lost."""

import signal
import time
from dataclasses import dataclass, field
from threading import Event, Thread, main_thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.engines.trt import monitor
from quantlab.engines.trt.callbacks import Kept
from tests.processes import apart


@dataclass(frozen=True)
class Tree:
    """A phase: before each of its steps, the phases that come inside of it."""

    steps: list[list["Tree"]] = field(default_factory=list)


trees = st.recursive(
    st.builds(Tree, st.lists(st.just([]), min_size=1, max_size=4)),
    lambda inner: st.builds(Tree, st.lists(st.lists(inner, max_size=1), min_size=1, max_size=4)),
    max_leaves=12,
)


def play(steps: monitor.Steps, tree: Tree, name: str, parent: str | None) -> None:
    """Tell a build whose phases are ``tree``."""
    steps.start(name, parent, len(tree.steps))
    for number, inside in enumerate(tree.steps):
        for index, inner in enumerate(inside):
            play(steps, inner, f"{name}.{number}.{index}", name)
        assert steps.step(name, number)
    steps.finish(name)


def expected(tree: Tree, start: float, width: float) -> list[float]:
    """Return the fractions after each step, in order: an interval is cut in equal parts."""
    found: list[float] = []
    part = width / len(tree.steps)
    for number, inside in enumerate(tree.steps):
        for inner in inside:
            found += expected(inner, start + number * part, part)
        found.append(start + (number + 1) * part)
    return found


@given(trees)
def test_the_bar_is_the_fraction_of_nested_steps(tree: Tree) -> None:
    shown: list[int] = []
    play(monitor.Steps(shown.append), tree, "build", None)
    wanted = [int(fraction * 100 + 1e-6) for fraction in expected(tree, 0, 1)]
    reached = [p for p in dict.fromkeys(wanted) if p > 0]
    assert len(shown) == len(reached)  # rounding may shift a percent, never lose a step
    assert all(abs(a - b) <= 1 for a, b in zip(shown, reached, strict=True))
    assert shown[-1] == 100


events = st.one_of(
    st.tuples(
        st.just("start"),
        st.sampled_from("abc"),
        st.none() | st.sampled_from("abcd"),
        st.integers(0, 3),
    ),
    st.tuples(st.just("step"), st.sampled_from("abcd"), st.integers(0, 9)),
    st.tuples(st.just("finish"), st.sampled_from("abcd")),
)


@given(st.lists(events, max_size=40))
def test_whatever_comes_the_bar_rises_within_its_range(told: list[tuple[object, ...]]) -> None:
    shown: list[int] = []
    steps = monitor.Steps(shown.append)
    for name, *arguments in told:
        getattr(steps, str(name))(*arguments)
    assert steps.kept.error is None
    assert shown == sorted(set(shown))
    assert all(0 < percent <= 100 for percent in shown)


def test_a_phase_that_ends_early_counts_as_done() -> None:
    shown: list[int] = []
    steps = monitor.Steps(shown.append)
    steps.start("build", None, 2)
    steps.start("inner", "build", 50)
    steps.step("inner", 0)
    steps.finish("inner")
    steps.finish("build")
    assert shown == [1, 50, 100]


def test_cancelling_answers_false_and_the_bar_stays() -> None:
    shown: list[int] = []
    steps = monitor.Steps(shown.append)
    steps.start("build", None, 3)
    assert steps.step("build", 0)
    steps.cancelled.set()
    assert not steps.step("build", 1)
    steps.finish("build")
    assert shown == [33, 66]


def test_what_the_bar_raises_ends_the_build_and_is_kept() -> None:
    def broken(percent: int) -> None:
        raise RuntimeError(f"at {percent}")

    steps = monitor.Steps(broken)
    steps.start("build", None, 2)
    assert not steps.step("build", 0)
    with pytest.raises(RuntimeError, match="at 50"):
        steps.kept.release()


def test_kept_keeps_the_first() -> None:
    kept = Kept()
    for number in range(2):
        with kept:
            raise ValueError(str(number))
    with pytest.raises(ValueError, match="0"):
        kept.release()


def test_interruptible_returns_and_raises() -> None:
    assert monitor.interruptible(lambda: 7, lambda: None) == 7

    def fail() -> int:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        monitor.interruptible(fail, lambda: None)


def interrupt_soon() -> None:
    """Send what Ctrl-C sends; Python hears it on its main thread."""

    def send() -> None:
        time.sleep(0.05)
        signal.pthread_kill(main_thread().ident or 0, signal.SIGINT)

    Thread(target=send).start()


def cancels_and_waits() -> bool:
    stop, ended = Event(), Event()

    def work() -> str:
        interrupt_soon()
        assert stop.wait(30)
        ended.set()
        return "a plan that nobody wants any more"

    with pytest.raises(KeyboardInterrupt):
        monitor.interruptible(work, stop.set)
    return ended.is_set()


def test_ctrl_c_cancels_and_waits_for_the_end() -> None:
    assert apart(cancels_and_waits)


def leaves_at_once() -> float:
    stop = Event()

    def work() -> bool:
        interrupt_soon()
        return stop.wait(30)

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        monitor.interruptible(work, interrupt_soon)
    stop.set()
    return time.monotonic() - started


def test_a_second_ctrl_c_leaves_at_once() -> None:
    assert apart(leaves_at_once) < 10
