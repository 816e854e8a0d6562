"""Settings of all tests."""

import os

from hypothesis import settings

# A time limit for an example would test how busy the machine is.  Half the usual 100 examples keep
# the whole suite under ten minutes; a law that needs more says so itself.
settings.register_profile("quantlab", deadline=None, max_examples=50)
settings.load_profile("quantlab")


def share_cores() -> None:
    """Give each worker of pytest-xdist cores of its own.

    Runtimes start a thread for every core that they may use, and those of two workers would spin
    against each other.
    """
    worker, count = (os.environ.get(f"PYTEST_XDIST_WORKER{name}") for name in ("", "_COUNT"))
    if worker is None or count is None or not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    if int(count) <= len(cores):
        os.sched_setaffinity(0, cores[int(worker.removeprefix("gw")) :: int(count)])


share_cores()
