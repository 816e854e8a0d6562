"""Train the two example networks of quantlab on Fashion-MNIST and export them to ONNX.

What:    ``resnet.onnx`` (residual network) and ``mobilenet.onnx`` (inverted residuals with
         depthwise convolutions and ReLU6), each with a plain-text training log beside it;
         with ``--write-data`` the shipped data files instead.
Input:   ``image`` float32 [N, 1, 28, 28]; pixels 0..255 become (pixel / 255 - 0.2860) / 0.3530.
Output:  ``logits`` float32 [N, 10], not softmaxed, classes in the order of ``labels.txt``.
Units:   accuracies are top-1 in percent, times are seconds of wall clock.
Source:  Fashion-MNIST, Zalando Research, MIT licence; the four original IDX files.
Limits:  The test split is only ever measured, never used to choose a checkpoint: the exported
         weights are the averaged weights after the last epoch. A run is seeded, but GPU
         kernels may add in a different order, so two GPU runs agree closely, not bit for bit.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import math
import platform
import shlex
import sys
import time
from collections import Counter
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from fashion_mnist.idx import MEAN, SIZE, STD, UInt8, normalise, read_split, write_data
from fashion_mnist.networks import NETWORKS
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

OPSET = 18

LOGGER = logging.getLogger("train_fashion_mnist")


# --- training -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """Settings of one training run; ``peak_rate`` is for a batch of 512."""

    epochs: int
    seed: int
    device: torch.device
    batch: int = 512
    peak_rate: float = 0.2
    warmup: float = 0.1
    weight_decay: float = 5e-4
    smoothing: float = 0.1
    ema_decay: float = 0.998
    crop_padding: int = 2
    erase_probability: float = 0.5


@dataclass(frozen=True)
class Split:
    """Normalised images [N, 1, 28, 28] and class indices [N], both on the training device."""

    images: Tensor
    labels: Tensor


def load_split(folder: Path, prefix: str, limit: int | None, device: torch.device) -> Split:
    """Load one split, or its first ``limit`` images, onto the device."""
    images, labels = read_split(folder, prefix)
    return Split(
        torch.from_numpy(normalise(images[:limit])).to(device),
        torch.from_numpy(labels[:limit].astype(np.int64)).to(device),
    )


def augment(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Flip, shift and partly erase each image of a batch with its own random choices."""
    count, device, pad = len(images), images.device, recipe.crop_padding

    def draw(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (count, 1), device=device, generator=generator)

    line = torch.arange(SIZE, device=device).expand(count, SIZE)
    rows = line + draw(0, 2 * pad + 1)
    columns = torch.where(draw(0, 2) == 1, SIZE - 1 - line, line) + draw(0, 2 * pad + 1)
    # Padding is a black pixel, which after normalisation is not zero.
    padded = functional.pad(images[:, 0], (pad, pad, pad, pad), value=-MEAN / STD)
    batch = torch.arange(count, device=device)[:, None, None]
    moved = padded[batch, rows[:, :, None], columns[:, None, :]]

    erased = torch.rand((count, 1), device=device, generator=generator) < recipe.erase_probability
    high = (line - draw(0, SIZE)).abs() < draw(3, 8)
    wide = (line - draw(0, SIZE)).abs() < draw(3, 8)
    hole = (high & erased)[:, :, None] & wide[:, None, :]
    return moved.masked_fill(hole, 0.0)[:, None]


def rate_at(step: int, steps: int, recipe: Recipe) -> float:
    """Learning rate of a step: a linear rise, then half a cosine down to zero."""
    rise = max(1, round(steps * recipe.warmup))
    if step < rise:
        return recipe.peak_rate * (step + 1) / rise
    return recipe.peak_rate * 0.5 * (1.0 + math.cos(math.pi * (step - rise) / (steps - rise)))


