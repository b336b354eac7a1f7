"""`pytest benchmarks`: the kernel benchmarks (bench_*.py), pinned to one core.

The path benchmarks are no tests: `python -m benchmarks` runs them, because they need the machine to
themselves, in the right order.

A benchmark that skips itself has failed: whoever runs them wants to know that each can run.
"""

import os
from collections.abc import Generator, Iterator

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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Count a skipped benchmark as failed."""
    report = yield
    _must_run(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a file that skips itself while it is imported."""
    report = yield
    _must_run(report)
    return report


def _must_run(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} did not run: {reason}"
