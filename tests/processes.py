"""Work that a test must not share its process with: signals, and libraries that change it."""

import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

T = TypeVar("T")

SECONDS = 300
"""After which a process is taken for stuck."""


def apart(function: Callable[..., T], *arguments: object) -> T:
    """Return what a function of a module gives in a new process, or raise what it raises.

    Ctrl-C is heard there, whatever this process was started with.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_hear) as pool:
        return pool.submit(function, *arguments).result(SECONDS)


def _hear() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