def set_layout(model: nn.Module, layout: torch.memory_format) -> None:
    """Store the convolution weights in a memory layout, values unchanged."""
    for value in model.parameters():
        if value.ndim == 4:
            value.data = value.data.contiguous(memory_format=layout)


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum; biases and normalisation are left out of the decay."""
    weights = [value for value in model.parameters() if value.ndim > 1]
    others = [value for value in model.parameters() if value.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=recipe.peak_rate, momentum=0.9, nesterov=True)


@torch.no_grad()
def accuracy(model: nn.Module, split: Split) -> float:
    """Top-1 in percent of a network in evaluation mode, computed in float32."""
    model.eval()
    right = torch.zeros((), device=split.labels.device)
    for start in range(0, len(split.labels), 1000):
        logits = model(split.images[start : start + 1000])
        right += (logits.argmax(1) == split.labels[start : start + 1000]).sum()
    return 100.0 * float(right) / len(split.labels)


def train(model: nn.Module, data: Split, test: Split, recipe: Recipe) -> nn.Module:
    """Train and return the running average of the weights after the last epoch."""
    set_layout(model.to(recipe.device), torch.channels_last)
    generator = torch.Generator(recipe.device).manual_seed(recipe.seed)
    optimizer = make_optimizer(model, recipe)
    loss_of = nn.CrossEntropyLoss(label_smoothing=recipe.smoothing)
    per_epoch = math.ceil(len(data.labels) / recipe.batch)
    steps = recipe.epochs * per_epoch
    # A short run must not average over weights from its beginning.
    decay = max(0.0, min(recipe.ema_decay, 1.0 - 10.0 / steps))
    multi_average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    average = AveragedModel(model, multi_avg_fn=multi_average, use_buffers=True)
    for epoch in range(recipe.epochs):
        start = time.perf_counter()
        model.train()
        total = torch.zeros((), device=recipe.device)
        order = torch.randperm(len(data.labels), device=recipe.device, generator=generator)
        for index in range(per_epoch):
            chosen = order[index * recipe.batch : (index + 1) * recipe.batch]
            for group in optimizer.param_groups:
                group["lr"] = rate_at(epoch * per_epoch + index, steps, recipe)
            images = augment(data.images[chosen], recipe, generator)
            images = images.to(memory_format=torch.channels_last)
            on_gpu = recipe.device.type == "cuda"
            with torch.autocast(recipe.device.type, torch.bfloat16, enabled=on_gpu):
                loss = loss_of(model(images), data.labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            average.update_parameters(model)
            total += loss.detach() * len(chosen)
        line = "epoch %3d  loss %.4f  test top-1 %.2f %%  %.1f s"
        mean_loss = float(total) / len(data.labels)
        top1 = accuracy(average.module, test)
        LOGGER.info(line, epoch + 1, mean_loss, top1, time.perf_counter() - start)
    return average.module


# --- export -------------------------------------------------------------------------------


def tidy(model: onnx.ModelProto) -> None:
    """Name nodes after the layer or operator they are, and drop the exporter's trace notes.

    The notes quote file paths and source lines of the exporting computer, which say nothing
    about the network and make the file depend on where it was made.
    """
    graph = model.graph
    outputs = {value.name for value in graph.output}
    weights = {value.name for value in graph.initializer}
    counts: Counter[str] = Counter()
    renamed: dict[str, str] = {}
    for node in graph.node:
        owner = next((name for name in node.input[1:2] if name in weights), "")
        if node.op_type in ("Conv", "Gemm") and owner.endswith(".weight"):
            node.name = owner.removesuffix(".weight").removesuffix(".conv")
        else:
            node.name = f"{node.op_type.lower()}_{counts[node.op_type]}"
            counts[node.op_type] += 1
        for index, name in enumerate(node.output):
            if name not in outputs:
                renamed[name] = f"{node.name}_out" + (f"_{index}" if index else "")
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*graph.value_info, *graph.input, *graph.output, *graph.initializer):
        value.name = renamed.get(value.name, value.name)
        value.doc_string = ""
        del value.metadata_props[:]
    del graph.metadata_props[:]
    del model.metadata_props[:]


def export(model: nn.Module, path: Path) -> None:
    """Write the network in evaluation mode as one checked ONNX file with a dynamic batch."""
    module = deepcopy(model).to("cpu").eval()
    set_layout(module, torch.contiguous_format)
    program = torch.onnx.export(
        module,
        (torch.zeros(2, 1, SIZE, SIZE),),
        input_names=["image"],
        output_names=["logits"],
        opset_version=OPSET,
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("N")},),
        external_data=False,
        verbose=False,
    )
    if program is None:
        raise RuntimeError("the exporter returned no program")
    proto = program.model_proto
    tidy(proto)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def onnx_accuracy(path: Path, images: UInt8, labels: UInt8) -> float:
    """Top-1 in percent of an ONNX file on bytes [N, 28, 28], run by onnxruntime on the CPU."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    right = 0
    for start in range(0, len(labels), 500):
        feed = {"image": normalise(images[start : start + 500])}
        logits = np.asarray(session.run(["logits"], feed)[0])
        right += int((logits.argmax(1) == labels[start : start + 500]).sum())
    return 100.0 * right / len(labels)


