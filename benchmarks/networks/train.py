"""Train the networks of the accuracy benchmark and write them as ONNX.

    python3 -m benchmarks.networks.train --data DATA.npz --out FOLDER --seconds 560

Writes FOLDER/<name>.onnx for each network and FOLDER/training.json after each.  A network that
fails is written down and the next one is trained.  ``--seconds`` is for everything, from the start
of the program to its end; each network gets its share of what is left when its turn comes.

Limits: seeded, but a GPU adds in its own order and the number of steps is a matter of time, so two
        runs agree closely, not bit for bit.  The files that a run wrote are what is benchmarked.
"""

import argparse
import json
import math
import platform
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.networks import data
from benchmarks.networks.export import export
from benchmarks.networks.recipes import RECIPES, Recipe
from benchmarks.networks.stepping import start
from benchmarks.networks.tasks import TRAIN_PAIRS, Classify, Denoise, Embed, Pictures, Task

RISING = 0.1
"""Share of the steps in which the learning rate rises."""

AFTER = 5.0
"""Seconds kept for a network's score and export."""

MARGIN = 0.97
SMOKE_STEPS = 2
SMOKE_PAIRS = 64


@dataclass(frozen=True, slots=True)
class Run:
    """What a run was asked for."""

    out: Path
    data: Path | None
    seconds: float
    smoke: bool
    names: tuple[str, ...]
    started: float


def rate(step: int, steps: int, highest: float) -> float:
    """Return the learning rate of a step: up in a line, down as half a cosine."""
    rising = max(1, round(RISING * steps))
    if step < rising:
        return highest * (step + 1) / rising
    return highest * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def task_of(recipe: Recipe, pictures: Pictures, *, smoke: bool) -> Task:
    """Return the task of a recipe, over data that are on the device already."""
    if recipe.task == "classify":
        return Classify(pictures, recipe.mix, recipe.cutmix)
    if recipe.task == "denoise":
        return Denoise(pictures)
    return Embed.make(SMOKE_PAIRS if smoke else TRAIN_PAIRS, pictures.device)


def train(name: str, pictures: Pictures, run: Run, until: float) -> dict[str, object]:
    """Train one network until about ``until`` (of time.perf_counter), score and export it."""
    begun = time.perf_counter()
    seed = list(RECIPES).index(name)
    recipe = RECIPES[name]
    torch.manual_seed(seed)
    model = recipe.build()
    task = task_of(recipe, pictures, smoke=run.smoke)
    stepper = start(model, recipe, task, pictures.device)
    an_epoch = max(1, task.count // recipe.batch)
    steps = SMOKE_STEPS
    if not run.smoke:
        left = max(1.0, until - time.perf_counter() - AFTER) * MARGIN
        steps = max(100, min(recipe.epochs * an_epoch, int(left / stepper.seconds())))
    print(f"  {steps} steps of {recipe.batch} = {steps / an_epoch:.1f} epochs", flush=True)
    stepper.model.train()
    losses = []
    for step in range(steps):
        loss = stepper.step(rate(step, steps, recipe.rate))
        if step % max(1, steps // 10) == 0 or step == steps - 1:
            losses.append(round(loss.item(), 4))
            took = time.perf_counter() - begun
            print(f"  step {step}: loss {losses[-1]}, {took:.1f} s", flush=True)
    trained = time.perf_counter() - begun
    score = task.score(stepper.model)
    path = run.out / f"{name}.onnx"
    names = (task.inputs, task.outputs)
    exported = export(stepper.model, task.example(), names, path)
    return {
        "score": score,
        "parameters": sum(p.numel() for p in model.parameters()),
        "recipe": {k: v for k, v in asdict(recipe).items() if k != "build"},
        "seed": seed,
        "steps": steps,
        "epochs": steps / an_epoch,
        "losses": losses,
        "cuda_graph": stepper.graph is not None,
        "training_seconds": trained,
        "seconds": time.perf_counter() - begun,
        "export": asdict(exported),
    }


def facts(run: Run) -> dict[str, object]:
    """Return the versions and settings of a run."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "seconds_asked": run.seconds,
        "smoke": run.smoke,
        "device": gpu or platform.processor() or "CPU",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "precision": "bfloat16 autocast; scored in FP32, TF32 off",
        "normalization": {"mean": data.MEAN, "std": data.STD, "noise": data.NOISE},
    }


def main() -> int:
    """Train all; return how many failed."""
    run = _parse()
    run.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    pictures = Pictures.load(None if run.smoke else run.data, device)
    print(f"data on {device}: {time.perf_counter() - run.started:.1f} s", flush=True)
    record: dict[str, object] = {**facts(run), "networks": {}}
    networks: dict[str, object] = {}
    end = run.started + run.seconds
    failed = 0
    for index, name in enumerate(run.names):
        now = time.perf_counter()
        shares = sum(RECIPES[other].share for other in run.names[index:])
        until = now + (end - now) * RECIPES[name].share / shares
        print(f"{name}: {until - now:.0f} s from {now - run.started:.1f} s", flush=True)
        try:
            result = train(name, pictures, run, until)
            print(f"{name}: {result['score']} {result['export']}", flush=True)
        except Exception as error:  # noqa: BLE001 - the other networks are still worth training
            traceback.print_exc()
            result = {"failed": f"{type(error).__name__}: {error}"}
            failed += 1
        networks[name] = result
        record = {**record, "networks": networks, "wall": time.perf_counter() - run.started}
        (run.out / "training.json").write_text(json.dumps(record, indent=1) + "\n")
        if device.type == "cuda":
            torch.cuda.empty_cache()
    print(f"{len(run.names) - failed} of {len(run.names)}: {record['wall']:.1f} s", flush=True)
    return failed


def _parse() -> Run:
    started = time.perf_counter()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="the .npz of benchmarks/networks/data.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=560.0, help="for everything")
    parser.add_argument("--smoke", action="store_true", help="two steps each, on noise")
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES))
    given = parser.parse_args()
    if not given.smoke and given.data is None:
        parser.error("--data is needed; only --smoke does without")
    return Run(given.out, given.data, given.seconds, given.smoke, tuple(given.only), started)


if __name__ == "__main__":
    sys.exit(main())
