"""report.json: the frozen report, whole, and the JSON Schema that describes the file.

The schema is made from ``quantlab.records.Report`` and shipped as ``report.schema.json``;
``python -m quantlab.reports > reports/report.schema.json`` writes it anew.  Unknown keys, NaN and
infinities are refused in both directions.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from quantlab.errors import DataError
from quantlab.records import Report

SCHEMA_VERSION = 1
"""``Report.schema_version`` that this version writes and reads."""

SIZE_LIMIT = 1 << 29
"""Bytes of the largest report.json that is read."""

REMEDY = "render it with the quantlab that wrote it, or repeat the run"


def dumps(report: Report) -> str:
    """Return the text of report.json.

    Raises:
        ValueError: a number is NaN or infinite; says which.
    """
    data = _finite(TypeAdapter(Report).dump_python(report, mode="json"), "report")
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def load(path: Path) -> Report:
    """Return the report in a report.json, or in the run folder ``path``.

    Raises:
        DataError: missing, too large, not a report, or of another version.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        if file.stat().st_size > SIZE_LIMIT:
            raise DataError(f"{file}: larger than {SIZE_LIMIT} bytes, so no report of quantlab")
        text = file.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read {file}: {error.strerror or error}; expected a run folder of "
            "'quantlab run' or its report.json"
        ) from error
    return loads(text, str(file))


def loads(text: str | bytes, origin: str) -> Report:
    """Return the report in ``text``, which came from ``origin``.

    Raises:
        DataError: it is not a report, or of another version; says where it differs.
    """
    data = text.encode() if isinstance(text, str) else text
    try:
        (report,) = _adapter().validate_json(b"[" + data + b"]")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "the whole file"
        raise DataError(f"{origin}: {where}: {first['msg']}; {REMEDY}") from error
    if report.schema_version != SCHEMA_VERSION:
        raise DataError(
            f"{origin}: schema_version: expected {SCHEMA_VERSION}, got "
            f"{report.schema_version}; {REMEDY}"
        )
    return report


def schema() -> dict[str, Any]:
    """Return the JSON Schema of report.json."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "report.json of quantlab",
        "$ref": "#/$defs/Report",
        "$defs": _adapter().json_schema()["$defs"],
    }


def schema_text() -> str:
    """Return the text of report.schema.json."""
    return json.dumps(schema(), indent=1, sort_keys=True) + "\n"


def _adapter() -> TypeAdapter[tuple[Report]]:
    # Around a container, pydantic hands the settings down to plain dataclasses; around a
    # dataclass itself it takes none.
    return TypeAdapter(
        tuple[Report], config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    )


def _finite(value: Any, where: str) -> Any:
    """Return ``value``, ready for UTF-8; raise ValueError where a number is not finite."""
    if isinstance(value, Mapping):
        return {_text(key): _finite(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item, f"{where}.{index}") for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: expected a finite number, got {value!r}")
    return _text(value) if isinstance(value, str) else value


def _text(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()  # a file name may hold lone surrogates
