"""Make the genuine bindings of TensorRT importable without TensorRT: ``make bindings``.

Each wheel is unpacked into ``.bindings/<release>``.  Its extension module is linked to TensorRT's
libraries, which no public registry carries; in their place it gets empty ones beside it, where its
run path looks first.  They define every function that the module refers to and that no library of
the system provides; each returns 0.  So all classes, enums and signatures are there and can be
subclassed, and creating a Builder or a Runtime fails.

It needs pip, gcc, and nm and readelf of binutils.  A folder appears whole or not at all.
"""

import ctypes
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.trt_bindings.releases import FOLDER, RELEASES, Release

FRONT = "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"
"""NVIDIA's package ``tensorrt`` is these two lines over the bindings."""


def output(*command: str) -> str:
    """Run a command and return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def needed(library: Path) -> list[str]:
    """Return the names of the libraries that one is linked to."""
    lines = output("readelf", "--dynamic", "--wide", str(library)).splitlines()
    return [line.split("[")[1].rstrip("]") for line in lines if "(NEEDED)" in line]


def undefined(library: Path) -> list[str]:
    """Return the functions that a library wants from others, less those with a system's version."""
    lines = output("nm", "-D", "--undefined-only", str(library)).splitlines()
    split = [line.split() for line in lines]
    return [name for kind, name in split if kind == "U" and "@" not in name]


def missing(library: Path) -> list[str]:
    """Return those that neither this process nor the system's libraries provide."""
    for name in needed(library):
        if not name.startswith("libnv"):
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    here = ctypes.CDLL(None)
    return [name for name in undefined(library) if not hasattr(here, name)]


def write_stubs(library: Path) -> None:
    """Put a library of stubs beside ``library`` for each one of TensorRT's."""
    ours = [name for name in needed(library) if name.startswith("libnv")]
    symbols = missing(library)
    foreign = [name for name in symbols if name.startswith(("Py", "_Py"))]
    if foreign:
        sys.exit(f"{library} is not for Python {sys.version}: it wants {', '.join(foreign)}")
    lines = [
        f'void *f{i}(void) __asm__("{name}");\nvoid *f{i}(void) {{ return 0; }}'
        for i, name in enumerate(symbols)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "stubs.c"
        for name in ours:
            # The first holds all of them; the others only have to be there.
            source.write_text("\n".join(lines if name == ours[0] else []) + "\n")
            build = ("gcc", "-shared", "-fPIC", "-nostdlib", f"-Wl,-soname,{name}")
            output(*build, "-o", str(library.parent / name), str(source))


def prepare(release: Release) -> None:
    """Unpack one release's wheel and make it importable."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        folder = Path(scratch) / release.version
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        wheel = f"{release.wheel}=={release.version}"
        output(*pip, "--only-binary", ":all:", "--target", str(folder), wheel)
        write_stubs(folder / "tensorrt_bindings/tensorrt.so")
        (folder / "tensorrt").mkdir()
        (folder / "tensorrt/__init__.py").write_text(FRONT)
        shutil.rmtree(release.folder, ignore_errors=True)
        folder.rename(release.folder)


def main() -> None:
    """Prepare every release that this interpreter can import."""
    for tool in ("gcc", "nm", "readelf"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is not installed: as root, apt-get install gcc binutils")
    for release in RELEASES:
        if release.wheel and not release.lacks_wheel:
            prepare(release)


if __name__ == "__main__":
    main()
