"""A build's progress as one bar, and its end on Ctrl-C.

TensorRT tells phases that nest: "Building engine" of 6 steps, inside its fourth "Optimizing graph"
of 30, and so on.  A phase with n steps, k of them done, and a phase inside the next of which the
fraction g is done, is at (k + g) / n.  The bar shows the outermost phase and never goes back: where
several phases come inside one step, the second begins where the first ended.

Limits: a fraction of steps, not of time.  A build can be cancelled between two steps; what a step
takes is up to TensorRT.
"""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from threading import Event, Lock, Thread
from typing import TypeVar

from quantlab.engines.trt.api_build import IProgressMonitor, Module
from quantlab.engines.trt.callbacks import Kept
from quantlab.progress import Advance

T = TypeVar("T")

PERCENT = 100
"""Units of the bar."""


@dataclass(slots=True)
class _Phase:
    parent: str | None
    total: int
    done: int = 0
    inner: float = 0.0

    @property
    def fraction(self) -> float:
        return min(1.0, (self.done + self.inner) / max(1, self.total))


class Steps:
    """How far a build is; may be told from any thread.

    Args:
        advance: is given whole percents, rising.

    Attributes:
        cancelled: set it, and the build ends at its next step.
        kept: what ``advance`` raised, which ends the build too.
    """

    def __init__(self, advance: Advance) -> None:
        self.cancelled = Event()
        self.kept = Kept()
        self._advance = advance
        self._phases: dict[str, _Phase] = {}
        self._shown = 0
        self._lock = Lock()

    def start(self, name: str, parent: str | None, total: int) -> None:
        """A phase of ``total`` steps begins, inside ``parent``."""
        with self._lock:
            self._phases[name] = _Phase(parent, total)

    def step(self, name: str, number: int) -> bool:
        """Step ``number``, from 0, of a phase is done; return whether to go on."""
        with self._lock:
            phase = self._phases.get(name)
            if phase is not None and number + 1 > phase.done:
                phase.done, phase.inner = number + 1, 0.0
            self._show(name)
        if self.kept.error is not None:
            self.cancelled.set()
        return not self.cancelled.is_set()

    def finish(self, name: str) -> None:
        """A phase is over, whether all of its steps came or not."""
        with self._lock:
            phase = self._phases.get(name)
            if phase is not None:
                phase.done, phase.inner = phase.total, 0.0
                if not self.cancelled.is_set():
                    self._show(name)
                del self._phases[name]

    def _show(self, name: str) -> None:
        """Carry a phase's fraction to the phases that it is inside of, and show the outermost."""
        chain = self._chain(name)
        for inner, outer in pairwise(chain):
            outer.inner = max(outer.inner, inner.fraction)
        percent = int(chain[-1].fraction * PERCENT) if chain else 0
        if percent > self._shown:
            self._shown = percent
            with self.kept:
                self._advance(percent)

    def _chain(self, name: str | None) -> list[_Phase]:
        """Return a phase and those around it; none if the outermost is not known."""
        found: dict[str, _Phase] = {}
        while name is not None and name in self._phases and name not in found:
            found[name] = self._phases[name]
            name = found[name].parent
        return list(found.values()) if name is None else []


def make(module: Module, steps: Steps) -> IProgressMonitor:
    """Return a monitor that tells ``steps``; keep it for as long as the build's config."""
    base = module.IProgressMonitor

    class Monitor(base):  # type: ignore[misc,valid-type]  # the base exists once TensorRT is imported
        def __init__(self) -> None:
            base.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            steps.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return steps.step(phase_name, step)  # None would cancel, too

        def phase_finish(self, phase_name: str) -> None:
            steps.finish(phase_name)

    made: IProgressMonitor = Monitor()
    return made


def interruptible(work: Callable[[], T], cancel: Callable[[], None]) -> T:
    """Return what ``work`` returns or raise what it raises; on Ctrl-C, ``cancel`` and wait for it.

    ``work`` has a thread of its own: Python hears Ctrl-C on the main thread only, and not while
    that is inside of TensorRT.  A second Ctrl-C leaves without waiting.

    Raises:
        KeyboardInterrupt: after a Ctrl-C, whatever ``work`` made of it.
    """
    kept, made, done = Kept(), list[T](), Event()

    def run() -> None:
        with kept:
            made.append(work())
        if kept.error is not None:
            # What the frames still hold of the GPU goes on the thread that made it.
            traceback.clear_frames(kept.error.__traceback__)
        done.set()

    Thread(target=run, name="tensorrt", daemon=True).start()
    try:
        done.wait()  # Thread.join, once interrupted, takes the thread for ended (Python 3.11)
    except KeyboardInterrupt:
        cancel()
        done.wait()
        raise
    kept.release()
    return made[0]
