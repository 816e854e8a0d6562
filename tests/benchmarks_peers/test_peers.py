"""The comparison with the peers: limits hold, a stopped run goes on, tables say what happened."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers import histograms, judged, measure, process, results, tables
from benchmarks.peers.cell import Cell, End, Outcome
from benchmarks.peers.request import Request, mapped

GROW = "x = []\nwhile True: x.append(bytearray(1 << 24))"
LIMITS = process.Limits(memory=1 << 28, seconds=60.0)


def outcome(cell: Cell, seconds: float = 1.0, end: End = "finished") -> Outcome:
    return Outcome(
        cell=cell,
        end=end,
        tensors=13,
        seconds=seconds if end == "finished" else 0.0,
        process_seconds=seconds,
        cpu_seconds=seconds,
        peak_bytes=18 << 30,
        start_bytes=1 << 30,
        images_read=320,
        milliseconds={},
        versions={},
        error="",
    )


def run(code: str, folder: Path, limits: process.Limits = LIMITS) -> process.Usage:
    return process.run([sys.executable, "-c", code], folder / "log", cwd=folder, limits=limits)


def stored(*outcomes: Outcome) -> results.Results:
    return results.Results(batch=32, memory_limit=18 << 30, outcomes=list(outcomes))


def test_a_process_that_grows_is_killed_near_the_limit(tmp_path: Path) -> None:
    usage = run(GROW, tmp_path)
    assert usage.end == "memory"
    assert usage.peak_bytes > LIMITS.memory


def test_a_process_that_takes_long_is_killed(tmp_path: Path) -> None:
    usage = run("import time; time.sleep(60)", tmp_path, replace(LIMITS, seconds=0.2))
    assert usage.end == "time"
    assert 0.2 < usage.seconds < 30


def test_the_peak_is_of_the_process_alone(tmp_path: Path) -> None:
    held = np.ones(1 << 25)  # 256 MiB of this process
    usage = run("import time; x = bytearray(50 << 20); time.sleep(0.5)", tmp_path)
    assert 50 << 20 < usage.peak_bytes < 150 << 20
    assert usage.end == "finished"
    del held


def test_cpu_time_counts_children_and_a_failure_is_one(tmp_path: Path) -> None:
    spin = "import time\nwhile time.process_time() < 0.5: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spin!r}]); sys.exit(3)"
    usage = run(code, tmp_path)
    assert usage.end == "failed"
    assert usage.cpu_seconds > 0.5


def test_batches_are_mapped_from_the_file_and_counted(tmp_path: Path) -> None:
    images = np.arange(7 * 3, dtype=np.float32).reshape(7, 3)
    np.savez(tmp_path / "samples.npz", image=images)
    assert np.array_equal(mapped(tmp_path / "samples.npz", "image.npy"), images)
    samples = str(tmp_path / "samples.npz")
    request = Request("plain", "", "", samples, "", images=5, batch=2, folder=str(tmp_path))
    assert Request.read(request.write()) == request
    batches = [batch["image"] for batch in request.batches()]
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert np.array_equal(np.concatenate(batches), images[:5])
    assert (tmp_path / "images_read").read_text() == "5"


def test_repeats_go_in_turns_and_a_stopped_run_goes_on() -> None:
    quick, slow = Cell("plain", "resnet", 64), Cell("ort-entropy", "resnet", 64)
    seconds = {quick: 1.0, slow: 100.0}
    every = list(measure.measured([quick, slow], [], lambda c: outcome(c, seconds[c])))
    assert [o.cell for o in every] == [quick, slow, quick, quick]
    rest = list(measure.measured([quick, slow], every[:2], lambda c: outcome(c, seconds[c])))
    assert [o.cell for o in rest] == [quick, quick]


def test_a_killed_cell_is_not_repeated() -> None:
    cell = Cell("ort-entropy", "lite2", 512)
    found = list(measure.measured([cell], [], lambda c: outcome(c, 1.0, "memory")))
    assert len(found) == 1


def test_results_survive_the_disk(tmp_path: Path) -> None:
    saved = stored(outcome(Cell("plain", "resnet", 64)), outcome(Cell("plain", "lite2", 64)))
    saved.save(tmp_path / "peers.json")
    assert results.load(tmp_path / "peers.json") == saved


def test_a_peer_that_ran_out_of_memory_is_said_to_have() -> None:
    found = stored(outcome(Cell("ort-entropy", "lite2", 512), 40.0, "memory"))
    (row,) = tables.costs(found, "lite2")
    assert "out of memory at 18.00 GiB, 320 of 512 images read" in row
    assert "18.00 GiB" in tables.page(found, [])


@pytest.mark.parametrize(("seconds", "met"), [(10.0, True), (4.0, False)])
def test_speed_is_judged_at_512_images(seconds: float, met: bool) -> None:  # noqa: FBT001
    found = stored(
        outcome(Cell("quantlab-entropy", "resnet", 512), 1.0),
        outcome(Cell("ort-entropy", "resnet", 512), seconds),
    )
    (figure,) = judged.figures(found)
    assert figure.value == pytest.approx(seconds)
    assert figure.met is met


def test_a_killed_peer_has_no_ratio_and_is_not_broken() -> None:
    found = stored(
        outcome(Cell("quantlab-entropy", "lite2", 512), 1.0),
        outcome(Cell("ort-entropy", "lite2", 512), 4.0, "memory"),
    )
    assert list(judged.figures(found)) == []
    assert list(judged.broken(found)) == []


@pytest.mark.parametrize(("tool", "end"), [("quantlab-mse", "memory"), ("ort-minmax", "failed")])
def test_what_should_have_finished_is_named_and_tried_again(
    tool: str, end: End, tmp_path: Path
) -> None:
    found = stored(outcome(Cell(tool, "resnet", 64), 1.0, end))
    (text,) = judged.broken(found)
    assert f"resnet 64 {tool}: {end}" in text
    found.save(tmp_path / "peers.json")
    kept = results.load(tmp_path / "peers.json").outcomes
    assert len(kept) == (end != "failed")


def test_tensors_to_search_are_spread_over_the_model() -> None:
    names = [str(index) for index in range(100)]
    picked = histograms._spread(names)
    assert len(picked) == histograms.MOST
    assert (picked[0], picked[-1]) == ("0", "99")
