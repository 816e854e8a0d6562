"""What quantlab declares of TensorRT's API: ``quantlab/engines/trt/api_*.py``, read as source.

Their classes are Protocols with the names of TensorRT's classes.  An attribute ``ClassVar[...]`` is
a value of an enum, any other is a property; ``Module`` is what stands in the module itself.
"""

import ast
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.trt_bindings.releases import GENERATIONS, ROOT

PACKAGE = ROOT / "quantlab/engines/trt"
FILES = (PACKAGE / "api_build.py", PACKAGE / "api_run.py")
GENUINE = {"Severity": "ILogger.Severity"}
"""TensorRT's name of a class where the Protocol's differs: classes inside classes."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter as declared."""

    name: str
    type: str
    named: bool = True
    """Whether a caller may give it by name."""
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Member:
    """A declared member; ``parameters`` is None for an attribute."""

    owner: str
    name: str
    type: str
    parameters: tuple[Parameter, ...] | None = None

    @property
    def key(self) -> str:
        """As ``ONLY`` names it."""
        return f"{self.owner}.{self.name}"

    def gives(self) -> set[str]:
        """Return the names in its type, or in that of what it returns."""
        return _words(self.type)

    def takes(self) -> set[str]:
        """Return the names in the types of its parameters."""
        return {word for each in self.parameters or () for word in _words(each.type)}


def _words(annotation: str) -> set[str]:
    tree = ast.parse(annotation)
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


@dataclass(frozen=True, slots=True)
class Api:
    """All that is declared.

    Attributes:
        members: in order; overloads of a method are members of the same key.
        classes: the generations of every class.
        only: the generations of members that not all have, as declared.
    """

    members: tuple[Member, ...]
    classes: Mapping[str, frozenset[str]]
    only: Mapping[str, frozenset[str]]

    def generations(self, key: str) -> frozenset[str]:
        """Return the generations that a member, as "Class.member", is declared for."""
        within = self.classes[key.split(".", maxsplit=1)[0]]
        return self.only.get(key, within) & within

    def of(self, generation: str) -> Iterator[Member]:
        """Yield what is declared for a generation; no overload that takes a class of another."""
        keys = Counter(member.key for member in self.members)
        for member in self.members:
            taken = [self.classes[name] for name in member.takes() & set(self.classes)]
            other = keys[member.key] > 1 and any(generation not in each for each in taken)
            if generation in self.generations(member.key) and not other:
                yield member


def reach(
    members: Sequence[Member],
    bases: Mapping[str, tuple[str, ...]],
    only: Mapping[str, frozenset[str]],
) -> dict[str, frozenset[str]]:
    """Return the generations of every class.

    A class in ``Module`` is where ``Module`` has it.  Any other comes from members that give it, or
    is what a class was made from; it is where one of those is.  What nothing gives comes to a
    callback.
    """
    every = frozenset(GENERATIONS)
    given = {name for member in members for name in member.gives()}
    given |= {base for of in bases.values() for base in of}
    found = dict.fromkeys(bases, frozenset[str]()) | {"Module": every}
    while True:
        before = dict(found)
        for member in members:
            here = only.get(member.key, every) & found[member.owner]
            for name in (member.gives() | (member.takes() - given)) & set(found) - {"Module"}:
                found[name] |= here
        for name, of in bases.items():
            for base in of:
                found[base] |= found[name]
        if found == before:
            return found


def _annotation(node: ast.expr | None) -> str:
    if node is None:
        return ""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return ast.unparse(node)


def _parameters(function: ast.FunctionDef) -> tuple[Parameter, ...]:
    given = function.args
    places = [*given.posonlyargs, *given.args]
    required = len(places) - len(given.defaults)
    found = [
        Parameter(
            each.arg,
            _annotation(each.annotation),
            named=each in given.args,
            optional=i >= required,
        )
        for i, each in enumerate(places)
    ]
    assert not given.kwonlyargs, f"{function.name}: TensorRT has no keyword-only parameters"
    assert given.vararg is None, f"{function.name}: name the parameters"
    assert given.kwarg is None, f"{function.name}: name the parameters"
    return tuple(found[1:])  # without self


def _members(owner: ast.ClassDef) -> Iterator[Member]:
    for node in owner.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield Member(owner.name, node.target.id, _annotation(node.annotation))
        elif isinstance(node, ast.FunctionDef):
            prop = any(isinstance(d, ast.Name) and d.id == "property" for d in node.decorator_list)
            parameters = None if prop else _parameters(node)
            yield Member(owner.name, node.name, _annotation(node.returns), parameters)


def _only(tree: ast.Module) -> dict[str, frozenset[str]]:
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "ONLY":
            assert isinstance(node.value, ast.Dict)
            return {
                ast.literal_eval(key): frozenset(ast.literal_eval(value.args[0]))
                for key, value in zip(node.value.keys, node.value.values, strict=True)
                if isinstance(key, ast.expr) and isinstance(value, ast.Call)
            }
    raise AssertionError("no ONLY: a literal dict of frozenset({...})")


def read(*files: Path) -> Api:
    """Read the Protocols and ``ONLY`` of files that declare parts of TensorRT's API."""
    members: list[Member] = []
    bases: dict[str, tuple[str, ...]] = {}
    only: dict[str, frozenset[str]] = {}
    for file in files:
        tree = ast.parse(file.read_text())
        only |= _only(tree)
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                members += _members(node)
                names = tuple(ast.unparse(base).split(".")[-1] for base in node.bases)
                bases[node.name] = (*bases.get(node.name, ()), *names)
    declared = {
        name: tuple(base for base in of if base in bases and base != name)
        for name, of in bases.items()
    }
    return Api(tuple(members), reach(members, declared, only), only)
