"""Raising old opsets to the first that can express quantization per channel.

QuantizeLinear has ``axis`` from opset 13 on.  Nothing newer is needed, and every parser from
TensorRT 8.6 (opset 17) on reads 13, so newer models keep their opset and older ones go no further.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import onnx_ir as ir

from quantlab.errors import ModelError
from quantlab.graph.model import opset
from quantlab.graph.passes import PassResult, copy

TARGET_OPSET = 13


def raise_opset(model: ir.Model, target: int = TARGET_OPSET) -> PassResult:
    """Convert a model below opset ``target`` to it.

    Raises:
        ModelError: the converter of onnx has no rule for one of the operators.
    """
    before = opset(model)
    if before >= target:
        return PassResult(model, changed=False)
    from onnxscript.version_converter import ConvertVersionPass

    with _reasons("onnxscript.version_converter") as reasons:
        result = ConvertVersionPass(target, fallback=True)(copy(model))
    if not result.modified:
        raise ModelError(
            f"the model cannot be raised from opset {before} to {target}"
            f"{': ' + reasons[-1] if reasons else ''}; export it again with opset {target} or newer"
        )
    converted = result.model
    imports = [
        onnx.helper.make_opsetid(domain, version)
        for domain, version in converted.graph.opset_imports.items()
    ]
    needed = onnx.helper.find_min_ir_version_for(imports, ignore_unknown=True)
    converted.ir_version = max(converted.ir_version, needed)
    return PassResult(converted, changed=True)


@contextmanager
def _reasons(logger_name: str) -> Iterator[list[str]]:
    """Collect the exceptions that a library only logs, and keep them off the terminal."""
    reasons: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[1]:
                reasons.append(str(record.exc_info[1]).strip().splitlines()[-1])

    logger = logging.getLogger(logger_name)
    handler, propagated = Keep(), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield reasons
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated
