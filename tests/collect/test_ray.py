"""Samples collected by a Ray cluster: the same bytes, whatever happens to workers and head."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from quantlab.collect.ray import Ray
from quantlab.collect.ray_messages import Failure
from quantlab.errors import ConfigError
from tests.collect.cluster import (
    PATIENCE,
    Cluster,
    configured,
    result,
    secret,
    session,
    started,
    until,
)
from tests.runs import COMMAND, left_behind, quantlab

pytest.importorskip("ray", reason="Ray is not installed; pip install 'quantlab[ray]'")

pytestmark = pytest.mark.xdist_group("ray")

KILLED = "if i == 5 and once('killed'): os.kill(os.getpid(), 9)"
HELD = (
    "if i == 13 and once('held'):",
    "    held = [np.ones(1 << 24) for _ in range(32)]",  # 4 GiB
    "    time.sleep(20)",
    "    (here / 'survived').touch()",
)
WAITS = "while i >= 12 and not (here / 'go').exists(): (here / 'asked').touch(), time.sleep(0.01)"


@pytest.fixture(scope="module", autouse=True)
def token() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in secret().items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with started(tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """What this process alone collects."""
    folder = tmp_path_factory.mktemp("local")
    outcome = quantlab("calibrate", configured(folder, {"kind": "local"}), "-q")
    assert outcome.code == 0, outcome.err
    return result(folder)


def process(config: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(COMMAND), "calibrate", str(config), "-q"],
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ray(cluster: Cluster | None, workers: int = 1) -> dict[str, object]:
    address = {} if cluster is None else {"address": cluster.address}
    return {"kind": "ray", "workers": workers, **address}


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_bytes_of_one_process(
    cluster: Cluster,
    expected: list[bytes],
    tmp_path: Path,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    executor = ray(cluster, workers)
    if workers == 2:
        executor["address"] = "auto"
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    outcome = quantlab("calibrate", configured(tmp_path, executor), "-q")
    assert (outcome.code, outcome.err) == (0, "")
    assert result(tmp_path) == expected
    assert not left_behind(tmp_path)


def test_workers_that_are_killed_or_out_of_memory_are_replaced(
    expected: list[bytes], tmp_path: Path
) -> None:
    """On a cluster of its own, which ends with the run."""
    memory = psutil.virtual_memory()
    if memory.available < 6 << 30:
        pytest.skip("needs 6 GiB of free memory")
    threshold = (memory.total - memory.available + (2 << 30)) / memory.total
    config = configured(tmp_path, ray(None, 2), [KILLED, *HELD])
    with process(
        config,
        {
            "RAY_memory_usage_threshold": f"{threshold:.4f}",
            "RAY_memory_monitor_refresh_ms": "50",
        },
    ) as running:
        leaders: set[int] = set()
        while running.poll() is None:
            leaders |= {p.pid for p in psutil.Process(running.pid).children()}
            time.sleep(0.2)
        _, err = running.communicate(timeout=PATIENCE)
    assert (running.returncode, err) == (0, "")
    assert (tmp_path / "killed").exists()
    assert (tmp_path / "held").exists()
    assert not (tmp_path / "survived").exists()
    assert result(tmp_path) == expected
    assert leaders
    assert not [p for leader in leaders for p in session(leader)]


def test_samples_that_kill_every_worker_are_named(cluster: Cluster, tmp_path: Path) -> None:
    trouble = ["if i == 13: os.kill(os.getpid(), 9)"]
    outcome = quantlab("calibrate", configured(tmp_path, ray(cluster), trouble), "-q")
    assert outcome.code == 2
    assert "samples 12 to 15: 3 workers died one after another" in outcome.err
    assert "unexpectedly" in outcome.err


def sent(failure: Failure) -> Failure:
    """Return what another process receives."""
    received: Failure = pickle.loads(pickle.dumps(failure))  # noqa: S301  just written
    return received


def test_what_a_worker_raises_keeps_its_class_and_where_it_came_from() -> None:
    def trouble() -> None:
        raise ConfigError("one too many", "key")

    try:
        trouble()
    except ConfigError as error:
        failure = sent(Failure.of(error))
    with pytest.raises(ConfigError, match="one too many") as raised:
        failure.throw()
    assert raised.value.key == "key"
    assert "in trouble" in str(raised.value.__cause__)


def test_an_error_that_cannot_be_sent_is_told_in_words() -> None:
    class Local(Exception):  # no other process has it
        pass

    failure = sent(Failure.of(Local("what happened")))
    with pytest.raises(RuntimeError, match="Local: what happened"):
        failure.throw()


def test_a_bad_sample_is_the_error_of_one_process(cluster: Cluster, tmp_path: Path) -> None:
    messages = []
    executors: list[dict[str, object]] = [ray(cluster), {"kind": "local"}]
    for number, executor in enumerate(executors):
        folder = tmp_path / str(number)
        config = configured(folder, executor, ["pass"])
        loader = folder / "loader.py"
        loader.write_text(
            loader.read_text().replace("x[i : i + 1]}", "x[i : i + 1, : 3 - (worker and i == 13)]}")
        )
        outcome = quantlab("calibrate", config, "-q")
        assert outcome.code == 2
        messages.append(outcome.err)
    assert messages[0] == messages[1]
    assert "start=" in messages[0]


def test_a_head_that_goes_away_leaves_a_checkpoint_to_go_on_from(
    expected: list[bytes], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    work = tmp_path / "work"
    with started(home) as cluster, process(configured(work, ray(cluster), [WAITS])) as running:
        until((work / "asked").exists, running)
        until((work / "run" / "checkpoint.npz").exists, running)
        cluster.kill_head()
        killed = time.monotonic()
        _, err = running.communicate(timeout=PATIENCE)
        assert time.monotonic() - killed < 40
    assert running.returncode == 2, err
    assert f"lost the Ray cluster at {cluster.address}" in err
    assert "2 of 6 shards had come back" in err
    assert "the same command goes on" in err
    (work / "go").touch()
    outcome = quantlab("calibrate", configured(work, {"kind": "local"}, [WAITS]))
    assert outcome.code == 0, outcome.err
    assert "going on from the checkpoint" in outcome.out + outcome.err
    assert result(work) == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_leaves_no_process(
    cluster: Cluster, tmp_path: Path, number: int
) -> None:
    with process(configured(tmp_path, ray(cluster), [WAITS])) as running:
        until((tmp_path / "asked").exists, running)
        [driver] = psutil.Process(running.pid).children()
        folder = Path(driver.cwd())
        workers = [p for p in session(cluster.leader) if "Actor" in " ".join(p.cmdline())]
        assert workers
        running.send_signal(number)
        running.wait(timeout=PATIENCE)
    psutil.wait_procs([driver, *workers], timeout=20)
    assert not [p for p in (driver, *workers) if p.is_running()]
    assert not folder.exists()


def test_other_versions_on_a_node_are_refused(cluster: Cluster, tmp_path: Path) -> None:
    other = cluster.site / "quantlab"
    other.mkdir()
    (other / "__init__.py").write_text('__version__ = "0.0.9"\n')
    try:
        outcome = quantlab("calibrate", configured(tmp_path, ray(cluster)), "-q")
    finally:
        (other / "__init__.py").unlink()
    assert outcome.code == 2
    assert os.uname().nodename in outcome.err
    assert "has quantlab 0.0.9" in outcome.err
    assert "install the same on all nodes" in outcome.err


def test_samples_that_a_node_cannot_read_are_named(cluster: Cluster, tmp_path: Path) -> None:
    config = configured(tmp_path, ray(cluster), ["pass"])
    loader = tmp_path / "loader.py"
    loader.write_text(f"import os\nif os.getsid(0) == {cluster.leader}: x = {{}}\n" + LOST_ON_NODE)
    outcome = quantlab("calibrate", config, "-q")
    assert outcome.code == 2
    assert f"node {os.uname().nodename}: " in outcome.err
    assert "keep them where all nodes see them" in outcome.err


LOST_ON_NODE = """
import numpy as np

