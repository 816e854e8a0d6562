"""Reports that no run makes but the types allow: anything may be empty, missing or hostile."""

import types
import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from quantlab.records import Report

TEXTS = st.one_of(
    st.text(max_size=12),  # no lone surrogates: protobuf holds none
    st.sampled_from(
        [
            "<script>alert(1)</script>",
            '"><img src=x onerror=alert(1)>',
            "$\\frac{1}{2}$",
            "a|b`c``d",
            "text-0-",
            "#010101",
            "{{ 7 * 7 }}",
            "\u202egnp.exe\x00\n",
            "量化" * 40,
            "x" * 300,
        ]
    ),
)
FLOATS = st.one_of(st.just(0.0), st.floats(1e-6, 1e6), st.floats(-1e6, -1e-6))
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 10**12) | FLOATS | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXTS,
    float: FLOATS,
    int: st.integers(0, 10**12),
    bool: st.booleans(),
    type(None): st.none(),
    Any: JSON,
}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for any type that a record has."""
    origin, parameters = get_origin(kind), get_args(kind)
    if kind in PLAIN:
        return PLAIN[kind]
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return st.builds(kind, **{name: values(hint) for name, hint in hints.items()})
    if origin is tuple:
        many = st.lists(values(parameters[0]), max_size=3).map(tuple)
        return many if parameters[-1] is ... else st.tuples(*map(values, parameters))
    if origin is Mapping:
        return st.dictionaries(values(parameters[0]), values(parameters[1]), max_size=3)
    if origin is Literal:
        return st.sampled_from(parameters)
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*map(values, parameters))
    raise TypeError(f"no strategy for {kind!r}")


def reports() -> st.SearchStrategy[Report]:
    """Return a strategy for reports of this version."""
    hints = get_type_hints(Report) | {"schema_version": Literal[1]}
    return st.builds(Report, **{name: values(hint) for name, hint in hints.items()})
