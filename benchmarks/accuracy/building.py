"""The fifth phase: TensorRT-RTX builds a plan of every model under TensorRT's rules.

Its builder needs no GPU; the plan is for compute capability 8.6, with FP32 around INT8.
"""

from benchmarks.accuracy.material import Material
from benchmarks.accuracy.request import INT8
from benchmarks.accuracy.stored import Found, digest, once
from quantlab.engines.base import BuildContext, ShapeRange
from quantlab.engines.trt import builder, library
from quantlab.engines.trt.options import Order, Settings
from quantlab.errors import QuantlabError

TARGET = "sm86"


def built(material: Material, setting: str) -> Found:
    """Return the plan's ``bytes``, or the ``error``, once for each model."""
    folder = material.cell(setting)
    return once(
        folder / "built.json",
        {"model": digest(folder / INT8)},
        lambda: _build(material, setting),
    )


def _build(material: Material, setting: str) -> Found:
    request = material.request(setting)
    name, samples, _ = request.arrays()
    shape = samples[: request.batch].shape
    context = BuildContext(shapes={name: ShapeRange(shape, shape, shape)})
    settings = Settings(around="fp32", targets=(TARGET,))
    path = material.cell(setting) / INT8
    try:
        order = Order(library.load("tensorrt-rtx"), settings, "int8", path, context)
        return {"bytes": len(builder.build(order).plan)}
    except QuantlabError as error:
        return {"error": str(error)}
