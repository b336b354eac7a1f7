"""The C helpers, or a skip with a word where there is no compiler."""

import ctypes

import pytest

from benchmarks.harness.native import NoCompiler, library


@pytest.fixture(scope="session")
def native() -> ctypes.CDLL:
    try:
        return library()
    except NoCompiler as reason:
        pytest.skip(str(reason))
