"""No code of quantlab reaches TensorRT past the declared API, and what tries to is found."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_architecture import MODULES
from tests.trt_bindings.declared import FILES
from tests.trt_bindings.gate import offences

HEAD = "from quantlab.engines.trt.api_build import IBuilderConfig, Module\n"
BUILDER = "quantlab.engines.trt.builder"
DERIVED = "class Log(base):  # type: ignore[misc, valid-type]\n    def f(self):"


ALLOWED = {"quantlab.engines.trt.network": "hasattr"}
"""By module, the one offence that is none.

network: ``hasattr`` asks a plugin library, loaded by ctypes, for the functions that it exports.
"""


@pytest.mark.parametrize(("name", "path"), MODULES, ids=str)
def test_tensorrt_is_reached_through_the_declared_api_alone(name: str, path: Path) -> None:
    found = offences(path.read_text(), name=name)
    if name in ALLOWED:
        assert len(found) == 1
        assert ALLOWED[name] in found[0]
    else:
        assert found == []


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("quantlab.doctor", "import tensorrt as trt", "imports tensorrt"),
        ("quantlab.doctor", "from tensorrt_rtx import Builder", "imports tensorrt_rtx"),
        ("quantlab.doctor", "import_module('tensorrt_rtx')", "imports tensorrt_rtx"),
        ("quantlab.doctor", "__import__('tensorrt')", "imports tensorrt"),
        ("quantlab.doctor", "import os, tensorrt", "imports tensorrt"),
        (BUILDER, "import_module(name)", "computed name"),
        ("quantlab.engines.trt.library", "trt = import_module(name)\ntrt.x", "without a cast"),
        ("quantlab.engines.trt.library", "import_module(name).Builder", "without a cast"),
        (BUILDER, "getattr(config, 'no_such_flag')", "getattr"),
        (BUILDER, "hasattr(config, 'int8_calibrator')", "hasattr"),
        (BUILDER, "operator.attrgetter('x')(config)", "attrgetter"),
        (BUILDER, "vars(trt)['Builder']", "vars"),
        (BUILDER, "trt.__dict__['Builder']", "__dict__"),
        (BUILDER, "trt.BuilderFlag.__members__['FP8']", "declare the member"),
        (BUILDER, "config.no_such_flag  # type: ignore[attr-defined]", "type: ignore"),
        (BUILDER, "class Log(base):  # type: ignore\n    pass", "type: ignore"),
        (BUILDER, f"{HEAD}from typing import Any\nconfig: Any = make()", "Any"),
        (BUILDER, f"{HEAD}import typing\nconfig: typing.Any = make()", "Any"),
        (BUILDER, f"{HEAD}def f(trt: ModuleType) -> None: ...", "ModuleType"),
        (BUILDER, f"{HEAD}cast(Config, config).no_such_flag", "cast(Config, config)"),
        (BUILDER, f"{HEAD}typing.cast('Config', config).no_such_flag", "cast('Config', config)"),
        ("quantlab.doctor", f"{HEAD}getattr(trt, 'x')", "getattr"),
        (BUILDER, f"{DERIVED}\n        return self.get_algorithm()", "self.get_algorithm"),
        (BUILDER, f"{DERIVED}\n        return super().log()", "super().log"),
        (BUILDER, f"{DERIVED}\n        pass\nlog = Log()\nlog.undeclared", "gets no type"),
    ],
)
def test_a_way_past_the_declared_api_is_found(name: str, source: str, complaint: str) -> None:
    assert any(complaint in offence for offence in offences(source, name=name))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("quantlab.doctor", "import_module('openvino')"),
        ("quantlab.doctor", "import_module(name)"),
        (BUILDER, "import_module('pycuda.driver')"),
        ("quantlab.doctor", "getattr(host, 'name')"),
        ("quantlab.doctor", "from typing import Any"),
        ("quantlab.engines.trt.library", "found = import_module(name)\ncast(Module, found)"),
        ("quantlab.engines.trt.library", "trt = cast(Module, import_module(name))"),
        (BUILDER, f"{DERIVED}\n        self.a = self.f()\nlog: ILogger = Log()"),
        (BUILDER, "trt.BuilderFlag.__members__[name]"),
    ],
)
def test_what_is_no_way_past_it_is_let_be(name: str, source: str) -> None:
    assert offences(source, name=name) == []


MYPY = {
    "config.builder_optimization_level = 3": "",
    "config.set_flag(trt.BuilderFlag.TF32)": "",
    "config.no_such_setting = 1": 'no attribute "no_such_setting"',
    "config.no_such_method()": 'no attribute "no_such_method"',
    "config.set_flag(trt.BuilderFlag.FP99)": 'no attribute "FP99"',
    "trt.Refitter": 'no attribute "Refitter"',
    "config.set_flag(3)": "incompatible type",
    "config.set_flag(flags=trt.BuilderFlag.TF32)": "Unexpected keyword argument",
    "config.set_flag(trt.BuilderFlag.TF32, 1)": "Too many arguments",
}
"""A line of code, and what mypy says of it."""


def test_mypy_refuses_what_is_not_declared(tmp_path: Path) -> None:
    package = tmp_path / "quantlab/engines/trt"
    package.mkdir(parents=True)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").write_text("")
    for file in FILES:
        shutil.copy(file, package)
    start = f"{HEAD}\n\ndef change(trt: Module, config: IBuilderConfig) -> None:\n"
    (package / "new.py").write_text(start + "".join(f"    {line}\n" for line in MYPY))
    command = ["-m", "mypy", "--strict", "--config-file=", "quantlab/engines/trt/new.py"]
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    for number, (line, complaint) in enumerate(MYPY.items(), start.count("\n") + 1):
        said = [text for text in done.stdout.splitlines() if f"new.py:{number}:" in text]
        assert bool(said) == bool(complaint), f"{line}\n{done.stdout}"
        assert complaint in "".join(said), line
