"""Read a config file into a Config, with errors that name the line.

YAML and JSON keep their positions through PyYAML's node tree (JSON is read as the subset of YAML
that it is); TOML's parser keeps none, so its lines are found by scanning for the key.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from quantlab import registry
from quantlab.config import AUTO, Config, Plug, Plugs
from quantlab.errors import ConfigError
from quantlab.targets import check as check_targets

Location = tuple[str | int, ...]

LARGEST = 1 << 20
"""Bytes: a larger file is not a config."""

MOST_VALUES = 100_000
"""Values with every alias written out: a few lines of nested aliases could mean billions."""


@dataclass(frozen=True, slots=True)
class Auto:
    """The method that is none of its own: it takes no parameter."""


def load(path: Path, plugs: Plugs) -> Config:
    """Read, check and resolve a config.

    Returns:
        The config with absolute paths and ``output`` set.

    Raises:
        ConfigError: the file is missing or unreadable, or a key or value is wrong.
    """
    text = _read(path)
    tree, line_of = _parse(path, text)
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path}: expected keys such as 'model:' and 'calibration:', got {tree!r}"
        )
    try:
        config = Config.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise _explain(path, error, line_of) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{path}: a value is not text, number, list or mapping: {error}"
        ) from error
    folder = path.resolve().parent
    for where, naming, check in _checks(config, plugs, folder):
        try:
            check()
        except ConfigError as error:
            line = _line(line_of, (*where, error.key or naming))
            raise ConfigError(f"{path}{line}: {_dotted(where)}: {error}") from error
    return config.model_copy(
        update={
            "model": folder / config.model,
            "output": folder / (config.output or Path("runs") / path.stem),
        }
    )


def schema(plugs: Plugs) -> dict[str, Any]:
    """Return the JSON Schema of the config file, with every plug's parameters."""
    whole = Config.model_json_schema()
    parts = whole["$defs"]
    parts["Plug"] = {
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"type": "string"}},
    }
    _choose(parts["Calibration"], "method", {**plugs.calibrators, AUTO: Auto})
    names = {"type": "array", "items": {"enum": sorted(plugs.repairs)}}
    whole["properties"]["repair"]["anyOf"] = [{"enum": ["none", "auto"]}, names]
    _choose(parts["Engines"], "backend", plugs.engines)
    parts["Dataset"] = {"oneOf": [_alternative(k, v) for k, v in plugs.datasets.items()]}
    parts["Metric"] = {
        "oneOf": [{"enum": sorted(plugs.metrics)}]
        + [_alternative(k, v) for k, v in plugs.metrics.items()]
    }
    parts["Executor"] = {"oneOf": [_alternative(k, v) for k, v in plugs.executors.items()]}
    whole["properties"]["executor"] |= {"$ref": "#/$defs/Executor"}
    for section in ("Calibration", "Evaluation"):
        parts[section]["properties"]["dataset"] = {"$ref": "#/$defs/Dataset"}
    parts["Evaluation"]["properties"]["metrics"]["items"] = {"$ref": "#/$defs/Metric"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "quantlab"} | whole


