"""report.html: one file that needs no other, no network and no script.

Everything a report holds is escaped by the template engine, and the page forbids itself scripts and
outside resources besides (Content-Security-Policy), for names come from models of strangers.
"""

from collections.abc import Mapping
from importlib import resources
from pathlib import PurePath
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from quantlab.records import Report
from quantlab.reports import formats
from quantlab.reports.blocks import Section
from quantlab.reports.verdict import sentences, tone
from quantlab.visible import visible

ROWS = 500
"""Rows of a table that are drawn; the CSV file has all."""


def render(report: Report, sections: Mapping[str, Section]) -> str:
    """Return report.html."""
    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        report=report,
        name=PurePath(report.model.path).name or report.model.path,
        sentences=sentences(report),
        tone=tone(report),
        made=" · ".join(_made(report)),
        sections=sections,
        style=Markup(_read("style.css")),  # noqa: S704  # our own file
        markup=Markup,
        rows=ROWS,
    )


def _made(report: Report) -> list[str]:
    """Return what made the report, when, and on which backend and device."""
    ran = dict.fromkeys(f"{engine.backend} on {engine.device}" for engine in report.engines)
    return [f"quantlab {report.quantlab}", formats.moment(report.created), *ran]


def _read(name: str) -> str:
    return resources.files("quantlab.reports").joinpath(name).read_text(encoding="utf-8")


def _shown(value: Any) -> Any:
    return visible(value) if type(value) is str else value
