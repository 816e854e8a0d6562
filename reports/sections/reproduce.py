"""The command, the config, the model, the machine and the versions."""

import json
from typing import Any

import yaml

from quantlab.records import Report
from quantlab.reports import formats
from quantlab.reports.blocks import Block, Code, Details, Facts, Section


def section(report: Report) -> Section:
    """Return what is needed to get this report again."""
    model = report.model
    facts = (
        ("File", model.path),
        ("SHA-256", model.sha256),
        ("Inputs", ", ".join(model.inputs)),
        ("Outputs", ", ".join(model.outputs)),
        ("Opset", str(model.opset)),
        ("Nodes", formats.count(model.nodes)),
        ("Parameters", formats.count(model.parameters)),
    )
    blocks: list[Block] = [
        Code("Command", report.command, "sh"),
        Details("Config as resolved", (Code("Config", _yaml(report.config), "yaml"),)),
        Facts("Model", facts),
    ]
    host = tuple((str(key), formats.plain(value, key)) for key, value in report.host.items())
    steps = tuple((name, formats.seconds(value)) for name, value in report.timings.items())
    for caption, items in (
        ("Machine", host),
        ("Versions", tuple(report.versions.items())),
        ("Time by step", steps),
    ):
        if items:
            blocks.append(Facts(caption, items))
    return Section("How to reproduce", tuple(blocks))


def _yaml(config: Any) -> str:
    plain = json.loads(json.dumps(config, default=dict))  # YAML knows dicts, not every Mapping
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