# --- command line -------------------------------------------------------------------------


def log_heading(name: str, model: nn.Module, recipe: Recipe) -> None:
    """Log what is needed to repeat the run: command, seed, versions, device, settings."""
    gpu = recipe.device.type == "cuda"
    device = torch.cuda.get_device_name(recipe.device) if gpu else "cpu"
    LOGGER.info("command: %s", shlex.join(["python", *sys.argv]))
    LOGGER.info("network: %s, %d parameters", name, sum(p.numel() for p in model.parameters()))
    versions = (platform.python_version(), torch.__version__)
    LOGGER.info("seed: %d; python %s, torch %s", recipe.seed, *versions)
    LOGGER.info("onnx %s, onnxruntime %s", onnx.__version__, onnxruntime.__version__)
    LOGGER.info("device: %s", device)
    LOGGER.info("recipe: %s", recipe)


def run_network(name: str, options: argparse.Namespace) -> None:
    """Train, export and measure one network, logging to ``<out>/<name>.log``."""
    device = torch.device(options.device)
    recipe = Recipe(options.epochs, options.seed, device)
    torch.manual_seed(recipe.seed)
    torch.backends.cudnn.benchmark = True
    handler = logging.FileHandler(options.out / f"{name}.log", mode="w", encoding="utf-8")
    LOGGER.addHandler(handler)
    try:
        model = NETWORKS[name]()
        log_heading(name, model, recipe)
        start = time.perf_counter()
        data = load_split(options.data, "train", options.limit, device)
        test = load_split(options.data, "t10k", None, device)
        LOGGER.info("training images: %d; test images: %d", len(data.labels), len(test.labels))
        model = train(model, data, test, recipe)
        LOGGER.info("trained in %.1f s", time.perf_counter() - start)
        if options.weights is not None:
            options.weights.mkdir(parents=True, exist_ok=True)
            torch.save(model.state_dict(), options.weights / f"{name}.pt")
        path = options.out / f"{name}.onnx"
        export(model, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        LOGGER.info("%s: %d bytes, sha256 %s", path.name, path.stat().st_size, digest)
        images, labels = read_split(options.data, "t10k")
        top1 = onnx_accuracy(path, images, labels)
        LOGGER.info("onnxruntime: %s top-1 %.2f %% of %d", path.name, top1, len(labels))
    finally:
        LOGGER.removeHandler(handler)
        handler.close()


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Train quantlab's example networks.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the IDX files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--network", choices=(*NETWORKS, "all"), default="all")
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="use only the first LIMIT training images")
    parser.add_argument("--weights", type=Path, help="folder for <network>.pt state dicts")
    parser.add_argument("--write-data", action="store_true", help="only write the data files")
    options = parser.parse_args(arguments)
    if options.epochs < 1 or (options.limit is not None and options.limit < 1):
        parser.error("--epochs and --limit must be at least 1")
    return options


def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    options = parse_options(arguments)
    LOGGER.setLevel(logging.INFO)
    LOGGER.addHandler(logging.StreamHandler(sys.stdout))
    if options.write_data:
        count = write_data(options.data, options.out, options.seed)
        LOGGER.info("wrote the test split and %d calibration images to %s", count, options.out)
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    for name in NETWORKS if options.network == "all" else (options.network,):
        run_network(name, options)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
