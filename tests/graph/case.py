"""What a golden network is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx

from quantlab.graph.pins import Kind


@dataclass(frozen=True, slots=True)
class Case:
    """A small network about a rule, or some.

    Attributes:
        rule: that it is about; several are separated by commas.
        build: makes it.
        policy: that places it.
        layers: the config's types of single nodes.
    """

    rule: str
    build: Callable[[], onnx.ModelProto]
    policy: str = "tensorrt"
    layers: Mapping[str, Kind] = field(default_factory=dict)

    @property
    def rules(self) -> list[str]:
        """The rules that it is about."""
        return self.rule.split(", ")
