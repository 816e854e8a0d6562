"""Writing a run folder's report, and rendering it again."""

import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from quantlab import reports
from quantlab.errors import OutputError
from quantlab.reports import jsonfile
from tests.reports.sample import sample


def test_write_leaves_every_file_and_again_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    files = reports.write(sample(), folder)
    assert files[-1].name == "report.json"
    assert {file for file in folder.rglob("*") if file.is_file()} == set(files)
    assert {file.name for file in files} >= {"report.html", "report.md", "tensors.csv"}
    assert reports.load(folder) == jsonfile.loads(jsonfile.dumps(sample()), "here")
    again = reports.write(reports.load(folder), tmp_path / "again")
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "tables").write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot write .*tables"):
        reports.write(sample(), tmp_path)
    assert not (tmp_path / "report.json").exists()


def test_the_folder_alone_is_no_package() -> None:
    folder = Path(reports.__file__).parent
    with pytest.raises(ImportError, match=r"is the package quantlab\.reports"):
        runpy.run_path(str(folder / "__init__.py"), run_name="reports")


def test_the_module_prints_the_schema(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "quantlab.reports"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == jsonfile.schema_text()
    assert done.stderr == ""


def printed(table: object) -> str:
    console = Console(width=200, record=True, file=None, quiet=False, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_summary_table_for_the_terminal() -> None:
    text = printed(reports.summary_table(sample()))
    assert "INT8" in text
    assert "2.10\N{MULTIPLICATION SIGN}" in text
    assert "(2.02 to 2.19)" in text
    assert "11.4 MB" in text


def test_result_tables_for_the_terminal() -> None:
    tables = reports.result_tables(sample())
    text = "".join(map(printed, tables))
    assert len(tables) == 4
    for expected in ("/layer1/conv0/Conv", "equalize", "int8 but 2", "11.4 MB"):
        assert expected in text
    bare = replace(sample(), engines=(), analysis=None, repair=None, search=None)
    assert reports.result_tables(bare) == ()


def test_a_long_table_for_the_terminal_names_its_file() -> None:
    found = sample().repair
    assert found is not None
    trials = (replace(found.trials[0], what="[red]"),) * 30
    report = replace(sample(), engines=(), analysis=None, search=None)
    (table,) = reports.result_tables(replace(report, repair=replace(found, trials=trials)))
    text = printed(table)
    assert text.count("[red]") == 20
    assert "and 10 more in tables/repair.csv" in text


def test_compare_table_for_the_terminal() -> None:
    text = printed(reports.compare_table([sample(), sample()], ["[red]a", "b"]))
    assert text.count("(291.9 to 306.3)") == 2
    assert "[red]a" in text