def _checks(
    config: Config, plugs: Plugs, folder: Path
) -> Iterator[tuple[Location, str, Callable[[], object]]]:
    """Yield where each named choice stands, the key that names it, and what makes it.

    Making everything at once shows a typo before any work is done.
    """

    def make(role: str, table: Mapping[str, type], kind: str, values: Mapping[str, Any]) -> Any:
        return lambda: registry.make(role, table, kind, values, base=folder)

    def dataset(plug: Plug) -> Any:
        return make("dataset", plugs.datasets, plug.kind, plug.parameters)

    calibration, engines = config.calibration, config.engines
    methods = {**plugs.calibrators, AUTO: Auto}
    method = make("method", methods, calibration.method, calibration.parameters)
    backend = make("backend", plugs.engines, engines.backend, engines.parameters)
    executor = config.executor
    collector = make("executor", plugs.executors, executor.kind, executor.parameters)
    yield ("calibration", "dataset"), "kind", dataset(calibration.dataset)
    yield ("calibration",), "method", method
    yield ("executor",), "kind", collector
    if not isinstance(config.repair, str):
        for i, name in enumerate(config.repair):
            yield ("repair", i), "", make("repair", plugs.repairs, name, {})
    yield ("engines",), "backend", backend
    made = []
    if config.evaluation is not None:
        yield ("evaluation", "dataset"), "kind", dataset(config.evaluation.dataset)
        for i, metric in enumerate(config.evaluation.metrics):
            plug = metric if isinstance(metric, Plug) else Plug(kind=metric)
            made.append(make("metric", plugs.metrics, plug.kind, plug.parameters))
            yield ("evaluation", "metrics", i), "kind", made[-1]
    yield (
        ("targets",),
        "",
        lambda: check_targets(
            config.targets,
            {metric.name: metric.compares for metric in (m() for m in made)},
            precisions=engines.precisions,
            benchmark=config.benchmark is not None,
            search=config.search,
        ),
    )


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST:
            raise ConfigError(f"{path}: {path.stat().st_size} bytes is too large for a config file")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read config {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file in UTF-8; is this the config?") from error


def _parse(path: Path, text: str) -> tuple[Any, Callable[[Location], int | None]]:
    suffix = path.suffix.lower()
    try:
        if suffix == ".toml":
            return tomllib.loads(text), lambda location: _toml_line(text, location)
        if suffix == ".json":
            tree = json.loads(text)
            return tree, _json_lines(path, text)
        if suffix not in (".yaml", ".yml"):
            raise ConfigError(f"{path}: expected a .yaml, .yml, .json or .toml file")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None and _size(node, {}) > MOST_VALUES:
            raise ConfigError(f"{path}: aliases multiply to over {MOST_VALUES} values; write less")
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid {suffix[1:].upper()}: {error}") from error
    if node is not None:
        _refuse_duplicates(path, node)
    return tree, lambda location: _node_line(node, location)


def _json_lines(path: Path, text: str) -> Callable[[Location], int | None]:
    """Return lines through YAML's parser, which reads JSON with its tabs taken for spaces."""
    try:
        node = yaml.compose(text.replace("\t", " "), Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return lambda _: None
    if node is not None:
        _refuse_duplicates(path, node)
    return lambda location: _node_line(node, location)


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values a node stands for; ``known`` keeps those of shared nodes."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MOST_VALUES  # what holds itself is too large
        parts = node.value
        children = parts if isinstance(node, yaml.SequenceNode) else [v for kv in parts for v in kv]
        known[id(node)] = 1 + sum(_size(child, known) for child in children)
    return known[id(node)]


def _refuse_duplicates(path: Path, node: yaml.Node) -> None:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicates(path, item)
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise ConfigError(
                    f"{path}:{line}: key {key.value!r} again; first on line {seen[key.value]}"
                )
            seen[key.value] = line
            _refuse_duplicates(path, value)


def _node_line(node: yaml.Node | None, location: Location) -> int | None:
    """Return the line (from 1) of the deepest part of ``location`` that exists."""
    line = None
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = [(k, v) for k, v in node.value if k.value == str(part)]
            if not found:
                break
            key, node = found[0]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _toml_line(text: str, location: Location) -> int | None:
    names = [part for part in location if isinstance(part, str)]
    for name in reversed(names):
        for number, line in enumerate(text.splitlines(), start=1):
            if re.search(rf"(^|[\s{{,.\[\"']){re.escape(name)}[\"']?\s*[=\].]", line):
                return number
    return None


def _explain(
    path: Path, error: ValidationError, line_of: Callable[[Location], int | None]
) -> ConfigError:
    errors = error.errors(include_url=False)
    # A key that is misspelt is missing too: the misspelling is what to say.
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    location: Location = first["loc"]
    where = f"{path}{_line(line_of, location)}: "
    if first["type"] == "extra_forbidden":
        known = _fields(location[:-1])
        hint = registry.nearest(str(location[-1]), known)
        return ConfigError(f"{where}unknown key {_dotted(location)!r}; {hint}")
    if first["type"] == "missing":
        return ConfigError(f"{where}key {_dotted(location)!r} is missing; it must be given")
    return ConfigError(f"{where}{_dotted(location)}: {first['msg']} (got {first['input']!r})")


def _fields(location: Location) -> list[str]:
    """Return the keys that the section at ``location`` knows."""
    section: type[BaseModel] = Config
    for part in location:
        annotation = section.model_fields[str(part)].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        section = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return list(section.model_fields)


def _line(line_of: Callable[[Location], int | None], location: Location) -> str:
    line = line_of(location)
    return "" if line is None else f":{line}"


def _dotted(location: Location) -> str:
    return ".".join(str(part) for part in location)


def _alternative(kind: str, cls: type) -> dict[str, Any]:
    described = registry.schema(cls)
    properties = {"kind": {"const": kind}} | described.get("properties", {})
    required = ["kind", *described.get("required", [])]
    return described | {"properties": properties, "required": required}


def _choose(section: dict[str, Any], key: str, table: Mapping[str, type]) -> None:
    """Let ``key`` take the names of ``table``, and allow each one's parameters beside it."""
    section["properties"][key]["enum"] = sorted(table)
    section.pop("additionalProperties", None)
    default = section["properties"][key]["default"]
    section["allOf"] = [
        {
            # A key that is not there satisfies `properties`, so only the default may match then.
            "if": {"properties": {key: {"const": kind}}}
            | ({} if kind == default else {"required": [key]}),
            "then": {"properties": registry.schema(cls).get("properties", {})},
        }
        for kind, cls in table.items()
    ]
    section["unevaluatedProperties"] = False
