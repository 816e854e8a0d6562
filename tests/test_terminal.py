"""Progress is plain lines where standard error is no terminal, and a bar where it is."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from quantlab.terminal import EVERY, Terminal
from tests.runs import COMMAND, FAST, workspace


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_tell_progress_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    title = "calibrating 12 tensors, 8 batches"
    with Terminal(clock=clock).track(title, total=256, unit="samples") as advance:
        advance(32)  # too early for a line
        clock.now += EVERY
        advance(64)
        clock.now += EVERY / 2
        advance(96)
        clock.now += EVERY / 2
        advance(128)
        clock.now += 2
        advance(256)
    assert capsys.readouterr().err.splitlines() == [
        f"{title}: 256 samples",
        f"{title}: 64 of 256 samples, 12.8/s, 15 s left",
        f"{title}: 128 of 256 samples, 12.8/s, 10 s left",
        f"{title}: 256 samples in 12.0 s",
    ]


def test_a_task_that_fails_is_not_said_to_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), Terminal().track("work", total=3, unit="things"):
        raise KeyError("x")
    assert capsys.readouterr().err == "work: 3 things\n"


def test_nothing_is_done_in_no_time(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Terminal(clock=clock).track("work", total=3, unit="things") as advance:
        clock.now += EVERY
        advance(0)  # no rate to tell yet
    assert capsys.readouterr().err.splitlines() == ["work: 3 things", "work: 0 things in 5.0 s"]


def test_lines_are_written_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    text = "[bold]tensor[/bold] :warning: 12 'x' " + "long " * 40
    terminal = Terminal()
    terminal.note(text)
    terminal.warn(text)
    assert capsys.readouterr().err == f"{text}\nwarning: {text}\n"


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(quiet=True)
    terminal.note("a")
    terminal.warn("b")
    with terminal.track("work", total=2, unit="things") as advance:
        advance(2)
    assert capsys.readouterr() == ("", "")


def shown(command: list[str]) -> str:
    """Return what a process writes to a terminal that its standard error is."""
    ours, theirs = os.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(
        command, stderr=theirs, stdout=subprocess.DEVNULL, env=environment
    ) as process:
        os.close(theirs)
        written = read(ours)
        assert process.wait() == 0
    return written


def read(ours: int) -> str:
    """Return what is written to a terminal until its other side is closed."""
    written = b""
    with contextlib.suppress(OSError):  # Linux says so when it is
        while part := os.read(ours, 4096):
            written += part
    os.close(ours)
    return written.decode()


def plain(text: str) -> str:
    """Return text without the terminal's control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_terminal_gets_a_bar_with_count_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    clock = Clock()
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as file:
        monkeypatch.setattr(sys, "stderr", file)
        with Terminal(clock=clock).track("[work] of a", total=8, unit="samples") as advance:
            clock.now += 2
            advance(4)
            clock.now += 2
            advance(8)
    written = read(ours)
    assert "\x1b[" in written
    last = plain(written).replace("\r", "\n").strip().splitlines()[-1]
    assert re.search(r"\[work\] of a ━+ 8/8 samples, 2/s \d:\d\d:\d\d", last), last


def test_a_run_on_a_terminal_shows_bars_and_its_warnings(tmp_path: Path) -> None:
    changes = {**FAST, "evaluation.dataset": {"kind": "npz", "path": "calib.npz"}}
    config = workspace(tmp_path, changes)
    text = plain(shown([str(COMMAND), "run", str(config)]))
    assert re.search(r"calibrating \d+ tensors, 3 batches ━+ 24/24 samples", text)
    assert "warning: accuracy was measured on calibration samples" in text