from quantlab.errors import DataError


def batches(start=0, stop=None):
    if "x" in globals():
        raise DataError("cannot read /data/calib.npz: no such file")
    for i in range(start, 24 if stop is None else stop):
        yield {"x": np.ones((1, 3, 8, 8), np.float32)}
"""


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "cannot reach a Ray cluster at 127.0.0.1:1"),
        ("nowhere.invalid:6379", "cannot reach a Ray cluster at nowhere.invalid:6379"),
    ],
)
def test_an_address_where_nothing_is_is_one_message(
    tmp_path: Path, address: str, message: str
) -> None:
    began = time.monotonic()
    executor = {"kind": "ray", "workers": 1, "address": address}
    outcome = quantlab("calibrate", configured(tmp_path, executor), "-q")
    assert outcome.code == 2
    assert outcome.err.count("quantlab:") == 1
    assert message in outcome.err
    assert time.monotonic() - began < 15


def test_a_dataset_that_cannot_be_shared_out_is_refused(tmp_path: Path) -> None:
    config = configured(tmp_path, ray(None), ["pass"], header="")
    outcome = quantlab("calibrate", config, "-q")
    assert outcome.code == 2
    assert "cannot be read in parts" in outcome.err


def test_ray_that_is_not_installed_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # how Python marks what cannot be imported
    outcome = quantlab("calibrate", configured(tmp_path, ray(None)), "-q")
    assert outcome.code == 2
    assert "pip install 'quantlab[ray]'" in outcome.err


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"workers": 0}, "workers"),
        ({"workers": 1, "threads": 0}, "threads"),
        ({"workers": 1, "address": "head"}, "address"),
        ({"workers": 1, "address": "ray://head:10001"}, "address"),
    ],
)
def test_bad_parameters_are_named(options: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Ray(**options)  # type: ignore[arg-type]
    assert raised.value.key == key


COPIED = """
import sys
from pathlib import Path
import ray
from quantlab.collect.ray_worker import ModelFile, RayWorker
from quantlab.collect.work import Shapes, Unit, Work
from quantlab.datasets.npz import Npz
from quantlab.graph import model as graph
from quantlab.graph.files import files

folder = Path(sys.argv[2])
model = folder / "large.onnx"
graph.save(graph.load(folder / "model.onnx"), model, external_bytes=0)
inputs = graph.inputs(graph.reload(model))
work = Work(
    model=model,
    passes=(("x",),),
    inputs=inputs,
    dataset=Npz(folder / "calib.npz"),
    samples=24,
    batch=4,
    shard=4,
    shapes=Shapes(1, {"x": (1, 3, 8, 8)}, {"x": (1, 0, 0, 0)}),
    slice=4,
    lanes=1,
)
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
sent = [ModelFile(path.name, (), ray.put(path.read_bytes())) for path in files(model)]
assert len(sent) == 2
for path in files(model):
    path.unlink()
worker = RayWorker()
assert worker.open(work, sent) is None
part = worker.part(Unit(0, 2))
worker.close()
print(part.samples, part.first.tolist())
"""


def test_a_node_without_the_model_gets_a_copy(cluster: Cluster, tmp_path: Path) -> None:
    configured(tmp_path, ray(cluster))
    arguments: Sequence[str] = [sys.executable, "-P", "-W", "ignore", "-c", COPIED]
    done = subprocess.run(
        [*arguments, cluster.address, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-2] == "4 [8]"
