"""quantlab's subclasses of TensorRT's classes, made over the genuine ones and called by them.

The cases are in ``inside.py``; those of a release run in a process of its own.
"""

import pytest

from tests.trt_bindings.inside import CASES
from tests.trt_bindings.releases import HERE, Release, parameters, run


@pytest.mark.parametrize("release", parameters())
def test_what_tensorrt_calls_back(release: Release) -> None:
    said = run(release, HERE / "inside.py", release.name).split()
    wanted = [
        case.__name__
        for names, cases in CASES.items()
        for case in cases
        if release.generation in names.split()
    ]
    assert said == wanted
