"""The words of a fault script: what they become, and what is said about wrong ones."""

from math import inf
from typing import Any

import pytest

from tradeback.sim.faults import KINDS, FaultError, make_fault


def test_keys_become_fields_with_their_defaults() -> None:
    cut = make_fault({"kind": "cut", "at": "10s", "connections": "one", "stream": "btcusdt@*"})
    assert (cut.at_s, cut.how, cut.connections, cut.stream, cut.code) == (
        10.0,
        "reset",
        "one",
        "btcusdt@*",
        1001,
    )
    assert cut.end_s == inf
    stall = make_fault({"kind": "stall", "at": "1m", "for": "500ms"})
    assert (stall.at_s, stall.end_s) == (60.0, 60.5)
    assert make_fault({"kind": "refuse"}).status == 503
    assert make_fault({"kind": "cut", "age": "24h"}).age_s == 86_400.0


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_written_in_one_word(kind: str) -> None:
    given: dict[str, Any] = {"kind": kind}
    if kind == "stall":
        given["for"] = "1s"
    assert make_fault(given).group == KINDS[kind].group


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "kind None is unknown"),
        ({"kind": "cutt"}, "did you mean cut?"),
        ({"kind": "cut", "att": "1s"}, "cut has no key 'att'; did you mean at?"),
        ({"kind": "stall", "chance": 0.5, "for": "1s"}, "stall has no key 'chance'"),
        ({"kind": "stall"}, "give it a length"),
        ({"kind": "cut", "at": 10}, "write 10s or 10ms"),
        ({"kind": "cut", "at": "soon"}, "a duration is a number and a unit"),
        ({"kind": "cut", "at": None}, "must be a duration"),
        ({"kind": "cut", "how": "gently"}, "how is reset, close, drop, mid_frame"),
        ({"kind": "cut", "code": 99}, "close code from 1000 to 4999"),
        ({"kind": "cut", "connections": "some"}, "connections is all, one, half or a number"),
        ({"kind": "cut", "connections": 0}, "numbered from 1"),
        ({"kind": "cut", "age": "1h", "connections": "one"}, "age counts for each connection"),
        ({"kind": "lose", "chance": 2}, "probability from 0 to 1"),
        ({"kind": "lose", "chance": True}, "chance must be a whole number or a number, not True"),
        ({"kind": "lose", "count": 0}, "count starts at 1"),
        ({"kind": "lose", "stream": 7}, "stream must be text"),
        ({"kind": "rest_error", "status": 200}, "an HTTP error from 400 to 599"),
        ({"kind": "delay", "ms": -5}, "ms may not be negative"),
        ({"kind": "delay", "ms": inf}, "must be a finite number"),
        ({"kind": "clock", "drift_ppm": 1e9}, "a tenth of the time"),
        ({"kind": "reorder", "for": 0}, "for: 0 never happens"),
    ],
)
def test_wrong_ones_say_what_where_and_how_to_mend_it(given: dict[str, Any], words: str) -> None:
    with pytest.raises(FaultError, match=r"storm\.yaml, fault 3") as refused:
        make_fault(given, "storm.yaml, fault 3")
    assert words in str(refused.value)
