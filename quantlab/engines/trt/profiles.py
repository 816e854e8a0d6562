"""Optimization profiles: the ranges of shapes that a plan takes, and the shape it is best at.

They come from the config's ``profiles``, or from what the run will feed: the shapes of the
calibration samples at every batch size of the config.  A plan needs one as soon as an input has an
open axis, and takes no shape outside of all of them.

Units: axes in elements; -1 in a network is an open axis.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from quantlab.engines.base import ShapeRange
from quantlab.engines.trt.api_build import Builder, IBuilderConfig, IOptimizationProfile, ITensor
from quantlab.errors import EngineError

Profile = Mapping[str, ShapeRange]
"""Of every input with an open axis."""

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Shapes:
    """One input in one of the config's ``profiles``.

    Attributes:
        min: the smallest shape that the plan takes.
        opt: the shape that it is fastest at.
        max: the largest.
    """

    min: Shape
    opt: Shape
    max: Shape


def shape_of(tensor: ITensor) -> Shape:
    """Return a tensor's shape; -1 is an open axis."""
    return tuple(tensor.shape[axis] for axis in range(len(tensor.shape)))


def chosen(
    inputs: Mapping[str, Shape],
    configured: Sequence[Mapping[str, Shapes]],
    needed: Mapping[str, ShapeRange],
) -> tuple[Profile, ...]:
    """Return the profiles to build; none where every axis is fixed.

    Args:
        inputs: shapes of the network's inputs.
        configured: the config's profiles.
        needed: what the run will feed, by input; inputs without an open axis may be missing.

    Raises:
        EngineError: a profile that the inputs or ``needed`` do not fit, or none to be had.
    """
    for number, profile in enumerate(configured):
        for name, shapes in profile.items():
            _check(f"profiles[{number}].{name}", name, shapes, inputs)
    is_open = {name: shape for name, shape in inputs.items() if -1 in shape}
    if not is_open:
        return ()
    if not configured:
        return ({name: _needed(name, shape, needed) for name, shape in is_open.items()},)
    made = tuple(_whole(number, each, is_open) for number, each in enumerate(configured))
    for name in is_open:
        if name in needed:
            _check_cover(name, needed[name], [profile[name] for profile in made])
    return made


def add(builder: Builder, config: IBuilderConfig, profile: Profile) -> IOptimizationProfile:
    """Add a profile to a build; return TensorRT's object, which the builder owns.

    Raises:
        EngineError: TensorRT refuses it.
    """
    made = fill(builder, profile)
    if config.add_optimization_profile(made) < 0:
        raise EngineError(
            f"TensorRT refuses the optimization profile {_described(profile)}; "
            "change 'profiles' in the config"
        )
    return made


def fill(builder: Builder, profile: Profile) -> IOptimizationProfile:
    """Return TensorRT's object for a profile, which the builder owns."""
    made = builder.create_optimization_profile()
    for name, shapes in profile.items():
        made.set_shape(name, shapes.least, shapes.usual, shapes.most)
    return made


def fixed(shapes: Mapping[str, Shape]) -> Profile:
    """Return a profile that takes exactly ``shapes``."""
    return {name: ShapeRange(shape, shape, shape) for name, shape in shapes.items()}


def _check(key: str, name: str, shapes: Shapes, inputs: Mapping[str, Shape]) -> None:
    if name not in inputs:
        raise EngineError(
            f"{key}: the model has no input {name!r}; it has {', '.join(map(repr, inputs))}"
        )
    want = inputs[name]
    for which, got in (("min", shapes.min), ("opt", shapes.opt), ("max", shapes.max)):
        fits = len(got) == len(want) and all(
            g >= 0 and w in (-1, g) for g, w in zip(got, want, strict=True)
        )
        if not fits:
            raise EngineError(
                f"{key}.{which}: expected a shape that fits {_text(want)}, where -1 is an open "
                f"axis, got {_text(got)}"
            )
    if not all(a <= b <= c for a, b, c in zip(shapes.min, shapes.opt, shapes.max, strict=True)):
        raise EngineError(
            f"{key}: expected min <= opt <= max along every axis, got {_text(shapes.min)}, "
            f"{_text(shapes.opt)}, {_text(shapes.max)}"
        )


def _needed(name: str, shape: Shape, needed: Mapping[str, ShapeRange]) -> ShapeRange:
    if name in needed and len(needed[name].usual) == len(shape):
        return needed[name]
    raise EngineError(
        f"input {name!r} has the open shape {_text(shape)}, and nothing says which shapes will "
        "come; give them in the config: 'profiles: [{"
        f"{name}: {{min: [...], opt: [...], max: [...]}}}}]'"
    )


def _whole(number: int, profile: Mapping[str, Shapes], is_open: Mapping[str, Shape]) -> Profile:
    missing = [name for name in is_open if name not in profile]
    if missing:
        raise EngineError(
            f"profiles[{number}]: input {missing[0]!r} has the open shape "
            f"{_text(is_open[missing[0]])} and is missing; give its min, opt and max"
        )
    return {
        name: ShapeRange(profile[name].min, profile[name].opt, profile[name].max)
        for name in is_open
    }


def _check_cover(name: str, needed: ShapeRange, ranges: Iterable[ShapeRange]) -> None:
    ranges = list(ranges)
    for shape in (needed.least, needed.usual, needed.most):
        if not any(covers(given, shape) for given in ranges):
            told = ", ".join(f"{_text(r.least)} to {_text(r.most)}" for r in ranges)
            raise EngineError(
                f"input {name!r}: the run needs shape {_text(shape)}, and the config's profiles "
                f"take {told}; widen them, or change the batch sizes and samples"
            )


def covers(given: ShapeRange, shape: Shape) -> bool:
    """Whether a profile's range for an input takes a shape."""
    return len(shape) == len(given.least) and all(
        a <= x <= b for a, x, b in zip(given.least, shape, given.most, strict=True)
    )


def _described(profile: Profile) -> str:
    return ", ".join(
        f"{name}: {_text(r.least)} to {_text(r.most)}, best at {_text(r.usual)}"
        for name, r in profile.items()
    )


def _text(shape: Shape) -> str:
    return f"[{', '.join(map(str, shape))}]"
