"""Every error that quantlab raises on purpose.

    QuantlabError            exit code 2: bad input, one clear message, no traceback
    ├── ConfigError          the config file: unknown key, wrong type, impossible combination
    ├── ModelError           the ONNX file: unreadable, unsupported operator, nothing to quantize
    ├── DataError            samples: missing, wrong name, dtype or shape, unreadable, NaN
    ├── CalibrationError     activations or histograms that give no threshold
    ├── CacheError           a calibration cache: bad line, stale, incomplete
    ├── EngineError          an engine could not be built, loaded or run
    │   └── EngineUnavailable    its library or device is missing; the message says what to install
    ├── OutputError          the run folder: not writable, disk full, in use by another run
    └── TargetMissed         exit code 3: a target that the config states was missed

A message says which tensor, node, file or key it is about, what was expected, what came, and what
to do.  Errors of other libraries are translated where they are called, with the cause chained.
"""

from typing import ClassVar


class QuantlabError(Exception):
    """Base of every error raised on purpose; ``exit_code`` is what the command line returns."""

    exit_code: ClassVar[int] = 2


class ConfigError(QuantlabError):
    """The config file cannot be used as written.

    Attributes:
        key: the key that the message is about, so that the file's reader can add its line.
    """

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class ModelError(QuantlabError):
    """The ONNX model cannot be read, prepared or quantized."""


class DataError(QuantlabError):
    """Samples or labels are missing, malformed or do not fit the model."""


class CalibrationError(QuantlabError):
    """Activations or their histogram do not give a threshold."""


class CacheError(QuantlabError):
    """A calibration cache is malformed, stale or incomplete."""


class EngineError(QuantlabError):
    """An engine could not be built, loaded or run."""


class EngineUnavailable(EngineError):
    """The library or device that an engine needs is not there."""


class OutputError(QuantlabError):
    """The run folder cannot be written or is in use."""


class TargetMissed(QuantlabError):
    """A target stated in the config was missed."""

    exit_code: ClassVar[int] = 3
