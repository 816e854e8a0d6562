"""``quantlab init``: a config made from the model's own inputs and outputs."""

from pathlib import Path

from quantlab.errors import OutputError
from quantlab.files import write
from quantlab.graph import model as graph
from quantlab.records import TensorSpec

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
  method: entropy           # or minmax, percentile, mse

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

output: runs/{stem}
"""


def init(model: Path | str, *, output: Path | None = None) -> Path:
    """Write a commented config beside the model and return its path.

    Args:
        model: ONNX file.
        output: the config file; ``<model>.yaml`` beside the model if None.

    Raises:
        ModelError: the model cannot be read.
        OutputError: the config exists already, or cannot be written.
    """
    model = Path(model)
    target = output or model.with_suffix(".yaml")
    if target.exists():
        raise OutputError(f"{target} exists; delete it or name another file with --output")
    loaded = graph.load(model)
    inputs, outputs = graph.inputs(loaded), graph.outputs(loaded)
    fixed = {spec.shape[0] for spec in inputs if spec.shape and isinstance(spec.shape[0], int)}
    batch = min(fixed) if fixed else 32
    text = TEMPLATE.format(
        name=target.name,
        model=_relative(model, target),
        inputs=_listed(inputs),
        outputs=_listed(outputs),
        arrays=", ".join(f"{_argument(spec.name)}=..." for spec in inputs),
        batch=batch,
        metrics="cosine, agreement" if _is_classifier(outputs[0]) else "cosine, sqnr",
        batches=", ".join(str(size) for size in dict.fromkeys((1 if not fixed else batch, batch))),
        stem=model.stem,
    )
    write(target, text)
    return target


def _listed(specs: tuple[TensorSpec, ...]) -> str:
    return "\n".join(f"#   {spec}" for spec in specs)


def _relative(model: Path, target: Path) -> str:
    model, folder = model.resolve(), target.resolve().parent
    found = str(model.relative_to(folder) if model.is_relative_to(folder) else model)
    return found if found.replace("/", "").replace(".", "").isalnum() else f'"{found}"'


def _argument(name: str) -> str:
    return name if name.isidentifier() else f'**{{"{name}": ...}}'


def _is_classifier(output: TensorSpec) -> bool:
    return len(output.shape) == 2 and output.shape[1] != 1
