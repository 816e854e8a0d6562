"""Training steps: forward, backward and update, as one CUDA graph where there is a GPU.

The networks are so small that starting their kernels one by one would take longer than running
them.  Forward and backward are recorded once and replayed; the optimizer is one fused kernel.
Images are tried as [N, H, W, C] and [N, C, H, W] in memory, and the faster is kept.
"""

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from benchmarks.networks.layers import Module
from benchmarks.networks.recipes import Recipe
from benchmarks.networks.tasks import Task

TRIED = 30
"""Steps that are timed, at learning rate 0."""

WARM = 4


@dataclass
class Stepper:
    """A network in training, with everything a step needs."""

    model: Module
    recipe: Recipe
    task: Task
    batches: Iterator[tuple[Tensor, Tensor]]
    optimizer: torch.optim.Optimizer
    device: torch.device
    graph: "torch.cuda.CUDAGraph | None" = None
    held: list[Tensor] = field(default_factory=list)  # inputs, targets and loss of the graph

    def step(self, rate: float) -> Tensor:
        """Train on one batch and return its loss, still on the device."""
        inputs, targets = next(self.batches)
        if self.graph is None:
            self.optimizer.zero_grad(set_to_none=True)
            loss = self._backward(inputs, targets)
        else:
            self.held[0].copy_(inputs)
            self.held[1].copy_(targets)
            self.graph.replay()
            loss = self.held[2]
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return loss.detach()

    def _backward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False):
            output = self.model(inputs)
        loss = self.task.loss(output.float(), targets)
        loss.backward()
        return loss

    def record(self) -> None:
        """Record the graph; a network that cannot be recorded goes on without one."""
        inputs, targets = (x.clone() for x in next(self.batches))
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM):
                self.optimizer.zero_grad(set_to_none=True)
                self._backward(inputs, targets)
        torch.cuda.current_stream().wait_stream(side)
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self._backward(inputs, targets)
        self.held = [inputs, targets, loss]
        self.graph = graph

    def seconds(self) -> float:
        """Return the seconds of a step; weights stay, statistics of batches move on."""
        for _ in range(WARM):
            self.step(0.0)
        _wait(self.device)
        start = time.perf_counter()
        for _ in range(TRIED):
            self.step(0.0)
        _wait(self.device)
        return (time.perf_counter() - start) / TRIED


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _optimizer(model: Module, recipe: Recipe, *, fused: bool) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": recipe.decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True, fused=fused)
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), fused=fused)


def start(initial: Module, recipe: Recipe, task: Task, device: torch.device) -> Stepper:
    """Return the network ready to train, its images laid out as is faster."""
    if device.type != "cuda":
        optimizer = _optimizer(initial, recipe, fused=False)
        return Stepper(initial, recipe, task, task.batches(recipe.batch), optimizer, device)
    images = next(task.batches(2))[0].ndim == 4
    layouts = (torch.channels_last, torch.contiguous_format) if images else (None,)
    best: tuple[float, Stepper] | None = None
    for layout in layouts:
        made = _ready(initial, recipe, task, layout)
        took = made.seconds()
        print(f"  {layout or 'tokens'}: {took * 1e3:.2f} ms a step", flush=True)
        if best is None or took < best[0]:
            best = took, made
        del made
    assert best is not None
    return best[1]


def _ready(
    initial: Module, recipe: Recipe, task: Task, layout: "torch.memory_format | None"
) -> Stepper:
    device = torch.device("cuda")
    model = copy.deepcopy(initial).to(device)
    if layout is not None:
        model = model.to(memory_format=layout)
    model.train()
    batches = (
        (x if layout is None else x.contiguous(memory_format=layout), y)
        for x, y in task.batches(recipe.batch)
    )
    optimizer = _optimizer(model, recipe, fused=True)
    made = Stepper(model, recipe, task, batches, optimizer, device)
    try:
        made.record()
    except RuntimeError as error:
        torch.cuda.synchronize()
        print(f"  no CUDA graph: {error}", flush=True)
        made.optimizer.zero_grad(set_to_none=True)
    return made
