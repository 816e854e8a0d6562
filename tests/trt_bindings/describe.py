"""Print the API of TensorRT's bindings as JSON: classes, members, enum values, signatures.

Run by itself, ``python describe.py tensorrt``: it imports nothing but the standard library and the
module.  Signatures are what pybind11 writes into docstrings, with every overload; types are spelt
without the module, and alike for pybind11's versions.  The module itself is the class ``Module``.
"""

import importlib
import inspect
import json
import re
import sys
from types import ModuleType
from typing import Any

Json = dict[str, Any]

SPELLING = {
    "buffer": "Buffer",
    "capsule": "CapsuleType",
    "List": "list",
    "Dict": "dict",
    "Tuple": "tuple",
    "Sequence": "list",
    "SupportsInt": "int",
    "SupportsIndex": "int",
    "SupportsFloat": "float",
    "ILogger::Severity": "ILogger.Severity",
    "IEngineInspector": "EngineInspector",
    "IParserError": "ParserError",
}
"""A type's name in one version of pybind11, or in C++, and what it is called here."""


PACKAGE = re.compile(
    r"^(typing|typing_extensions|types|collections\.abc|tensorrt\w*\.tensorrt\w*)\."
)
"""Where a type is from; for some that depends on Python's version."""


def spelt(text: str) -> str:
    """Return a type without its module, in one spelling for every version of pybind11.

    >>> spelt("typing.Tuple[tensorrt_bindings.tensorrt.Dims, nvinfer1::v_1_0::ILogger]")
    'tuple[Dims, ILogger]'
    """

    def word(match: re.Match[str]) -> str:
        name = PACKAGE.sub("", match[0])
        name = re.sub(r"^(nvinfer1|nvonnxparser)::(v_\d+_\d+::)?", "", name)
        return SPELLING.get(name, name)

    plain = re.sub(r"[\w.:]+", word, text.strip())
    return "" if "::" in plain else plain  # what C++ says of itself is not a type of Python's


def parts(text: str) -> list[str]:
    """Split what stands between a signature's parentheses at its commas.

    >>> parts("a: int, b: dict[str, int] = {'x': 1}, c: Flag = <Flag.A: 0>")
    ['a: int', "b: dict[str, int] = {'x': 1}", 'c: Flag = <Flag.A: 0>']
    """
    found, depth, start = [], 0, 0
    for position, letter in enumerate(text):
        depth += (letter in "([{<") - (letter in ")]}>")
        if letter == "," and depth == 0:
            found.append(text[start:position].strip())
            start = position + 1
    last = text[start:].strip()
    return [*found, last] if last else found


def parameter(text: str) -> Json:
    """Return name, type and whether there is a default.

    >>> parameter("flags: int = 0")
    {'name': 'flags', 'type': 'int', 'optional': True}
    """
    declared, equals, _ = text.partition(" = ")
    name, _, kind = declared.partition(":")
    return {"name": name.strip(), "type": spelt(kind), "optional": bool(equals)}


def signatures(name: str, document: str | None) -> list[Json]:
    """Return the overloads that pybind11 wrote into a docstring; of a property, ``name`` is "".

    >>> signatures("f", "f(self: C, shape: Tuple[int]) -> bool")[0]["returns"]
    'bool'
    """
    found = []
    # Of an overloaded function the first line says only (*args, **kwargs); the overloads have
    # numbers.
    overloaded = "Overloaded function." in (document or "")
    start = r"^\d+\. " if overloaded else "^"
    line = re.compile(rf"{start}{re.escape(name)}\((.*)\)(?: -> (.+))?$", re.M)
    for match in line.finditer(document or ""):
        # "/" ends what has no name for a caller, as "arg0" has none; TensorRT has no other marks.
        arguments = [parameter(part) for part in parts(match[1]) if part != "/"]
        found.append({"parameters": arguments, "returns": spelt(match[2] or "")})
    return found


def of_python(function: Any) -> list[Json]:
    """Return the signature of a function written in Python, without types."""
    arguments = [
        {"name": each.name, "type": "", "optional": each.default is not each.empty}
        for each in inspect.signature(function).parameters.values()
    ]
    return [{"parameters": arguments, "returns": ""}]


def member(name: str, value: Any) -> Json:
    """Describe a member of a class or of the module."""
    if isinstance(value, type):
        return {"kind": "class"}
    if isinstance(value, property) or type(value).__name__ == "pybind11_static_property":
        got = signatures("", getattr(value.fget, "__doc__", None))
        return {
            "kind": "property",
            "type": got[0]["returns"] if got else "",
            "writable": value.fset is not None,
        }
    value = getattr(value, "__func__", value)
    if inspect.isfunction(value):
        return {"kind": "method", "signatures": of_python(value)}
    if callable(value):
        return {"kind": "method", "signatures": signatures(name, value.__doc__)}
    return {"kind": "value", "type": type(value).__name__, "value": _number(value)}


def _number(value: Any) -> int | None:
    return int(value) if hasattr(value, "__int__") else None


def public(name: str) -> bool:
    """Return whether a program may use it; pybind11's own marks are not for that."""
    return not name.startswith("_") or (name.endswith("__") and "pybind11" not in name)


def describe_class(name: str, kind: type) -> dict[str, Json]:
    """Describe a class with all that it inherits, and the classes inside it."""
    members: Json = {}
    found: dict[str, Json] = {}
    for base in reversed(kind.__mro__):
        if base is not object:
            members |= {key: value for key, value in vars(base).items() if public(key)}
    described = {key: member(key, value) for key, value in members.items()}
    for key, value in members.items():
        if isinstance(value, type):
            found |= describe_class(f"{name}.{key}", value)
    bases = [base.__name__ for base in kind.__mro__[1:] if base is not object]
    return {name: {"bases": bases, "members": described}} | found


def describe(module: ModuleType) -> Json:
    """Describe everything that a program can use of ``module``."""
    classes: dict[str, Json] = {}
    shown = {key: value for key, value in vars(module).items() if public(key)}
    values = {key: value for key, value in shown.items() if not isinstance(value, ModuleType)}
    for key, value in values.items():
        if isinstance(value, type):
            classes |= describe_class(key, value)
    top = {key: member(key, value) for key, value in values.items()}
    classes["Module"] = {"bases": [], "members": top}
    return {"version": vars(module)["__version__"], "classes": classes}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(describe(importlib.import_module(sys.argv[1]))))
