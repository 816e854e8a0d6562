"""The errors of all rows, summed over batches; one batch is in memory.

For each batch the float tensors and the INT8 tensors flow from segment to segment.  In front of
each segment every row that begins in it is run twice: alone, from the float tensors with only its
switches on and float segments behind; and left out, from the INT8 tensors with all switches but
its own and INT8 segments behind.  What comes out of the segment as if nothing had been switched is
not run further.

Units: errors are the power of the difference over that of FP32.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from quantlab.analyze.chain import Link
from quantlab.analyze.channels import channel_amax, channel_axis, joined
from quantlab.analyze.rows import Row
from quantlab.datasets.base import Batch
from quantlab.errors import DataError
from quantlab.graph.sites import Edge
from quantlab.metrics.base import Metric
from quantlab.simulate import Array, noise_of, power_of, relative_errors

Edges = frozenset[Edge]
State = dict[str, Array]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a metric is taken of.

    Attributes:
        metric: to take.
        output: of which output.
    """

    metric: Metric
    output: str


@dataclass(slots=True)
class Power:
    """Sums of squares: of a difference, of what it is a part of, and of the channels' means.

    ``means`` is the power that the mean difference of each channel would have by itself.
    """

    noise: float = 0.0
    signal: float = 0.0
    count: int = 0
    sums: NDArray[np.float64] | None = None

    def add(self, plain: Array, int8: Array, axis: int | None = None) -> None:
        """Add a batch; with ``axis``, of the channels, their means too."""
        self.noise += power_of(int8, plain)
        self.signal += power_of(plain)
        if axis is not None:
            difference = np.subtract(int8, plain, dtype=np.float64)
            others = tuple(i for i in range(plain.ndim) if i != axis)
            self.sums = joined(self.sums, difference.sum(axis=others), np.add)
            self.count += plain.size // plain.shape[axis]

    @property
    def error(self) -> float:
        """The noise over the signal."""
        if self.noise == 0:
            return 0.0
        return self.noise / self.signal if self.signal else float("inf")

    @property
    def shift(self) -> float:
        """Share of the noise that a constant for each channel would take away."""
        if self.sums is None or self.noise == 0:
            return 0.0
        return float(np.square(self.sums).sum() / self.count / self.noise)


@dataclass(slots=True)
class Variant:
    """Sums for one set of inputs: (outputs,) powers at the network's output, and scores."""

    alone: NDArray[np.float64]
    without: NDArray[np.float64]
    scores: list[NDArray[np.float64]] = field(default_factory=list)


