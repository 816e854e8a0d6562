"""The config file: what a run is, in YAML, JSON or TOML.

Frozen and strict: an unknown key or a value of the wrong type is an error that names the line and
the nearest valid key.  Defaults are stated here once.  What is chosen by name (datasets,
calibrators, engines, metrics) stays a name with parameters; ``Plugs`` brings the tables that know
them, so that this module depends on none.  Relative paths are relative to the config file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field, FiniteFloat

from quantlab.records import PRECISIONS, Precision

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class _Open(_Section):
    """A section whose further keys are the parameters of what it names."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The keys beside the named ones."""
        return self.__pydantic_extra__ or {}


class Plug(_Open):
    """Something chosen by its ``kind``, with its parameters beside it."""

    kind: str


class Calibration(_Open):
    """How thresholds are found; the method's own parameters stand beside it."""

    dataset: Plug = Field(description="Samples that show the activations' ranges.")
    samples: PositiveInt | None = Field(
        None, description="How many, from the first; all if not given."
    )
    batch: PositiveInt = Field(
        32, description="Samples a batch; of the methods only minmax_mean depends on it."
    )
    method: str = Field(
        "mse",
        description="Calibrator that chooses the thresholds; auto: by what comes out of the "
        "network, first for all tensors, then tensor by tensor.",
    )
    held_back: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.25,
        description="Share of the samples, the last ones, that method auto, repair and search "
        "judge on and that nothing else sees; none is held back without them.",
    )
    tensors: Literal["quantized", "all"] = Field(
        "quantized",
        description="What is collected: the tensors that Q/DQ needs, or every one that the INT8 "
        "builder of TensorRT 8.6 to 10 looks for in a cache.",
    )
    tensorrt: str | None = Field(
        None,
        description="Version that will read the cache, e.g. 8.6.1; the installed one or 10.16.1.",
    )
    max_memory: Annotated[ByteSize, Field(gt=0)] | None = Field(
        None,
        description="Most memory that collecting may hold, e.g. 2GiB; tensors are collected in "
        "several passes where one would take more. No limit if not given.",
    )
    checkpoint: PositiveInt = Field(
        16, description="Batches from one checkpoint of the collection to the next."
    )
    nonfinite: Literal["fail", "ignore"] = Field(
        "fail", description="What to do when an activation is NaN or infinite."
    )


class Quantization(_Section):
    """Where INT8 goes."""

    policy: Literal["tensorrt", "openvino", "onnxruntime", "conservative"] | None = Field(
        None, description="Rules of where Q/DQ go; those of the backend if not given."
    )
    layers: Mapping[str, Literal["fp32", "fp16", "int8"]] = Field(
        default_factory=dict,
        description="Types of single nodes, by patterns of their names; the last one counts.",
    )


class Engines(_Open):
    """What is built; the backend's own parameters stand beside it."""

    backend: str = Field("openvino", description="Engine that runs the model.")
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1)] = Field(
        PRECISIONS, description="Engines to build; fp32 is what the others are compared with."
    )


class Evaluation(_Section):
    """What accuracy is measured on."""

    dataset: Plug = Field(description="Samples that were not used for calibration.")
    samples: PositiveInt | None = Field(
        None, description="How many, from the first; all if not given."
    )
    batch: PositiveInt = Field(32, description="Samples an inference.")
    metrics: Annotated[tuple[str | Plug, ...], Field(min_length=1)] = Field(
        ("top1",), description="What is measured: names, or {kind: name, parameters}."
    )
    output: str | None = Field(None, description="Output that is judged; the first if not given.")


class Benchmark(_Section):
    """How speed is measured."""

    batches: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = Field(
        (1, 32), description="Batch sizes."
    )
    seconds: PositiveFloat = Field(3.0, description="Measured time an engine and batch size.")
    rounds: PositiveInt = Field(10, description="Interleaved rounds that the time is cut into.")
    warmup_seconds: PositiveFloat = Field(
        0.2, description="Run before the first round, not counted."
    )


AUTO = "auto"
"""The method, or repair, that tries them all."""


class Config(_Section):
    """A whole run."""

    model: Path = Field(description="ONNX model in FP32.")
    calibration: Calibration
    executor: Plug = Field(
        Plug(kind="local"), description="Who collects: this process, a Ray cluster, or a GPU."
    )
    quantization: Quantization = Quantization()
    repair: Literal["none", "auto"] | tuple[str, ...] = Field(
        "none",
        description="Changes for the accuracy of INT8: names, or auto for each one that helps.",
    )
    search: bool = Field(
        False,  # noqa: FBT003  # a default, not an argument
        description="Whether to look for the layers that must stay out of INT8 for the targets.",
    )
    engines: Engines = Engines()
    evaluation: Evaluation | None = Field(None, description="Left out: no accuracy is measured.")
    benchmark: Benchmark | None = Field(Benchmark(), description="null: no speed is measured.")
    targets: Mapping[str, FiniteFloat] = Field(
        default_factory=dict,
        description="Limits for INT8, e.g. top1_drop in points, cosine, speedup; missed: exit 3.",
    )
    output: Path | None = Field(None, description="Run folder; runs/<config's name> if not given.")

    @property
    def tunes(self) -> bool:
        """Whether the INT8 model is chosen by what comes out of the network."""
        return self.calibration.method == AUTO or (bool(self.repair) and self.repair != "none")

    @property
    def holds_back(self) -> bool:
        """Whether calibration samples are kept for judging."""
        return self.tunes or self.search


@dataclass(frozen=True, slots=True)
class Plugs:
    """The tables of what a config can choose by name."""

    calibrators: Mapping[str, type]
    datasets: Mapping[str, type]
    engines: Mapping[str, type]
    executors: Mapping[str, type]
    repairs: Mapping[str, type]
    metrics: Mapping[str, type]
