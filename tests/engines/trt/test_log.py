"""What TensorRT says is passed on, counted, named, and read for why a build failed."""

import logging
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.engines.trt import log
from quantlab.engines.trt.library import Library

NO_DRIVER = (
    "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at "
    "/_src/common/dispatch/checkMacros.cpp:250 (cudaError 35: CUDA driver version is insufficient "
    "for CUDA runtime version))"
)


def missing(tensor: str) -> str:
    return (
        f"Missing scale and zero-point for tensor {tensor}, expect fall back to non-int8 "
        "implementation for any layer consuming or producing given tensor"
    )


names = st.text(st.characters(codec="ascii", exclude_characters="\n"), min_size=1, max_size=20)


@given(st.lists(names, max_size=30))
def test_tensors_without_a_scale_are_named_once_each(tensors: list[str]) -> None:
    told = log.Log()
    for tensor in tensors:
        told.receive("WARNING", missing(tensor))
    assert list(told.missing) == list(dict.fromkeys(t.partition(", expect")[0] for t in tensors))
    assert not told.warnings
    if tensors:
        assert told.notes()[0].startswith(
            f"TensorRT found no scale for {len(told.missing)} tensors"
        )


def test_messages_reach_pythons_logging_at_their_level(caplog: pytest.LogCaptureFixture) -> None:
    told = log.Log()
    with caplog.at_level(logging.DEBUG, logger=log.NAME):
        for severity in log.LEVELS:
            told.receive(severity, f"100 % {severity}")
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (level, f"100 % {severity}") for severity, level in log.LEVELS.items()
    ]
    assert told.errors == ["100 % INTERNAL_ERROR", "100 % ERROR"]


def test_warnings_are_counted_and_the_rest_is_named_as_more() -> None:
    told = log.Log()
    for _ in range(13):
        told.receive("WARNING", " (foreignNode) Converting conv activation scales to fp32.")
    for number in range(log.KINDS + 2):
        told.receive("WARNING", f"something {number}")
    told.receive("WARNING", "The logger passed into createInferBuilder differs from one already")
    first, *_, last = told.notes()
    assert first == "TensorRT warned (13 times): Converting conv activation scales to fp32."
    assert last.startswith("TensorRT warned of 3 more things")
    assert len(told.notes()) == log.KINDS + 1


def test_threads_lose_no_message() -> None:
    told = log.Log()

    def talk() -> None:
        for number in range(500):
            told.receive("WARNING", "again")
            told.receive("WARNING", missing(f"t{number}"))

    threads = [Thread(target=talk) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told.warnings["again"] == 4000
    assert len(told.missing) == 500


def test_why_leaves_out_that_there_is_no_driver_unless_that_is_the_reason() -> None:
    told = log.Log()
    told.receive(
        "ERROR", "IBuilder::build: Error Code 4: API Usage Error (No output. In v at /a:1)"
    )
    told.receive("ERROR", NO_DRIVER)
    told.receive(
        "ERROR", "IBuilder::build: Error Code 4: API Usage Error (No output. In v at /a:1)"
    )
    assert told.why() == "Error Code 4: API Usage Error (No output.)"
    assert not told.no_driver

    other = log.Log()
    other.receive("ERROR", NO_DRIVER)
    assert "cudaError 35" in other.why()
    assert other.no_driver
    assert log.Log().why() == ""


def test_the_path_that_scales_came_by_is_read_from_the_log() -> None:
    served = log.Log()
    served.receive("INFO", "Reading Calibration Cache for calibrator: EntropyCalibration2")
    served.receive(
        "INFO",
        "Generated calibration scales using calibration cache. Make sure that calibration cache "
        "has latest scales.",
    )
    assert served.read_cache
    refused = log.Log()
    refused.receive("INFO", "Reading Calibration Cache for calibrator: EntropyCalibration2")
    refused.receive("WARNING", "Calibration table does not match calibrator algorithm type.")
    refused.receive("INFO", "Starting Calibration.")
    refused.receive("ERROR", 'Tensor "input" is bound to nullptr')
    assert not refused.read_cache
    assert len(refused.calibration) == 4
    assert refused.errors == ['Tensor "input" is bound to nullptr']


def test_the_real_logger_prints_nothing_unasked(
    rtx: Library, capfd: pytest.CaptureFixture[str]
) -> None:
    told = log.Log()
    logger = log.make(rtx.module, told)
    builder = rtx.module.Builder(logger)
    assert (
        builder.build_serialized_network(builder.create_network(0), builder.create_builder_config())
        is None
    )
    assert told.why() == "Error Code 4: API Usage Error (Network must have at least one output.)"
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