class Tally:
    """What is summed up while batches pass.

    Attributes:
        samples: how many there were.
        power: (outputs,) of FP32.
        everything: (outputs,) power of the error of INT8.
        rows: by the inputs that they are about; those that no output depends on are left out.
        variants: sums, by the same.
        own: error of each layer's output, and of each quantized tensor.
        channels: (channels,) largest magnitude in each quantized tensor, by name.
        scores: of FP32.
    """

    def __init__(
        self,
        chain: Sequence[Link],
        rows: Iterable[Row],
        outputs: Sequence[str],
        judged: Judged | None = None,
    ) -> None:
        self.chain, self.outputs, self.judged = chain, tuple(outputs), judged
        self.samples = 0
        self.power = np.zeros(len(self.outputs))
        self.everything = np.zeros(len(self.outputs))
        self.rows: dict[Edges, list[Row]] = {}
        self._begins: list[list[Edges]] = [[] for _ in chain]
        for row in rows:
            first = next((i for i, k in enumerate(chain) if row.edges & k.switches.on.keys()), None)
            if first is None:
                continue
            if row.edges not in self.rows:
                self._begins[first].append(row.edges)
            self.rows.setdefault(row.edges, []).append(row)
        zeros = np.zeros(len(self.outputs))
        self.variants = {edges: Variant(zeros.copy(), zeros.copy()) for edges in self.rows}
        self.own: dict[Row, Power] = {}
        self.channels: dict[str, NDArray[np.float64]] = {}
        self.scores: list[NDArray[np.float64]] = []

    def add(self, batch: Batch) -> None:
        """Run everything on a batch.

        Raises:
            DataError: the metric cannot judge the output, or its shape depends on values.
            EngineError: a segment cannot be run.
        """
        plain, int8 = dict(batch.arrays), dict(batch.arrays)
        wanted = self._finish(0, plain, frozenset(), int8=False)
        got = self._finish(0, int8, frozenset(), int8=True)
        self.samples += batch.size
        self.power += [power_of(wanted[name]) for name in self.outputs]
        self.everything += noise_of(got, wanted, self.outputs)
        if self.judged is not None:
            self.scores.append(_score(self.judged, wanted, wanted, batch))
        for index, link in enumerate(self.chain):
            off = link.switch(plain, (), _watched(link))
            on = link.switch(int8, tuple(link.switches.on))
            for edges in self._begins[index]:
                variant = self.variants[edges]
                came = self._alone(index, plain, off, edges)
                came = wanted if came is None else came
                variant.alone += noise_of(came, wanted, self.outputs)
                if self.judged is not None:
                    variant.scores.append(_score(self.judged, came, wanted, batch))
                left = self._without(index, int8, on, edges)
                left = got if left is None else left
                variant.without += noise_of(left, wanted, self.outputs)
            plain, int8 = link.advance(plain, int8=False), link.advance(int8, int8=True)

    def errors(self) -> tuple[float, Mapping[Edges, float], Mapping[Edges, float]]:
        """Return the error of INT8, and of each set of inputs alone, and of all but it.

        Raises:
            DataError: there was no sample.
        """
        found = [self.everything]
        found += [noise for v in self.variants.values() for noise in (v.alone, v.without)]
        whole, *parts = (float(e) for e in relative_errors(np.array(found), self.power))
        alone = dict(zip(self.variants, parts[::2], strict=True))
        without = dict(zip(self.variants, parts[1::2], strict=True))
        return whole, alone, without

    def _alone(self, index: int, state: State, off: State, edges: Edges) -> State | None:
        """Return the outputs with only ``edges`` quantized; None if nothing differs."""
        link = self.chain[index]
        here = edges & link.switches.on.keys()
        own = {row: _own(link, row) for row in self.rows[edges] if row.kind != "weight"}
        made = link.switch(state, here, [int8 for _, int8 in own.values()])
        for row, (plain, int8) in own.items():
            self._add_own(link, row, {**state, **off}[plain], made[int8])
        if here == edges and _same(made, off, link.segment.outputs):
            return None
        return self._finish(index + 1, link.kept(state, made), edges, int8=False)

    def _without(self, index: int, state: State, on: State, edges: Edges) -> State | None:
        """Return the outputs with all but ``edges`` quantized; None if nothing differs."""
        link = self.chain[index]
        made = link.switch(state, link.switches.on.keys() - edges)
        if edges <= link.switches.on.keys() and _same(made, on, link.segment.outputs):
            return None
        return self._finish(index + 1, link.kept(state, made), edges, int8=True)

    def _finish(self, start: int, state: State, edges: Edges, *, int8: bool) -> State:
        """Run the segments from ``start`` on, where only ``edges`` differ from the rest."""
        for link in self.chain[start:]:
            here = edges & link.switches.on.keys()
            if here:
                on = link.switches.on.keys() - here if int8 else here
                state = link.kept(state, link.switch(state, on))
            else:
                state = link.advance(state, int8=int8)
        return state

    def _add_own(self, link: Link, row: Row, plain: Array, int8: Array) -> None:
        """Add the error of a layer's output, or of a tensor, and look at its channels."""
        op = row.op if row.kind == "layer" else link.readers[row.name]
        axis = channel_axis(op, plain.ndim) if plain.ndim else None
        self.own.setdefault(row, Power()).add(plain, int8, axis if row.kind == "layer" else None)
        if row.kind == "activation" and axis is not None:
            known = self.channels.get(row.name)
            self.channels[row.name] = joined(known, channel_amax(plain, axis), np.maximum)


def _score(judged: Judged, outputs: State, wanted: State, batch: Batch) -> NDArray[np.float64]:
    """Return the metric's scores of a batch, against labels or against what FP32 gives."""
    ours, theirs = (rows_of(state[judged.output], batch) for state in (outputs, wanted))
    target = batch.labels if judged.metric.compares == "labels" else theirs
    if target is None:
        raise DataError(f"metric {judged.metric.name!r} compares with labels; {batch} have none")
    return judged.metric.scores(ours, target)


def rows_of(output: Array, batch: Batch) -> Array:
    """Return an output with the samples as its first axis.

    Raises:
        DataError: it has no such axis.
    """
    if output.shape[:1] == (batch.size,):
        return output
    if batch.size == 1:
        return output[None]
    raise DataError(
        f"the judged output has shape {output.shape} for {batch.size} samples; expected a row a "
        "sample: analyze with batches of 1, or choose another output"
    )


def _watched(link: Link) -> list[str]:
    """Return what a segment makes that own errors are told of, in its float form."""
    tensors = (plain for plain, _ in link.switches.tensors.values())
    names = [*link.switches.layers.values(), *tensors]
    return [name for name in names if name not in link.segment.inputs]


def _own(link: Link, row: Row) -> tuple[str, str]:
    """Return the tensor that a row's own error is told of: in the float form, and in INT8."""
    if row.kind == "activation":
        return link.switches.tensors[row.name]
    output = link.switches.layers[row.name]
    return output, output


def _same(left: State, right: State, names: Iterable[str]) -> bool:
    return all(np.array_equal(left[name], right[name]) for name in names)
