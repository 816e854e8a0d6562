"""What quantlab declares of TensorRT's API is so in the genuine bindings of every release.

mypy refuses what is not declared (``test_gate.py`` proves it), so this covers all that is used.
"""

import ast
import doctest
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.trt_bindings import describe
from tests.trt_bindings.compare import complaints, find, fits
from tests.trt_bindings.declared import FILES, PACKAGE, Api, Member, Parameter, read
from tests.trt_bindings.releases import GENERATIONS, HERE, RELEASES, Release, parameters, run

CALLED_BACK = {"IOutputAllocator"}
"""Classes whose methods newer bindings look up in a subclass, without having them themselves.

``test_callbacks.py`` calls them through TensorRT's own virtual functions instead.
"""

UNUSED: dict[str, str] = {
    "ICudaEngine.create_runtime_config": "from 10.11 on; its runtime cache is RTX's alone",
}
"""Members that exist where ``ONLY`` does not list them, and why they are not used there."""


@cache
def declared() -> Api:
    return read(*(file for file in FILES if file.exists()))


@cache
def genuine(release: Release) -> dict[str, Any]:
    description: dict[str, Any] = json.loads(run(release, HERE / "describe.py", release.module))
    return description


@pytest.mark.parametrize("release", parameters())
def test_the_release_is_the_one_that_is_meant(release: Release) -> None:
    version = genuine(release)["version"]
    if release.wheel:
        assert version == release.version
    else:
        assert tuple(map(int, version.split(".")[:2])) >= (1, 7)


def test_on_python_3_11_no_release_is_skipped() -> None:
    assert all((3, 11) in release.pythons for release in RELEASES)
    assert {release.generation for release in RELEASES} == set(GENERATIONS)


@pytest.mark.parametrize("release", parameters())
def test_everything_declared_exists_and_takes_what_it_is_given(release: Release) -> None:
    api = declared()
    found = [
        complaint
        for member in api.of(release.generation)
        if member.owner not in CALLED_BACK
        for complaint in complaints(member, genuine(release))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("release", parameters())
def test_what_is_declared_for_others_alone_is_not_there(release: Release) -> None:
    api = declared()
    for key, where in api.only.items():
        if release.generation not in where and key not in UNUSED:
            assert find(genuine(release), key) is None, (
                f"{key} exists in TensorRT {release.name}, but ONLY lists {sorted(where)}"
            )


def test_only_lists_what_is_declared_and_leaves_something_out() -> None:
    api = declared()
    for key, where in api.only.items():
        assert key in {member.key for member in api.members}, (
            f"ONLY lists {key}, which no Protocol declares"
        )
        assert where < set(GENERATIONS), f"ONLY lists {key} with {sorted(where)}"
    assert set(UNUSED) <= set(api.only)
    assert all(where for where in api.classes.values()), "a class that no member gives or takes"


def assigned() -> set[str]:
    """Return the names of attributes that quantlab sets on anything but ``self``."""
    found = set()
    for file in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            targets = node.targets if isinstance(node, ast.Assign) else []
            for target in targets:
                if isinstance(target, ast.Attribute) and ast.unparse(target.value) != "self":
                    found.add(target.attr)
    return found


@pytest.mark.parametrize("release", parameters())
def test_what_quantlab_sets_can_be_set(release: Release) -> None:
    api = declared()
    names = assigned()
    for member in api.of(release.generation):
        there = find(genuine(release), member.key)
        if member.name in names and there and there["kind"] == "property":
            assert there["writable"], f"{member.key} is read-only in TensorRT {release.name}"


def test_everything_declared_is_used() -> None:
    used: set[str] = set()
    for file in [*PACKAGE.glob("*.py"), PACKAGE.parent / "tensorrt.py"]:
        if file not in FILES:
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Attribute):
                    used.add(node.attr)
                elif isinstance(node, ast.FunctionDef):  # overridden in a subclass
                    used.add(node.name)
    unused = [
        member.key
        for member in declared().members
        if member.name not in used and not member.name.startswith("__")
    ]
    assert not unused, f"declared, but nothing uses it: {', '.join(unused)}"


