"""Commands that say where they listen: ended like by Ctrl-C, and explained when they do not start."""

import json
import urllib.request

import pytest

from benchmarks.harness.announced import CommandError
from benchmarks.soak.market import Market


def test_a_simulator_listens_and_ends_in_order() -> None:
    with Market(["--symbols", "2"]) as market:
        assert market.ws_endpoint.startswith("ws://127.0.0.1:")
        with urllib.request.urlopen(f"{market.rest_endpoint}/api/v3/time", timeout=30) as answer:
            assert json.loads(answer.read())["serverTime"] > 0
        assert market.pid == market.process.pid
        folder = market.folder
        assert folder.exists()
    assert market.process.returncode == 0, "Ctrl-C ends it cleanly"
    assert not folder.exists()


def test_one_that_does_not_start_says_why() -> None:
    with pytest.raises(CommandError, match=r"(?s)simulator ended before it listened:.*--nonsense"):
        Market(["--nonsense"])
