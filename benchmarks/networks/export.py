"""A trained network as an ONNX file: opset 17, one input, one output, any number of samples.

PyTorch's exporter by tracing comes first: it folds batch normalization into the convolutions and
needs nothing installed but onnx.  Where it is gone, torch.export takes its place (opset 18).

    python -m benchmarks.networks.export NAME OUT.onnx      an untrained network, to look at
"""

import argparse
import copy
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.networks.layers import Module

OPSET = 17
NEWER = 18


@dataclass(frozen=True, slots=True)
class Exported:
    """How an export went.

    Attributes:
        exporter: trace or export.
        opset: of the file.
        bytes: of the file.
        difference: largest absolute difference between ONNX Runtime's outputs and PyTorch's over
            the largest output; None where ONNX Runtime is missing.
    """

    exporter: str
    opset: int
    bytes: int
    difference: float | None


def export(model: Module, example: Tensor, names: tuple[str, str], path: Path) -> Exported:
    """Write ``model`` to ``path``; ``names`` are those of its input and output."""
    import onnx

    plain = copy.deepcopy(model).to("cpu", memory_format=torch.contiguous_format).float().eval()
    for parameter in plain.parameters():
        parameter.requires_grad_(requires_grad=False)
    exporter, opset = "trace", OPSET
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _trace(plain, example, names, path)
        except (TypeError, RuntimeError, ImportError, AttributeError) as error:
            print(f"  export by tracing failed ({error}); trying torch.export", flush=True)
            exporter, opset = "export", NEWER
            _export(plain, example, names, path)
    onnx.checker.check_model(str(path), full_check=True)
    return Exported(exporter, opset, path.stat().st_size, _difference(plain, example, path))


def _trace(model: Module, example: Tensor, names: tuple[str, str], path: Path) -> None:
    torch.onnx.export(
        model,
        (example[:2],),
        str(path),
        dynamo=False,
        opset_version=OPSET,
        input_names=[names[0]],
        output_names=[names[1]],
        dynamic_axes={name: {0: "batch"} for name in names},
        do_constant_folding=True,
    )


def _export(model: Module, example: Tensor, names: tuple[str, str], path: Path) -> None:
    torch.onnx.export(
        model,
        (example[:2],),
        str(path),
        dynamo=True,
        opset_version=NEWER,
        input_names=[names[0]],
        output_names=[names[1]],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
    )


def _difference(model: Module, example: Tensor, path: Path) -> float | None:
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: example.numpy()})[0]
    with torch.no_grad():
        wanted = model(example).numpy()
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def main() -> None:
    """Export an untrained network."""
    from benchmarks.networks.recipes import RECIPES
    from benchmarks.networks.sentences import pairs

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("out", type=Path)
    chosen = parser.parse_args()
    torch.manual_seed(0)
    recipe = RECIPES[chosen.name]
    tokens = torch.from_numpy(pairs(4, 0)[:, 0])
    example = tokens if recipe.task == "embed" else torch.randn(4, 3, 32, 32)
    print(export(recipe.build(), example, ("input", "output"), chosen.out))


if __name__ == "__main__":
    main()
