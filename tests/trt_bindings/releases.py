"""Releases of the four generations of TensorRT's Python API that quantlab is written for.

Of 10 and 11 they are the first and the newest: what is used has to be there from the start.

The published wheels of TensorRT's bindings hold the genuine classes, but not the libraries that do
the work; ``prepare.py`` puts them into ``.bindings/<release>`` of the checkout with link stubs for
those libraries.  TensorRT-RTX is installed whole, by the ``dev`` extra.
"""

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
FOLDER = ROOT / ".bindings"


@dataclass(frozen=True, slots=True)
class Release:
    """A release of TensorRT whose bindings are published.

    Attributes:
        generation: as ``ONLY`` in ``quantlab/engines/trt/api_*.py`` names it.
        version: of the wheel; empty where the ``dev`` extra installs TensorRT.
        wheel: distribution of the bindings; empty as above.
        pythons: interpreters that wheels of this release were published for.
    """

    generation: str
    version: str
    wheel: str
    pythons: tuple[tuple[int, int], ...]

    @property
    def name(self) -> str:
        """What a test calls it."""
        return self.version or self.generation

    @property
    def module(self) -> str:
        """What a program imports."""
        return "tensorrt" if self.wheel else "tensorrt_rtx"

    @property
    def folder(self) -> Path:
        """Where the bindings are."""
        return FOLDER / self.name

    @property
    def lacks_wheel(self) -> str:
        """Return why this interpreter cannot import the release; empty if it can."""
        if (sys.platform, platform.machine()) != ("linux", "x86_64"):
            return f"the bindings of TensorRT {self.name} are tested on Linux x86-64 alone"
        if sys.version_info[:2] in self.pythons:
            return ""
        newest = ".".join(map(str, self.pythons[-1]))
        return (
            f"NVIDIA published no bindings of TensorRT {self.name} for Python "
            f"{sys.version_info[0]}.{sys.version_info[1]}; the newest is for {newest}"
        )


GENERATIONS = ("8", "10", "11", "rtx")
EVERY = ((3, 11), (3, 12), (3, 13))
RELEASES = (
    Release("8", "8.6.1", "tensorrt-bindings", ((3, 11),)),
    Release("10", "10.0.1", "tensorrt-cu12-bindings", ((3, 11), (3, 12))),
    Release("10", "10.16.1.11", "tensorrt-cu12-bindings", EVERY),
    Release("11", "11.0.0.114", "tensorrt-cu12-bindings", EVERY),
    Release("11", "11.4.0.106", "tensorrt-cu12-bindings", EVERY),
    Release("rtx", "", "", EVERY),
)


def parameters(*generations: str) -> list[object]:
    """Return releases for ``parametrize``; what has no wheel here is a skip that says so."""
    return [
        pytest.param(
            release,
            id=release.name,
            marks=[pytest.mark.skipif(bool(release.lacks_wheel), reason=release.lacks_wheel)],
        )
        for release in RELEASES
        if release.generation in (generations or GENERATIONS)
    ]


def run(release: Release, script: Path | str, *arguments: str) -> str:
    """Run a script in a process of its own where ``release`` is what can be imported.

    Each release is a module of the same name, so a process sees one.

    Returns:
        What it printed.
    """
    if release.wheel:
        ready = release.folder / release.module / "__init__.py"
        assert ready.exists(), f"{release.folder} is not prepared: run 'make bindings'"
    program = ["-c", script] if isinstance(script, str) else [str(script)]
    done = subprocess.run(
        [sys.executable, "-W", "error", *program, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{release.folder}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{release.name}: {done.stdout}\n{done.stderr}"
    return done.stdout
