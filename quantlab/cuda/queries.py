"""Inferences one after the other, timed on the GPU as trtexec times them.

    upload stream    | H2D 0 | H2D 1 |       | H2D 2 |
    compute stream           | inference 0 | inference 1 | inference 2 |
    download stream                        | D2H 0 |     | D2H 1 |

Each of the lanes has buffers of its own, so with two lanes the copies of one query run beside the
inference of another; a lane is used again once its last query came back.  Events order the streams
and are the clock: h2d, compute and d2h are the time between two events of one stream, in ms, and
``seconds`` is from the first event of the first query to the last event of the last.  Enqueue is
host time spent inside ``infer``.  Events block the waiting thread instead of spinning, which is
trtexec's default.
Source: the options and reports of trtexec in NVIDIA/TensorRT, samples/common.
Limits: the host's part is Python, about 10 microseconds a query beside what CUDA's driver takes; an
inference that takes less than that on the GPU is bound by it, which shows in ``seconds`` and not in
``compute``.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantlab.cuda.device import Device

Queue = Callable[[Any], object]
"""Queues work on a PyCUDA stream."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A query's own buffers: copy in, infer, copy out."""

    upload: Queue
    infer: Queue
    download: Queue


@dataclass(frozen=True, slots=True)
class Times:
    """Of consecutive queries; see the module's description.  Arrays are (queries,) in ms."""

    seconds: float
    h2d: NDArray[np.float64]
    compute: NDArray[np.float64]
    d2h: NDArray[np.float64]
    enqueue: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Limit:
    """When to stop: at least ``least`` queries and at least ``seconds`` of host time."""

    least: int
    seconds: float


def timed(
    device: Device,
    lanes: Sequence[Lane],
    limit: Limit,
    *,
    transfers: bool,
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """Run queries until the limit is reached; call it inside ``Device.current``.

    Args:
        device: inferences run on its stream.
        lanes: queries that may be under way at once, used in turns.
        limit: when to stop.
        transfers: whether each query copies; if not, ``h2d`` and ``d2h`` are 0 and the inputs must
            lie on the device already.
        clock: host time in seconds, rising.
    """
    run = _Run(device, lanes, transfers=transfers, clock=clock)
    start, number = clock(), 0
    while number < max(limit.least, 1) or clock() - start < limit.seconds:
        run.query(number)
        number += 1
    return run.times(number)


class _Run:
    """The queries of one measurement; mutable on purpose: rows are added as queries come back."""

    def __init__(
        self, device: Device, lanes: Sequence[Lane], *, transfers: bool, clock: Callable[[], float]
    ) -> None:
        cuda, flags = device.cuda, device.cuda.event_flags.BLOCKING_SYNC
        self._lanes, self._transfers, self._clock = lanes, transfers, clock
        self._up, self._down = cuda.Stream(), cuda.Stream()
        self._compute = device.stream
        self._begin = cuda.Event(flags)
        # Start and end of H2D, of the inference and of D2H, for each lane.
        self._events = [[cuda.Event(flags) for _ in range(6)] for _ in lanes]
        self._rows: list[tuple[float, float, float]] = []
        self._enqueue: list[float] = []

    def query(self, number: int) -> None:
        """Queue a query, after the last one of its lane came back."""
        lane = self._lanes[number % len(self._lanes)]
        if number >= len(self._lanes):
            self._collect(number - len(self._lanes))
        sent, arrived, started, done, leaving, back = self._events[number % len(self._lanes)]
        if number == 0:
            self._begin.record(self._up if self._transfers else self._compute)
        if self._transfers:
            sent.record(self._up)
            lane.upload(self._up)
            arrived.record(self._up)
            self._compute.wait_for_event(arrived)
        started.record(self._compute)
        before = self._clock()
        lane.infer(self._compute)
        self._enqueue.append(self._clock() - before)
        done.record(self._compute)
        if self._transfers:
            self._down.wait_for_event(done)
            leaving.record(self._down)
            lane.download(self._down)
            back.record(self._down)

    def times(self, number: int) -> Times:
        """Wait for the last of ``number`` queries and return all times."""
        for left in range(max(number - len(self._lanes), 0), number):
            self._collect(left)
        last = self._events[(number - 1) % len(self._lanes)]
        h2d, compute, d2h = np.array(self._rows).T
        return Times(
            seconds=self._begin.time_till(last[5 if self._transfers else 3]) / 1e3,
            h2d=h2d,
            compute=compute,
            d2h=d2h,
            enqueue=1e3 * np.array(self._enqueue),
        )

    def _collect(self, number: int) -> None:
        sent, arrived, started, done, leaving, back = self._events[number % len(self._lanes)]
        (back if self._transfers else done).synchronize()
        h2d = sent.time_till(arrived) if self._transfers else 0.0
        d2h = leaving.time_till(back) if self._transfers else 0.0
        self._rows.append((h2d, started.time_till(done), d2h))
