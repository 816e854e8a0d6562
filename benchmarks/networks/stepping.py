"""Training steps: forward, backward and update, as one CUDA graph where there is a GPU.

The networks are so small that starting their kernels one by one would take longer than running
them.  Forward and backward are recorded once and replayed; the optimizer is one fused kernel.
Images lie in memory as [N, H, W, C], which was the faster of the two for every network.
"""

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


def start(model: Module, recipe: Recipe, task: Task, device: torch.device) -> Stepper:
    """Return the network on the device, ready to train."""
    batches = task.batches(recipe.batch)
    if device.type != "cuda":
        optimizer = _optimizer(model, recipe, fused=False)
        return Stepper(model, recipe, task, batches, optimizer, device)
    model = model.to(device, memory_format=torch.channels_last).train()
    optimizer = _optimizer(model, recipe, fused=True)
    made = Stepper(model, recipe, task, map(_laid_out, batches), optimizer, device)
    try:
        made.record()
    except RuntimeError as error:
        torch.cuda.synchronize()
        print(f"  no CUDA graph: {error}", flush=True)
        made.optimizer.zero_grad(set_to_none=True)
    return made


def _laid_out(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    inputs, targets = batch
    if inputs.ndim == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    return inputs, targets
