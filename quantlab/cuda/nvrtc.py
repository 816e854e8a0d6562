"""Compile CUDA C++ with NVRTC, NVIDIA's compiler as a library, from its Python wheel.

It needs neither a CUDA toolkit nor a GPU.  Where it knows the architecture it makes machine code,
which a driver of the same major version loads as it is; for a newer GPU it makes PTX of the newest
architecture that it knows, which the driver compiles.
Source of the interface: NVRTC's documentation, https://docs.nvidia.com/cuda/nvrtc/.
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from quantlab.errors import EngineError, EngineUnavailable

INSTALL = "pip install 'quantlab[cuda]'"

LIBRARIES = ("nvidia/cu*/lib/libnvrtc.so.*", "nvidia/cuda_nvrtc/lib/libnvrtc.so.*")
"""Where NVIDIA's wheels put it: from CUDA 13 on, and before."""


def compile_source(source: str, architecture: int, options: Sequence[str] = ()) -> bytes:
    """Return machine code (cubin) or PTX that the CUDA driver can load.

    Args:
        source: CUDA C++ without includes.
        architecture: compute capability of the GPU: 90 for 9.0.
        options: of NVRTC beside the architecture, such as ``-DNAME=VALUE``.

    Raises:
        EngineUnavailable: NVRTC is not installed, or the GPU is older than all that it knows.
        EngineError: the source is refused; the message is the compiler's.
    """
    nvrtc = _library()
    known = [number for number in architectures() if number <= architecture]
    if not known:
        raise EngineUnavailable(
            f"the GPU's compute capability {architecture / 10} is below {architectures()[0] / 10}, "
            "the lowest that the installed NVRTC compiles for; install an older one: "
            "pip install nvidia-cuda-nvrtc-cu12"
        )
    exact = known[-1] == architecture
    target = f"--gpu-architecture={'sm' if exact else 'compute'}_{known[-1]}"
    program = ctypes.c_void_p()
    _check(
        nvrtc.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None
        )
    )
    try:
        flags = [flag.encode() for flag in (target, "--std=c++17", *options)]
        status = nvrtc.nvrtcCompileProgram(
            program, len(flags), (ctypes.c_char_p * len(flags))(*flags)
        )
        if status:
            log = _text(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
            raise EngineError(f"NVRTC refuses the kernels for {target}:\n{log}")
        return _text(program, "CUBIN" if exact else "PTX")
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def architectures() -> list[int]:
    """Return the compute capabilities that NVRTC knows, ascending: [75, 80, ...].

    Raises:
        EngineUnavailable: NVRTC is not installed.
    """
    nvrtc = _library()
    number = ctypes.c_int()
    _check(nvrtc.nvrtcGetNumSupportedArchs(ctypes.byref(number)))
    found = (ctypes.c_int * number.value)()
    _check(nvrtc.nvrtcGetSupportedArchs(found))
    return sorted(found)


def version() -> str:
    """Return NVRTC's version: "13.0"."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return f"{major.value}.{minor.value}"


@cache
def _library() -> Any:
    """Return NVRTC, looked for in the wheels of this environment, then where the system looks."""
    package = find_spec("nvidia")
    roots = [Path(p).parent for p in (package.submodule_search_locations or ())] if package else []
    found = [str(path) for root in roots for glob in LIBRARIES for path in root.glob(glob)]
    # The newest that is in the wheels; "alt" is a second build for other C++ libraries.
    found.sort(key=lambda path: int(path.rpartition(".")[2]), reverse=True)
    tried = [path for path in found if ".alt." not in path] + ["libnvrtc.so.13", "libnvrtc.so.12"]
    for path in tried:
        try:
            return ctypes.CDLL(path)
        except OSError as error:
            reason = error
    raise EngineUnavailable(
        f"NVRTC, which compiles the GPU's kernels, cannot be loaded ({reason}); install it: "
        f"{INSTALL}"
    )


def _text(program: ctypes.c_void_p, kind: str) -> bytes:
    """Return what ``nvrtcGet<kind>`` gives."""
    nvrtc, size = _library(), ctypes.c_size_t()
    _check(getattr(nvrtc, f"nvrtcGet{kind}Size")(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    _check(getattr(nvrtc, f"nvrtcGet{kind}")(program, text))
    return text.raw


def _check(status: int) -> None:
    if status:
        explain = _library().nvrtcGetErrorString
        explain.restype = ctypes.c_char_p
        raise EngineError(f"NVRTC failed: {explain(status).decode()}")
