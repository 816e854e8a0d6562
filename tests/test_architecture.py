"""The structure that docs/architecture.md states: ranks, packages, sizes, doctests."""

import ast
import doctest
import importlib
import pkgutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {
    "quantlab": ROOT / "quantlab",
    "quantlab.calibrators": ROOT / "calibrators",
    "quantlab.datasets": ROOT / "datasets",
    "quantlab.reports": ROOT / "reports",
}
RANKS = {
    "errors": 0,
    "files": 1, "findings": 1, "functions": 1, "histogram": 1, "measured": 1, "npz": 1,
    "progress": 1, "qparams": 1, "registry": 1, "visible": 1,
    "cuda": 2, "records": 2, "saved": 2,
    "cache": 3, "cache_names": 3, "ort_table": 3,
    "calibrators": 4, "config": 4, "datasets": 4, "engines": 4, "graph": 4, "intervals": 4,
    "metrics": 4, "runfolder": 4, "targets": 4,
    "accuracy": 5, "collect": 5, "configfile": 5, "decide": 5, "manifest": 5, "performance": 5,
    "plan_report": 5, "qdq_cost": 5, "simulate": 5, "starter": 5,
    "analyze": 6, "assemble": 6, "cachetools": 6, "doctor": 6, "migrate_qdq": 6, "repair": 6,
    "reports": 6, "search": 6, "variants": 6,
    "migrate": 7, "plugs": 7,
    "steps": 8,
    "explain": 9, "pipeline": 9, "predict": 9, "terminal": 9,
    "cli_analyze": 10, "cli_cache": 10, "cli_explain": 10, "cli_migrate": 10, "cli_predict": 10,
    "cli_trtexec": 10, "cli_variants": 10,
    "cli": 11,
    "__main__": 12,
}  # fmt: skip
"""By the name behind ``quantlab.``: a module imports lower ranks, or its own package."""


def sources() -> Iterator[tuple[str, Path]]:
    """Yield every module's full name and file."""
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join((package, *(part for part in parts if part != "__init__")))
            yield name, path


MODULES = list(sources())


def imported(path: Path) -> Iterator[str]:
    """Yield the quantlab modules that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            if node.module == "quantlab":
                yield from (f"quantlab.{alias.name}" for alias in node.names)
            elif node.module.startswith("quantlab."):
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("quantlab."))


def part(module: str) -> str:
    """Return the name that has a rank."""
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize(("name", "path"), MODULES, ids=str)
def test_imports_point_to_lower_ranks(name: str, path: Path) -> None:
    here = part(name)
    if not here:  # quantlab/__init__.py imports lazily, whatever the rank
        return
    assert here in RANKS, f"{name} has no rank; give it one here and in docs/architecture.md"
    for module in imported(path):
        there = part(module)
        if there in ("__version__", here):
            continue
        assert RANKS[there] < RANKS[here], (
            f"{path}: {here} (rank {RANKS[here]}) imports {there} (rank {RANKS[there]})"
        )


def test_setuptools_lists_every_package() -> None:
    listed = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    )
    present = {name for name, path in sources() if path.name == "__init__.py"}
    assert listed == present


@pytest.mark.parametrize(("name", "path"), MODULES, ids=str)
def test_files_and_functions_are_small(name: str, path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400, f"{name}: split it"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 60, f"{name}.{node.name} has {length} lines"


@pytest.mark.parametrize(("name", "path"), MODULES, ids=str)
def test_modules_say_what_they_are_and_doctests_hold(name: str, path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{name} has no docstring"
    if name != "quantlab.__main__" and not name.endswith(".__main__"):
        result = doctest.testmod(importlib.import_module(name))
        assert result.failed == 0


def test_packages_import_as_installed() -> None:
    for package in FOLDERS:
        module = importlib.import_module(package)
        assert [m.name for m in pkgutil.iter_modules(module.__path__)]


def test_every_public_name_can_be_imported() -> None:
    import quantlab

    for name in quantlab.__all__:
        assert getattr(quantlab, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = quantlab.nothing
