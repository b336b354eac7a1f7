"""`pytest benchmarks`: the kernel benchmarks (bench_*.py), pinned to one core.

The path benchmarks are no tests: `python -m benchmarks` runs them, because they need the machine to
themselves, in the right order.
"""

import os
from collections.abc import Iterator

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Let pytest find bench_*.py when it is given the folder."""
    config.addinivalue_line("python_files", "bench_*.py")


@pytest.fixture(scope="session", autouse=True)
def _pinned() -> Iterator[None]:
    """Stay on the last core: the first one gets most of the interrupts."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    yield
    os.sched_setaffinity(0, before)
