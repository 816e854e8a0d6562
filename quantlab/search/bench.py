"""The bench of a real job: plans are judged by simulation and timed on its backend.

A backend that builds but cannot run here (TensorRT without a GPU) builds nothing; its speeds are
modelled.  A backend that chooses the INT8 layers by itself (TensorRT's implicit quantization) has
no plans to search.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx_ir as ir

from quantlab.engines.base import Engine
from quantlab.errors import ConfigError, EngineUnavailable
from quantlab.graph.pins import Float
from quantlab.records import PRECISIONS, Precision
from quantlab.search.base import Candidate, Judged, Latency, Unit
from quantlab.search.judging import Judging, Passes
from quantlab.search.modelled import modelled
from quantlab.search.models import Made, Models
from quantlab.search.overflow import beyond_fp16
from quantlab.search.target import Target
from quantlab.search.timing import Stopwatch, Track, stopwatch
from quantlab.simulate import Draft


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """What is searched.

    Attributes:
        prepared: the model of the FP32 and FP16 engines, with the nodes marked that the config
            gives a type.
        draft: of the INT8 model.
        batches: the samples held back.
        output: that is judged; the model's first if None.
        precisions: of the config; an FP16 engine is a plan only if it is among them.
    """

    prepared: ir.Model
    draft: Draft
    batches: Passes
    output: str | None = None
    precisions: Sequence[Precision] = PRECISIONS


@dataclass(frozen=True, slots=True, eq=False)
class JobBench:
    """A Bench; see the module's text.

    Attributes:
        models: makes the plans' models.
        judging: judges them.
        watch: times them; None where speeds are modelled.
        batch: samples an inference.
        uniform: precisions of whole engines.
    """

    models: Models
    judging: Judging
    watch: Stopwatch | None
    batch: int
    uniform: Sequence[Precision]

    @property
    def units(self) -> Sequence[Unit]:
        """See ``Bench``."""
        return self.models.units()

    @property
    def around(self) -> Float:
        """See ``Bench``."""
        return self.models.around

    @property
    def samples(self) -> int:
        """See ``Bench``."""
        return self.judging.samples

    @property
    def step(self) -> float | None:
        """See ``Bench``."""
        return self.judging.step

    def beyond_fp16(self) -> Sequence[str]:
        """See ``Bench``; of the FP16 engine, and of INT8 if FP16 is around it."""
        sources = [self.models.prepared]
        sources += [self.models.draft.model] if self.around == "fp16" else []
        found = [
            beyond_fp16(source, lambda: (batch.arrays for batch in self.judging.batches()))
            for source in sources
        ]
        return tuple(dict.fromkeys(node for nodes in found for node in nodes))

    def judge(self, candidate: Candidate) -> Judged:
        """See ``Bench``."""
        made = self.models.make(candidate)
        accuracy, finite = self.judging.score(made.judged)
        return Judged(accuracy, finite, made.macs_int8, made.floats)

    def time(self, candidate: Candidate) -> Latency:
        """See ``Bench``."""
        made: Made = self.models.make(candidate)
        if self.watch is None:
            return modelled(made, candidate, around=self.around, batch=self.batch)
        return self.watch.time(candidate, made)


@contextmanager
def opened(subject: Subject, target: Target, track: Track) -> Iterator[JobBench]:
    """Run FP32 on the samples held back, and make ready to judge and time plans.

    Args:
        subject: what is searched.
        target: that plans are judged by.
        track: what they are timed with.

    Raises:
        ConfigError: the backend chooses the INT8 layers, or the target needs labels that are not
            there.
        DataError: no samples, or outputs that the metric cannot judge.
    """
    engine = track.engine
    if not engine.recipe.explicit:
        raise ConfigError(
            "'search: true' chooses the INT8 layers, and TensorRT's implicit INT8 chooses them by "
            "itself; set 'engines.quantization: explicit'",
            "search",
        )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="quantlab.search.")))
        outputs, engines = folder / "fp32", folder / "engines"
        outputs.mkdir()
        engines.mkdir()
        judging = Judging.make(
            subject.prepared, subject.batches, target, output=subject.output, folder=outputs
        )
        watch = stack.enter_context(stopwatch(track, engines)) if _runs(engine) else None
        models = Models(subject.prepared, subject.draft, engine.recipe.around)
        wanted = ("fp32", "int8", *subject.precisions)
        uniform = [precision for precision in PRECISIONS if precision in wanted]
        yield JobBench(models, judging, watch, track.schedule.batches[0], uniform)


def _runs(engine: Engine) -> bool:
    try:
        engine.runnable()
    except EngineUnavailable:
        return False
    return True
