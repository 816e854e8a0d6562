"""TensorRT-RTX as it is installed, and orders for it."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from quantlab.engines.base import NOTHING, BuildContext
from quantlab.engines.trt.library import Library, load
from quantlab.engines.trt.options import Order, Settings
from quantlab.records import Precision

Ordered = Callable[..., Order]


@pytest.fixture(scope="session")
def rtx() -> Library:
    """The real TensorRT-RTX, which builds without a GPU."""
    pytest.importorskip("tensorrt_rtx")
    return load("tensorrt-rtx")


@pytest.fixture
def ordered(rtx: Library, tmp_path: Path) -> Ordered:
    """Make an Order for a model with TensorRT-RTX, or with another Library."""

    def make(
        model: onnx.ModelProto,
        settings: Settings | None = None,
        precision: Precision = "fp32",
        *,
        context: BuildContext = NOTHING,
        library: Library | None = None,
    ) -> Order:
        path = tmp_path / "model.onnx"
        onnx.save(model, path)
        return Order(library or rtx, settings or Settings(), precision, path, context)

    return make
