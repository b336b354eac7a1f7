"""Which kernels a start loads, and which wait until somebody needs them."""

import importlib
import importlib.util

import pytest

from tradeback import warm


def test_what_is_left_out_of_a_start_exists_and_is_left_out() -> None:
    at_start = set(warm.kernel_modules())
    for name in (*warm.NOT_AT_START, *warm.WHEN_CONFIGURED):
        assert importlib.util.find_spec(name) is not None
        assert name not in at_start
    assert "tradeback.wire.v2_kernel" in at_start


def test_kernels_of_servers_are_loaded_beforehand_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(importlib, "import_module", loaded.append)
    assert warm.load_for_servers() == len(loaded) > 0
    assert tuple(loaded) == warm.WHEN_CONFIGURED
