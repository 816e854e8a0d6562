"""What is said between the coordinator, the process that talks to Ray, and the workers."""

import pickle
import traceback
from dataclasses import dataclass
from typing import NoReturn

from quantlab.collect.work import Unit, Work


@dataclass(frozen=True, slots=True)
class Task:
    """What the process that talks to Ray is to do.

    Attributes:
        work: what to collect.
        units: those to do.
        workers: how many processes do them.
        threads: cores of each.
        address: the cluster's; None to start one on this machine.
        temporary: Ray's folder for that one; None for Ray's own choice.
        folder: the coordinator's working folder; a worker goes there if it has it.
        path: where the coordinator imports from; a worker looks there too.
    """

    work: Work
    units: tuple[Unit, ...]
    workers: int
    threads: int
    address: str | None
    temporary: str | None
    folder: str
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Connected:
    """The cluster was joined; ``address`` is its head's."""

    address: str


class Elsewhere(Exception):
    """The traceback of an error that another process raised, as text: the error's cause."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error that another process raised.

    Attributes:
        error: it.
        trace: its traceback.
    """

    error: Exception
    trace: str

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        """Return the failure that is ``error``; one that cannot be sent becomes a RuntimeError."""
        trace = "".join(traceback.format_exception(error))
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301  just written
        except Exception:  # noqa: BLE001  a class of the user's can fail in any way
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return cls(error, trace)

    def throw(self) -> NoReturn:
        """Raise the error."""
        raise self.error from Elsewhere(f"\n{self.trace}")
