"""The search: from all INT8, which layers leave it so that a target is met at the least latency.

Whole engines come first: FP32, FP16 and INT8 are judged and timed, which also tells what each layer
takes.  Plans between them are tried by simulation (explore.py); those on the front of judged
accuracy against expected latency are built and measured, for what a float layer between INT8 ones
costs is not known before.  What was measured decides (front.py).

A layer that leaves INT8 takes the type of what is around INT8.  Where that is FP16 and FP16 by
itself misses the target, a layer with values beyond FP16's is FP32 instead, and so are the nodes
that hand such values on.

The answer depends on the bench and the seed alone.  Limits: accuracy is of the samples held back,
so the smaller their number, the luckier a plan can look; the evaluation has the last word.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from quantlab.errors import ConfigError
from quantlab.findings import Plan, Searched, Sensitivity
from quantlab.records import Precision
from quantlab.search.base import Bench, Candidate, Floats, Judged, Latency
from quantlab.search.explore import Explorer, Nodes, explore
from quantlab.search.front import front, recommended
from quantlab.search.prior import prior
from quantlab.search.target import Target

BUILDS = 20
"""Engine builds of a search, the whole FP32, FP16 and INT8 ones among them."""

FASTEST = 4
"""Plans that meet the target and are built whatever else is, by expected latency."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A plan that was judged and timed."""

    candidate: Candidate
    judged: Judged
    latency: Latency


def search(
    bench: Bench,
    sensitivities: Sequence[Sensitivity],
    target: Target,
    *,
    seed: int = 0,
    builds: int = BUILDS,
) -> Searched:
    """Return the plans that were tried and timed, and the recommended one.

    Args:
        bench: judges and times plans.
        sensitivities: rows of kind "layer" say what quantizing a layer costs.
        target: that the recommended plan is to meet.
        seed: of what is tried at random.
        builds: most engines that are built.

    Raises:
        ConfigError: the builds do not suffice for the whole engines.
    """
    started = time.perf_counter()
    if builds <= len(bench.uniform):
        raise ConfigError(
            f"the search may build {builds} engines, and {', '.join(bench.uniform)} alone take "
            f"{len(bench.uniform)}; allow more"
        )
    tried, explorer = _whole(bench, sensitivities, target)
    explore(explorer, seed=seed)
    bar = _to_beat(tried, target)
    tried += [
        _timed(bench, explorer.candidate(nodes), explorer.judge(nodes))
        for nodes in _worth_building(explorer, builds - len(tried), bar)
    ]
    plans = _plans(tried, target)
    best, reason = recommended(plans, target)
    return Searched(
        target=target.name,
        limit=target.limit,
        held_back=bench.samples,
        batch=bench.batch,
        builds=sum(k.latency.speed == "measured" for k in tried),
        seconds=time.perf_counter() - started,
        plans=plans,
        chosen=best.label,
        met=best.meets,
        reason=reason + _limits(bench, target, plans),
    )


def _whole(
    bench: Bench, sensitivities: Sequence[Sensitivity], target: Target
) -> tuple[list[_Known], Explorer]:
    """Judge and time whole engines; return them, and what tries the plans between them."""
    wide = _broken_by_fp16(bench, target)
    units = {unit.node for unit in bench.units}
    rest = tuple((n, k) for n, k in wide if n not in units) if bench.around == "fp16" else ()
    always = bool(rest) and not bench.judge(Candidate("int8")).finite
    known: dict[Precision, _Known] = {}
    for precision in bench.uniform:
        kept = rest if always and precision == "int8" else ()
        known[precision] = _timed(bench, Candidate(precision, kept))
    tried = list(known.values())
    if wide and "fp16" in known:
        tried.append(_timed(bench, Candidate("fp16", wide)))
    real = known.get(bench.around, known["fp32"])
    expected = prior(bench.units, sensitivities, real.latency, known["int8"].latency)
    explorer = Explorer(bench, target, expected, {node for node, _ in wide}, rest, always)
    explorer.tried[frozenset()] = known["int8"].judged
    return tried, explorer


