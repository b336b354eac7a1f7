"""The browser of the benchmarks, for tests: without one they skip, in CI they fail."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from benchmarks.harness.browser import Browser, NoBrowser, Tab, chromium
from benchmarks.harness.browser import browser as running_browser

__all__ = ["Browser", "Tab", "browser"]


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A browser with an empty profile, ended and cleaned up behind the block."""
    try:
        chromium()
    except NoBrowser as reason:
        if os.environ.get("CI"):
            pytest.fail(str(reason))
        pytest.skip(str(reason))
    async with running_browser() as running:
        yield running
