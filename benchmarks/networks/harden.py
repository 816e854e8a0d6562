"""Make a network hard to quantize without changing what it computes.

    python -m benchmarks.networks.harden IN.onnx OUT.onnx [--seed 0] [--kinds pair stream norm]

Channels are written times s and read by weights over s (``sites.py``).  All s are powers of two,
so every product and sum of the FP32 network keeps its digits: the outputs are the same bits, and
only a quantizer that has one scale for a tensor sees the difference.

pair, stream: s = 2**k for each channel, k whole and uniform in -SPREAD..SPREAD.
norm:         s = 2**k for a few channels (OUTLIERS of them, at least 2), k = OUTLIER - 1 or
              OUTLIER; as in large transformers, where a few channels are tens of times the rest.

OUT.json beside the model says what was planted where.  Before anything is written the outputs of
both models for the same random inputs are compared, in ONNX Runtime.

Limits: deterministic for a seed.  Sums that a runtime cuts otherwise may differ in rounding, hence
        a tolerance of 1e-4 of the largest output.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from benchmarks.networks.sites import End, Site, find, shared

KINDS = ("pair", "stream", "norm")
SPREAD = 4
OUTLIERS = 0.03
OUTLIER = 6
TOLERANCE = 1e-4
SAMPLES = 4

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Settings:
    """How hard.

    Attributes:
        seed: of the factors.
        kinds: of sites to use.
        spread: largest exponent of pairs and streams, either way.
        outlier: exponent of norms.
        places: how many sites, drawn by the seed; 0 for all.
    """

    seed: int = 0
    kinds: tuple[str, ...] = KINDS
    spread: int = SPREAD
    outlier: int = OUTLIER
    places: int = 0


@dataclass(frozen=True, slots=True)
class Planted:
    """One site made hard.

    Attributes:
        kind: of the site.
        tensors: those whose channels are now unequal.
        readers: names of the nodes that read them.
        exponents: of two, one for each channel.
    """

    kind: str
    tensors: tuple[str, ...]
    readers: tuple[str, ...]
    exponents: tuple[int, ...]


def harden(
    model: onnx.ModelProto, settings: Settings
) -> tuple[onnx.ModelProto, tuple[Planted, ...]]:
    """Return the hard form and what was planted; ``model`` stays as it is."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    _separate(made)
    rng = np.random.default_rng(settings.seed)
    sites = [site for site in find(made) if site.kind in settings.kinds]
    if settings.places:
        chosen = rng.permutation(len(sites))[: settings.places]
        sites = [sites[i] for i in sorted(chosen)]
    weights = {t.name: t for t in made.graph.initializer}
    planted = []
    for site in sites:
        exponents = _exponents(site, rng, settings)
        for ends, sign in ((site.writers, 1), (site.readers, -1)):
            for end in ends:
                _scale(weights[made.graph.node[end.node].input[end.slot]], end, sign * exponents)
        readers = dict.fromkeys(made.graph.node[end.node].name for end in site.readers)
        exact = tuple(int(k) for k in exponents)
        planted.append(Planted(site.kind, site.tensors, tuple(readers), exact))
    return made, tuple(planted)


def _separate(model: onnx.ModelProto) -> None:
    """Give each reader of a constant its own copy, so that changing one changes no other."""
    counts = shared(model)
    values = {t.name: t for t in model.graph.initializer}
    for index, node in enumerate(model.graph.node):
        for slot, name in enumerate(node.input):
            if name in values and counts[name] > 1:
                copied = model.graph.initializer.add()
                copied.CopyFrom(values[name])
                copied.name = f"{name}__{index}_{slot}"
                node.input[slot] = copied.name
    used = shared(model)
    for name in [t.name for t in model.graph.initializer if not used[t.name]]:
        model.graph.initializer.remove(next(t for t in model.graph.initializer if t.name == name))


def _exponents(site: Site, rng: np.random.Generator, settings: Settings) -> NDArray[np.int64]:
    if site.kind != "norm":
        return rng.integers(-settings.spread, settings.spread + 1, site.channels)
    count = max(2, round(OUTLIERS * site.channels))
    exponents = np.zeros(site.channels, np.int64)
    chosen = rng.choice(site.channels, count, replace=False)
    exponents[chosen] = rng.integers(settings.outlier - 1, settings.outlier + 1, count)
    return exponents


def _scale(weight: TensorProto, end: End, exponents: NDArray[np.int64]) -> None:
    values = numpy_helper.to_array(weight)
    shape = [1] * values.ndim
    shape[end.axis] = -1
    scaled = np.ldexp(values, exponents.reshape(shape)).astype(values.dtype)
    weight.CopyFrom(numpy_helper.from_array(scaled, weight.name))


def difference(first: onnx.ModelProto, second: onnx.ModelProto, seed: int) -> float:
    """Return the largest difference of the outputs over the largest output, on random inputs."""
    import onnxruntime

    found: list[list[Array]] = []
    inputs = dict(_random(first, np.random.default_rng(seed)))
    for model in (first, second):
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        found.append(session.run(None, inputs))
    pairs = zip(*found, strict=True)
    return max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)) for a, b in pairs)


def _random(model: onnx.ModelProto, rng: np.random.Generator) -> Iterator[tuple[str, Array]]:
    """Yield a random array for each input; whole numbers stay below the table they look up."""
    rows = {t.name: t.dims[0] for t in model.graph.initializer if t.dims}
    constants = {t.name for t in model.graph.initializer}
    for value in model.graph.input:
        if value.name in constants:
            continue
        kind = value.type.tensor_type
        shape = [d.dim_value or SAMPLES for d in kind.shape.dim]
        if kind.elem_type in (TensorProto.INT64, TensorProto.INT32):
            tables = [
                rows.get(n.input[0], 2)
                for n in model.graph.node
                if n.op_type == "Gather" and n.input[1] == value.name
            ]
            dtype = np.int64 if kind.elem_type == TensorProto.INT64 else np.int32
            yield value.name, rng.integers(0, min(tables, default=2), shape, dtype)
        else:
            yield value.name, rng.standard_normal(shape).astype(np.float32)


def main() -> int:
    """Harden one file; 1 if there is nothing to scale or the outputs differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--spread", type=int, default=SPREAD)
    parser.add_argument("--outlier", type=int, default=OUTLIER)
    parser.add_argument("--places", type=int, default=0, help="how many sites; 0 for all")
    given = parser.parse_args()
    settings = Settings(given.seed, tuple(given.kinds), given.spread, given.outlier, given.places)
    model = onnx.load(given.source)
    made, planted = harden(model, settings)
    if not planted:
        print(f"{given.source}: no channels can be scaled by {settings.kinds}; nothing written")
        return 1
    onnx.checker.check_model(made, full_check=True)
    differs = difference(model, made, settings.seed)
    count = {kind: sum(p.kind == kind for p in planted) for kind in settings.kinds}
    print(f"{given.source}: {count}, outputs differ by {differs:.1e} of the largest")
    if differs > TOLERANCE:
        print(f"more than {TOLERANCE}: nothing written; lower --spread or --outlier")
        return 1
    onnx.save(made, given.target)
    facts = {
        "source": given.source.name,
        "settings": asdict(settings),
        "difference": differs,
        "planted": [asdict(place) for place in planted],
    }
    given.target.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
