"""What Python code that TensorRT calls has in common.

TensorRT's C++ prints an exception of a callback and goes on as if there were none, so callbacks
keep it and the build raises it afterwards.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType


class Kept:
    """Catches what is raised inside ``with``, and keeps the first.

    Attributes:
        error: the first exception; None if there was none.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def __enter__(self) -> None:
        """Begin to catch."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Keep the exception, if it is the first."""
        if self.error is None:
            self.error = error
        return error is not None

    def release(self) -> None:
        """Raise what was kept, if anything was."""
        if self.error is not None:
            raise self.error


@contextmanager
def deprecated() -> Iterator[None]:
    """Let TensorRT's own deprecation warnings pass: what 10 deprecates, 8.6 has nothing else for.

    ``warnings`` is one for all threads, so this is for single calls, not for a build.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
