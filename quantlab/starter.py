"""``quantlab init``: a config made from the model's own inputs and outputs."""

import json
import re
from keyword import iskeyword
from pathlib import Path

from quantlab.datasets.batching import batch_size
from quantlab.errors import OutputError
from quantlab.files import write
from quantlab.graph import model as graph
from quantlab.records import TensorSpec
from quantlab.visible import visible

TEMPLATE = """\
# quantlab run {name}
# Relative paths are relative to this file.  All keys: quantlab schema

model: {model}
# inputs:
{inputs}
# outputs:
{outputs}

calibration:
  # One array for each input, named after it, first axis = sample:
  #   numpy.savez("samples.npz", {arrays})
  # Other kinds: image_folder, fashion_mnist (IDX), python (your function).
  dataset: &samples {{kind: npz, path: samples.npz}}
  # samples: 512            # the first 512; all if left out
  batch: {batch}                 # memory and speed only: the thresholds do not depend on it
  method: mse               # or percentile, minmax, entropy; auto: by what comes out

# Where INT8 loses accuracy, see 'quantlab analyze', and:
# repair: auto              # changes model and weights where that helps
# search: true              # finds the layers that stay out of INT8 for the targets below

engines:
  backend: openvino         # or onnxruntime, tensorrt, tensorrt-rtx
  precisions: [fp32, fp16, int8]

evaluation:
  # The calibration samples flatter INT8: give samples here that it has not seen.
  # With labels (an array `labels`), use metrics such as [top1, top5].
  dataset: *samples
  metrics: [{metrics}]

benchmark: {{batches: [{batches}], seconds: 3}}

# A limit that INT8 misses makes the command exit with 3:
# targets: {{cosine: 0.99, speedup: 1.5}}

output: {output}
"""


def init(model: Path | str, *, output: Path | None = None) -> Path:
    """Write a commented config beside the model and return its path.

    Args:
        model: ONNX file.
        output: the config file; ``<model>.yaml`` beside the model if None.

    Raises:
        ModelError: the model cannot be read.
        OutputError: the config exists already, is not to be YAML, or cannot be written.
    """
    model = Path(model)
    target = output or model.with_suffix(".yaml")
    if target.suffix not in (".yaml", ".yml"):
        raise OutputError(f"{target}: the config is written in YAML; name a file *.yaml")
    if target.exists():
        raise OutputError(f"{target} exists; delete it or name another file with --output")
    loaded = graph.load(model)
    inputs, outputs = graph.inputs(loaded), graph.outputs(loaded)
    batch = batch_size(inputs, 32)
    text = TEMPLATE.format(
        name=visible(target.name),
        model=_relative(model, target),
        inputs=_listed(inputs),
        outputs=_listed(outputs),
        arrays=", ".join(_argument(spec.name) for spec in inputs),
        batch=batch,
        metrics="cosine, agreement" if _is_classifier(outputs[0]) else "cosine, sqnr",
        batches=", ".join(map(str, dict.fromkeys((batch_size(inputs, 1), batch)))),
        output=_scalar(f"runs/{model.stem}"),
    )
    write(target, text)
    return target


def _listed(specs: tuple[TensorSpec, ...]) -> str:
    return "\n".join(f"#   {visible(str(spec))}" for spec in specs)


def _relative(model: Path, target: Path) -> str:
    model, folder = model.resolve(), target.resolve().parent
    return _scalar(str(model.relative_to(folder) if model.is_relative_to(folder) else model))


def _scalar(text: str) -> str:
    """Return text as YAML that means this very text: JSON's strings are YAML's."""
    plain = re.fullmatch(r"[A-Za-z][\w./-]*[/.][\w./-]*", text, re.ASCII)
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())


def _argument(name: str) -> str:
    plain = name.isidentifier() and not iskeyword(name) and name not in ("file", "allow_pickle")
    return f"{name}=..." if plain else visible(f"**{{{name!r}: ...}}")


def _is_classifier(output: TensorSpec) -> bool:
    return len(output.shape) == 2 and output.shape[1] != 1
