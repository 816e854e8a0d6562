"""Progress on the terminal: bars where there is one, plain lines where there is none."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from quantlab.progress import Advance
from quantlab.visible import visible

EVERY = 5.0
"""Seconds between plain lines."""


class Terminal:
    """Writes to standard error, so that standard output holds results alone."""

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = Console(
            file=sys.stderr, quiet=quiet, soft_wrap=True, highlight=False, emoji=False
        )
        self._clock = clock

    @contextmanager
    def track(self, title: str, *, total: int, unit: str) -> Iterator[Advance]:
        """Show how far a task is, at what rate, and how long it will take."""
        if self._console.is_terminal:
            yield from self._bar(title, total, unit)
        else:
            yield from self._lines(title, total, unit)

    def note(self, text: str) -> None:
        """Write a line."""
        self._console.print(visible(text), markup=False)

    def warn(self, text: str) -> None:
        """Write a line that stands out."""
        self._console.print(f"warning: {visible(text)}", style="yellow", markup=False)

    def _bar(self, title: str, total: int, unit: str) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}, {task.fields[rate]}/s", markup=False),
            TimeRemainingColumn(),
        )
        started = self._clock()
        with Bars(*columns, console=self._console) as bars:
            task = bars.add_task(title, total=total, unit=unit, rate="0")

            def advance(done: int) -> None:
                seconds = self._clock() - started
                bars.update(task, completed=done, rate=f"{done / max(seconds, 1e-9):.3g}")

            yield advance

    def _lines(self, title: str, total: int, unit: str) -> Iterator[Advance]:
        started = last = self._clock()
        done_so_far = 0
        self.note(f"{title}: {total} {unit}")

        def advance(done: int) -> None:
            nonlocal last, done_so_far
            done_so_far = done
            now = self._clock()
            if now - last >= EVERY and done:
                last = now
                rate = done / (now - started)
                left = (total - done) / rate
                self.note(f"{title}: {done} of {total} {unit}, {rate:.3g}/s, {left:.0f} s left")

        yield advance
        self.note(f"{title}: {done_so_far} {unit} in {self._clock() - started:.1f} s")
