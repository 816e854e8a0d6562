"""Who does the work: the config's ``executor``.

An executor takes a Work and yields the parts of its units, in any order.  It is a frozen dataclass
of its config keys, in a file of its own, with a line in ``executors.EXECUTORS``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from quantlab.collect.work import Part, Unit, Work
from quantlab.collect.worker import Worker, host_lanes
from quantlab.engines.host import cpu_model, usable_cores
from quantlab.errors import ConfigError
from quantlab.progress import Advance


class Executor(Protocol):
    """Does units of work."""

    name: ClassVar[str]
    """Its name in EXECUTORS."""

    device: ClassVar[str]
    """What the model runs on, "cpu" or "cuda": activations of the two differ in their last bits."""

    distributed: ClassVar[bool]
    """Whether the samples are read by several processes, each its own part."""

    def available(self) -> str:
        """Return what it uses here, in a few words.

        Raises:
            EngineUnavailable: it cannot; says why and what to install.
        """
        ...

    def cores(self) -> int:
        """Return how many cores a worker uses."""
        ...

    def parts(self, work: Work, units: Sequence[Unit], advance: Advance) -> Iterator[Part]:
        """Do the units and yield each one's part once, as it is done.

        Args:
            work: what is to be collected.
            units: those that are to be done.
            advance: called with the number of samples that were done since the last call.

        Raises:
            QuantlabError: whatever keeps a unit from being done.
        """
        ...


@dataclass(frozen=True, slots=True)
class Local:
    """This process, on the CPU.

    Attributes:
        threads: cores that are used; all that this process may use if not given.
    """

    name: ClassVar[str] = "local"
    device: ClassVar[str] = "cpu"
    distributed: ClassVar[bool] = False

    threads: int | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError for no thread at all."""
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads: expected 1 or more, got {self.threads}", "threads")

    def available(self) -> str:
        """Return how many cores it uses."""
        return f"{self.cores()} cores of {cpu_model()}"

    def cores(self) -> int:
        """Return how many cores are used."""
        return self.threads or usable_cores()

    def parts(self, work: Work, units: Sequence[Unit], advance: Advance) -> Iterator[Part]:
        """Do the units in order."""
        with Worker(work, host_lanes, advance) as worker:
            for unit in units:
                yield worker.part(unit)
