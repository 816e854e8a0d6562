"""TensorRT's messages: passed on to Python's logging, and read for what a build has to tell.

TensorRT answers with None where it fails; why is in its log alone.  So are the tensors that it
found no scale for, and whether it read a calibration cache or calibrated.

The logger is "quantlab.tensorrt"; its level is the caller's, and nothing is printed unless the
caller gives logging a handler.
Sources: the log lines of a build with implicit quantization as NVIDIA/TensorRT issues 1785, 3131,
3659 and 4058 show them; the log of TensorRT-RTX 1.7.1 on machines with and without a GPU.
"""

import gc
import logging
import re
from collections import Counter
from threading import Lock

from quantlab.cache import some
from quantlab.engines.trt.api_build import ILogger, Module, Severity

NAME = "quantlab.tensorrt"

LEVELS = {
    "INTERNAL_ERROR": logging.CRITICAL,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.INFO,
    "VERBOSE": logging.DEBUG,
}
"""Python's level by the name of TensorRT's severity."""

KINDS = 8
"""Different warnings that notes repeat; the log has the rest."""

TELLING = 6
"""Errors that a message quotes."""

_MISSING = re.compile(r"Missing scale and zero-point for tensor (.+?), expect")
_NO_DRIVER = re.compile(r"cudaError 35|CUDA driver version is insufficient|error: 35\b")
_SOURCE = re.compile(r" *\bIn \w+ at [^\s)]+:\d+")
_PREFIX = re.compile(
    r"^(?:\[[\w.]+::\w+::\d+\] |[\w.]+:\d+: (?:ERROR: )?|(?:\w+::)+\w+: (?=Error)|\(\w+\) )"
)

OTHER_LOGGER = "differs from one already"
"""Of a warning that there is another Builder or Runtime in this process."""

FROM_CACHE = ("Reading Calibration Cache for calibrator", "Generated calibration scales using")
REFUSED = (
    "Calibration table does not match calibrator algorithm type",
    "is bound to nullptr",
    "Calibration failure",
)
CALIBRATED = (
    "Starting Calibration",
    "Calibrated batch",
    "Post Processing Calibration",
    "Calibration completed",
)


class Log:
    """What TensorRT said during one build; may be told from any thread.

    Attributes:
        errors: in order.
        warnings: how often each was said; without those in ``missing``.
        missing: tensors without a scale, in order, each once.
        calibration: what was said of calibration and its cache, in order.
    """

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: Counter[str] = Counter()
        self.missing: dict[str, None] = {}
        self.calibration: list[str] = []
        self._lock = Lock()
        self._logger = logging.getLogger(NAME)

    def receive(self, severity: str, text: str) -> None:
        """Take one message of TensorRT's; ``severity`` is a key of LEVELS."""
        level = LEVELS[severity]
        self._logger.log(level, "%s", text)
        with self._lock:
            if any(mark in text for mark in (*FROM_CACHE, *REFUSED, *CALIBRATED)):
                self.calibration.append(text)
            if level >= logging.ERROR:
                self.errors.append(text)
            elif tensor := _MISSING.search(text):
                self.missing[tensor[1]] = None
            elif level == logging.WARNING and OTHER_LOGGER not in text:
                self.warnings[plain(text)] += 1

    @property
    def read_cache(self) -> bool:
        """Whether TensorRT says that its scales come from a calibration cache."""
        return any(FROM_CACHE[1] in line for line in self.calibration)

    def notes(self) -> tuple[str, ...]:
        """Return what a reader of the report must know."""
        found = []
        if self.missing:
            found.append(
                f"TensorRT found no scale for {len(self.missing)} tensors, and layers that read or "
                f"make them may not run in INT8: {some(self.missing)}"
            )
        for text, count in self.warnings.most_common(KINDS):
            often = f" ({count} times)" if count > 1 else ""
            found.append(f"TensorRT warned{often}: {text}")
        if len(self.warnings) > KINDS:
            more = len(self.warnings) - KINDS
            found.append(f"TensorRT warned of {more} more things; the logger {NAME!r} has them")
        return tuple(found)

    def why(self) -> str:
        """Return the errors in one line; "" if there were none.

        That the driver is missing is said after every error on a machine without a GPU, and is an
        answer only where it is the first.
        """
        told = [text for text in self.errors if not _NO_DRIVER.search(text)]
        chosen = told if told and not _first(self.errors) else self.errors
        lines = dict.fromkeys(plain(text) for text in chosen)
        return "; ".join(list(lines)[:TELLING])

    @property
    def no_driver(self) -> bool:
        """Whether the first error is that there is no driver, or one too old."""
        return _first(self.errors)


def make(module: Module, log: Log) -> ILogger:
    """Return a logger that tells ``log``; keep it for as long as anything that was given it.

    A Builder or Runtime that is made logs under a lock which the end of another takes, too.  Were
    an old one garbage, as part of an exception's frames, and collected while Python receives such
    a message, its thread would wait for itself.  So what is garbage goes before.
    """
    gc.collect()
    base = module.ILogger
    logger = logging.getLogger(NAME)
    if not logger.handlers:  # else Python prints warnings where nobody asked for them
        logger.addHandler(logging.NullHandler())

    class Logger(base):  # type: ignore[misc,valid-type]  # the base exists once TensorRT is imported
        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: Severity, msg: str) -> None:
            log.receive(severity.name, msg)

    made: ILogger = Logger()
    return made


def _first(errors: list[str]) -> bool:
    return bool(errors) and bool(_NO_DRIVER.search(errors[0]))


def plain(text: str) -> str:
    """Return a message on one line, without where in TensorRT's sources it comes from.

    >>> plain("IBuilder::build: Error Code 4: API Usage (No output. In validate at /a.cpp:7)")
    'Error Code 4: API Usage (No output.)'
    """
    line = " ".join(text.split())
    return _SOURCE.sub("", _PREFIX.sub("", line)).strip()
