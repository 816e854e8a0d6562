"""The executors that a config can name."""

from quantlab.collect.cuda_executor import Cuda
from quantlab.collect.executor import Executor, Local
from quantlab.collect.ray import Ray

EXECUTORS: dict[str, type[Executor]] = {
    "local": Local,
    "ray": Ray,
    "cuda": Cuda,
}