GENUINE: dict[str, Any] = {
    "version": "0",
    "classes": {
        "Config": {
            "members": {
                "flags": {"kind": "property", "type": "int", "writable": True},
                "limit": {
                    "kind": "method",
                    "signatures": describe.signatures(
                        "limit", "limit(self: Config, pool: int, size: float = 1.0) -> bool"
                    ),
                },
            }
        }
    },
}


@pytest.mark.parametrize(
    ("member", "complaint"),
    [
        (Member("Config", "flags", "int"), ""),
        (Member("Config", "flags", "str"), "declared as str, is int"),
        (Member("Config", "flag", "int"), "does not exist"),
        (Member("Other", "flags", "int"), "does not exist"),
        (Member("Config", "flags", "int", ()), "declared as a method, is a property"),
        (Member("Config", "flags", "ClassVar[Flag]"), "declared as a value, is a property"),
        (Member("Config", "limit", "bool", (Parameter("pool", "int"),)), ""),
        (Member("Config", "limit", "bool", (Parameter("p", "int", named=False),)), ""),
        (Member("Config", "limit", "bool", (Parameter("p", "int"),)), "declared with"),
        (Member("Config", "limit", "bool", (Parameter("pool", "str"),)), "with"),
        (Member("Config", "limit", "bool", (Parameter("pool", "int", optional=True),)), "with"),
        (Member("Config", "limit", "bool", ()), "declared with"),
        (Member("Config", "limit", "int", (Parameter("pool", "int"),)), "to return"),
    ],
)
def test_the_comparison_finds_what_differs(member: Member, complaint: str) -> None:
    found = list(complaints(member, GENUINE))
    assert (complaint in found[0]) if complaint else not found


DECLARED = """
ONLY: dict[str, frozenset[str]] = {
    "Module.Late": frozenset({"11", "rtx"}),
    "Late.give": frozenset({"rtx"}),
}
class Given(Protocol):
    name: str
class Late(Protocol):
    def give(self) -> "Given | None": ...
class Told(Protocol): ...
class Base(Protocol): ...
class Early(Base, Protocol):
    @overload
    def use(self) -> int: ...
    @overload
    def use(self, late: Late, /, often: int = 1) -> int: ...
    def callback(self, told: Told) -> None: ...
class Module(Protocol):
    Late: type[Late]
    Early: type[Early]
"""


def test_a_class_is_declared_for_where_it_can_be_had(tmp_path: Path) -> None:
    (tmp_path / "api.py").write_text(DECLARED)
    api = read(tmp_path / "api.py")
    every = {"8", "10", "11", "rtx"}
    assert api.classes == {
        "Given": {"rtx"},
        "Late": {"11", "rtx"},
        "Told": every,
        "Base": every,
        "Early": every,
        "Module": every,
    }
    assert api.generations("Given.name") == {"rtx"}
    uses = {each: [m for m in api.of(each) if m.name == "use"] for each in ("10", "11")}
    assert [len(found) for found in uses.values()] == [1, 2]
    late, often = uses["11"][1].parameters or ()
    assert (late.named, late.optional) == (False, False)
    assert (often.named, often.optional) == (True, True)


def test_docstrings_of_pybind11_are_read_as_their_examples_say() -> None:
    assert doctest.testmod(describe).failed == 0


def test_types_are_compared_by_meaning() -> None:
    assert fits("Sequence[int]", "Dims")
    assert fits("list[str]", "list[str]")
    assert fits("ITensor | None", "ITensor")
    assert fits("Severity", "ILogger.Severity")
    assert fits("tuple[EngineValidity, int]", "tuple")
    assert not fits("Sequence[int]", "list[str]")
    assert not fits("ILayer", "ITensor")
