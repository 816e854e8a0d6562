"""A step is done once, again when its reasons change, and a folder serves one run at a time."""

import json
from pathlib import Path

import pytest

from quantlab.errors import OutputError
from quantlab.runfolder import opened


def count_runs(folder: Path, made_from: dict[str, object]) -> int:
    """Do a step that writes a file; return how often its work ran, 0 or 1."""
    ran: list[int] = []
    with opened(folder) as run:

        def work() -> list[Path]:
            ran.append(1)
            (folder / "out.txt").write_text("result")
            return [folder / "out.txt"]

        run.step("one", made_from, work)
    return len(ran)


def test_a_finished_step_does_not_run_again(tmp_path: Path) -> None:
    assert count_runs(tmp_path / "run", {"a": (1, 2), "b": None}) == 1
    assert count_runs(tmp_path / "run", {"b": None, "a": [1, 2]}) == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda folder: (folder / "out.txt").unlink(), "out.txt is missing"),
        (lambda folder: (folder / "out.txt").write_text("other"), "out.txt was altered"),
    ],
)
def test_a_lost_or_altered_file_is_made_again(tmp_path: Path, change: object, reason: str) -> None:
    folder = tmp_path / "run"
    count_runs(folder, {"a": 1})
    change(folder)  # type: ignore[operator]
    with opened(folder) as run:
        assert run.stale("one", {"a": 1}) == reason
    assert count_runs(folder, {"a": 1}) == 1


def test_what_changed_is_named(tmp_path: Path) -> None:
    count_runs(tmp_path, {"method": "entropy", "data": 1, "same": 0})
    with opened(tmp_path) as run:
        assert run.stale("one", {"method": "mse", "data": 2, "same": 0}) == "data, method changed"
        assert run.stale("two", {}) == "not done yet"
        run.forget("one")
        assert run.stale("one", {"method": "entropy", "data": 1, "same": 0}) == "not done yet"


def test_a_step_that_fails_is_not_recorded_and_leaves_no_partial_file(tmp_path: Path) -> None:
    def work() -> list[Path]:
        (tmp_path / ".out.x.partial.txt").write_text("half")
        raise ValueError("broken")

    with opened(tmp_path) as run:
        with pytest.raises(ValueError, match="broken"):
            run.step("one", {}, work)
        assert run.stale("one", {}) == "not done yet"
    with opened(tmp_path):
        assert not list(tmp_path.glob("*.partial*"))


def test_a_second_run_is_refused_until_the_first_is_over(tmp_path: Path) -> None:
    with (
        opened(tmp_path),
        pytest.raises(OutputError, match="in use by another run"),
        opened(tmp_path),
    ):
        pass
    with opened(tmp_path) as run:
        assert run.facts()["steps"] == {}


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 99, "steps": {}}'])
def test_an_unreadable_run_json_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with opened(tmp_path) as run, pytest.raises(OutputError, match=r"run\.json"):
        run.facts()


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(OutputError, match="choose another folder"), opened(tmp_path / "run"):
        pass


def test_facts_and_times_are_kept(tmp_path: Path) -> None:
    count_runs(tmp_path, {})
    with opened(tmp_path) as run:
        run.note({"quantlab": "1"})
        assert run.facts()["quantlab"] == "1"
        assert list(run.seconds()) == ["one"]
    assert json.loads((tmp_path / "run.json").read_text())["steps"]["one"]["files"]
