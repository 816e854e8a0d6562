"""Settings of all tests."""

import gc
import os

from hypothesis import settings

# A time limit for an example would test how busy the machine is.  Half the usual 100 examples keep
# the whole suite under ten minutes; a law that needs more says so itself.
settings.register_profile("quantlab", deadline=None, max_examples=50)
settings.load_profile("quantlab")


def _keep_to_own_cores(worker: int, workers: int) -> None:
    """Share the cores out: engines use all they may, and those of two workers spin for the same."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) >= workers:
        os.sched_setaffinity(0, cores[worker::workers])


# Here and not in a hook: libraries that the tests import count the cores when they are imported.
if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    _keep_to_own_cores(
        int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")),
        int(os.environ["PYTEST_XDIST_WORKER_COUNT"]),
    )


def pytest_collection_finish() -> None:
    """Leave the thousands of tests and all their modules out of every later garbage collection."""
    gc.collect()
    gc.freeze()
