"""The one look-up by name: from a config's ``kind`` and parameters to an object.

A registry is a literal dict from name to a frozen dataclass whose fields are its parameters, so
the same class documents, checks and, through pydantic, describes them in the JSON Schema.
"""

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from quantlab.errors import ConfigError

T = TypeVar("T")


def nearest(name: str, choices: list[str]) -> str:
    """Return a hint that names the nearest of ``choices``, or lists them all."""
    close = get_close_matches(name, choices, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(sorted(choices))}"


def lookup(role: str, table: Mapping[str, type[T]], name: str) -> type[T]:
    """Return ``table[name]``.

    Raises:
        ConfigError: no such name; the message gives the nearest or all choices.
    """
    if name not in table:
        raise ConfigError(f"unknown {role} {name!r}; {nearest(name, list(table))}")
    return table[name]


def make(
    role: str,
    table: Mapping[str, type[T]],
    name: str,
    parameters: Mapping[str, Any],
    *,
    base: Path | None = None,
) -> T:
    """Construct ``table[name]`` from ``parameters``, checked against the fields' types.

    Args:
        role: what the table holds, for messages: "calibrator", "dataset" ...
        table: name to frozen dataclass.
        name: the ``kind`` in the config.
        parameters: the keys beside it.
        base: folder that relative paths are resolved against, usually the config file's.

    Raises:
        ConfigError: unknown name, unknown or missing parameter, or a value of the wrong type.
    """
    cls = lookup(role, table, name)
    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]  # T is a dataclass
    for key in parameters:
        if key not in known:
            hint = nearest(key, known) if known else "it takes none"
            raise ConfigError(f"{role} {name!r} has no parameter {key!r}; {hint}", key)
    # JSON is the strict form in which a list may become a tuple and a string a path.
    text = json.dumps(dict(parameters), default=str)
    try:
        made = TypeAdapter(cls).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = str(first["loc"][0])
        got = "" if first["type"] == "missing" else f" (got {first['input']!r})"
        raise ConfigError(
            f"{role} {name!r}: parameter {key!r}: {first['msg']}{got}", key
        ) from error
    return made if base is None else _resolve(made, base)


def schema(cls: type) -> dict[str, Any]:
    """Return the JSON Schema of the parameters of ``cls``; unknown keys are forbidden."""
    return TypeAdapter(cls).json_schema() | {"additionalProperties": False}


def _resolve(made: T, base: Path) -> T:
    """Return ``made`` with its paths, alone or in tuples, resolved against ``base``.

    All that registries make are dataclasses, which a type variable cannot say.
    """
    paths: dict[str, Any] = {}
    for field in fields(made):  # type: ignore[arg-type]
        value = getattr(made, field.name)
        if isinstance(value, Path):
            paths[field.name] = base / value
        elif isinstance(value, tuple) and any(isinstance(each, Path) for each in value):
            paths[field.name] = tuple(base / each for each in value)
    return replace(made, **paths)  # type: ignore[type-var]
