"""How a step says what it is doing, without knowing who listens."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]
"""Takes the number of units done so far."""


class Progress(Protocol):
    """Receives a run's progress: the command line draws it, a library user may ignore it."""

    def track(self, title: str, *, total: int, unit: str) -> AbstractContextManager[Advance]:
        """Start a measured task of ``total`` units; the block calls the result as it advances."""
        ...

    def note(self, text: str) -> None:
        """Say something that is worth a line."""
        ...

    def warn(self, text: str) -> None:
        """Say something that the user should act on; it is in the report too."""
        ...


class Silent:
    """Says nothing."""

    @contextmanager
    def track(self, title: str, *, total: int, unit: str) -> Iterator[Advance]:  # noqa: ARG002  the Protocol's names
        """Ignore the task."""
        yield lambda _: None

    def note(self, text: str) -> None:
        """Ignore the note."""

    def warn(self, text: str) -> None:
        """Ignore the warning."""