def _to_beat(tried: Sequence[_Known], target: Target) -> float:
    """Return the ms of the fastest float engine that meets the target, or of all if none does."""
    floats = [known for known in tried if known.candidate.precision != "int8"]
    serving = [known for known in floats if _meets(known.judged, target)] or floats
    return min(known.latency.ms for known in serving)


def _broken_by_fp16(bench: Bench, target: Target) -> Floats:
    """Return the nodes that FP16 breaks, where it misses the target by itself."""
    if "fp16" not in (*bench.uniform, bench.around):
        return ()
    if _meets(bench.judge(Candidate("fp16")), target):
        return ()
    return tuple((node, "fp32") for node in bench.beyond_fp16())


def _meets(judged: Judged, target: Target) -> bool:
    return judged.finite and target.meets(judged.accuracy)


def _timed(bench: Bench, candidate: Candidate, judged: Judged | None = None) -> _Known:
    return _Known(candidate, judged or bench.judge(candidate), bench.time(candidate))


def _worth_building(explorer: Explorer, most: int, bar: float) -> list[Nodes]:
    """Return mixed plans on the expected front: first those that meet the target.

    Args:
        explorer: has tried them.
        most: how many.
        bar: ms of the float engine to beat; what is expected to be slower is not built, save one.
    """
    ms = explorer.prior.ms
    served = [n for n, j in explorer.tried.items() if n and j.finite and j.macs_int8 > 0]

    def loss(nodes: Nodes) -> float:
        return explorer.target.loss(explorer.judge(nodes).accuracy)

    meeting = front([n for n in served if explorer.meets(n)], ms, loss)
    useful = [nodes for nodes in meeting if ms(nodes) < bar] or meeting[:1]
    others = [n for n in front(served, ms, loss) if n not in meeting and ms(n) < bar]
    first = useful[: min(FASTEST, most)]
    rest = [*useful[FASTEST:], *others]
    return [*first, *_spread(rest, most - len(first))]


def _spread(items: Sequence[Nodes], most: int) -> list[Nodes]:
    """Return at most ``most`` of the items, evenly, the last one among them."""
    if len(items) <= most:
        return list(items)
    return [items[(i + 1) * len(items) // most - 1] for i in range(most)]


def _plans(tried: Sequence[_Known], target: Target) -> tuple[Plan, ...]:
    """Return the plans, the fastest first."""

    def loss(known: _Known) -> float:
        judged = known.judged
        return target.loss(judged.accuracy) if judged.finite else float("inf")

    best = front(tried, lambda known: known.latency.ms, loss)
    labels = _labels(tried)
    found = [
        Plan(
            label=label,
            precision=known.candidate.precision,
            floats=known.judged.floats,
            macs_int8=known.judged.macs_int8,
            accuracy=known.judged.accuracy,
            latency_ms=known.latency.ms,
            low=known.latency.low,
            high=known.latency.high,
            speed=known.latency.speed,
            meets=_meets(known.judged, target),
            on_front=known in best and known.judged.finite,
        )
        for label, known in zip(labels, tried, strict=True)
    ]
    return tuple(sorted(found, key=lambda plan: plan.latency_ms))


def _labels(tried: Sequence[_Known]) -> list[str]:
    """Return names such as "int8", "int8 but 3", "int8 but 3 (2)"."""
    found: list[str] = []
    for known in tried:
        count = len(known.judged.floats)
        name = f"{known.candidate.precision} but {count}" if count else known.candidate.precision
        again = sum(label == name or label.startswith(f"{name} (") for label in found)
        found.append(f"{name} ({again + 1})" if again else name)
    return found


def _limits(bench: Bench, target: Target, plans: Sequence[Plan]) -> str:
    """Return what a reader of the reason must know, to follow it."""
    told = ""
    if any(plan.speed == "modelled" for plan in plans):
        told += "; latencies are modelled from the MACs, because the engines cannot run here"
    if bench.step is not None:
        told += (
            f"; one of the {bench.samples} samples held back is {bench.step:.3g} "
            f"{target.metric.unit} of {target.metric.name}"
        )
    return told
