"""Whether what quantlab declares of TensorRT's API is so in the genuine bindings.

Each function returns complaints; none means that the declaration holds.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.trt_bindings.declared import GENUINE, Member, Parameter

Json = Mapping[str, Any]

ALIKE = {
    "int": {"int"},
    "float": {"float", "int"},
    "Dims": {"Dims", "Sequence[int]", "tuple[int, ...]"},
    "Buffer": {"bytes", "memoryview", "IHostMemory"},
    "CapsuleType": {"int", "ILogger"},
    "object": {"object", "None"},
}
"""What may be declared for a type that the bindings write; of others, the type itself.

A capsule is a pointer: TensorRT's own samples give ``init_libnvinfer_plugins`` a logger.
"""


def fits(declared: str, genuine: str) -> bool:
    """Return whether a declared type stands for a genuine one; ``""`` is one that is not told.

    Whether None can come or be given is not told either: pybind11 writes no Optional.
    """
    plain = re.sub(r"^ClassVar\[(.*)\]$", r"\1", declared).replace(" | None", "")
    plain = GENUINE.get(plain, plain)
    if not genuine or plain in ALIKE.get(genuine, {genuine}):
        return True
    if genuine == "tuple" and plain.startswith("tuple["):
        return True
    several = re.fullmatch(r"(?:Sequence|list)\[(.*)\]", plain)
    inner = re.fullmatch(r"list\[(.*)\]", genuine)
    return bool(several and inner and fits(several[1], inner[1]))


def accepts(overload: Json, given: tuple[Parameter, ...]) -> bool:
    """Return whether every call that the declaration allows can be made on an overload."""
    own = overload["parameters"]
    own = own[1:] if own and own[0]["name"] in ("self", "arg0", "this") else own
    if len(given) > len(own) or any(not each["optional"] for each in own[len(given) :]):
        return False
    pairs = zip(given, own, strict=False)
    return all(
        (not here.named or here.name == there["name"])
        and (not here.optional or there["optional"])
        and fits(here.type, there["type"])
        for here, there in pairs
    )


def find(genuine: Json, key: str) -> Json | None:
    """Return the genuine member that a key names, or None."""
    owner, name = key.split(".")
    found = genuine["classes"].get(GENUINE.get(owner, owner), {"members": {}})
    member: Json | None = found["members"].get(name)
    return member


def complaints(member: Member, genuine: Json) -> Iterator[str]:
    """Compare a declared member with the one in a release."""
    there = find(genuine, member.key)
    here = f"{member.key} of TensorRT {genuine['version']}"
    if there is None:
        yield f"{here}: does not exist"
    elif member.parameters is not None:
        if there["kind"] != "method":
            yield f"{here}: declared as a method, is a {there['kind']}"
            return
        fitting = [each for each in there["signatures"] if accepts(each, member.parameters)]
        returned = [each["returns"] for each in fitting]
        if not fitting:
            yield f"{here}: declared with {member.parameters}, is {there['signatures']}"
        elif member.type != "object" and not any(fits(member.type, each) for each in returned):
            yield f"{here}: declared to return {member.type}, is {there['signatures']}"
    elif there["kind"] != kind(member):
        yield f"{here}: declared as a {kind(member)}, is a {there['kind']}"
    elif not fits(member.type, there.get("type", "")):
        yield f"{here}: declared as {member.type}, is {there['type']}"


def kind(member: Member) -> str:
    """Return what a declared attribute is in pybind11's words."""
    if member.type.startswith("type["):
        return "class"
    if member.type.startswith("ClassVar[") and not member.name.startswith("__"):
        return "value"
    return "value" if member.owner == "Module" else "property"
