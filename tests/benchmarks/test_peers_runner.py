"""Real runs of the peer that needs nothing more than the tests have: websockets and orjson."""

import dataclasses
import sys
from pathlib import Path

from benchmarks.harness import machine
from benchmarks.peers.place import Place
from benchmarks.peers.plan import CALM, CUT, FLOOD, PEERS, Peer
from benchmarks.peers.runner import measure

BASE = next(peer for peer in PEERS if peer.key == "base")
HERE = Path(sys.prefix)
OWN, OTHER = map(Place, machine.cores())


def test_latency_is_measured_between_the_stamp_and_the_callback() -> None:
    run = dataclasses.replace(CALM, warm_s=0.1, seconds=1.0)
    outcome = measure(BASE, run, HERE, (OWN, OTHER))
    assert (outcome.reason, outcome.result["conflated"]) == ("", 0)
    assert outcome.result["trades"] > 0
    assert outcome.result["quotes"] > outcome.result["trades"]
    assert outcome.latency is not None
    assert 0 < outcome.latency.sent_p50_us <= outcome.latency.sent_p99_us
    assert 0 < outcome.latency.stamp_p50_us <= outcome.latency.stamp_p99_us
    assert "got" not in outcome.result, "the result file holds figures, not every trade"


def test_a_cut_is_counted_against_what_the_exchange_knows() -> None:
    faults = ({**CUT.faults[0], "at": "0.5s"},)
    run = dataclasses.replace(CUT, seconds=2.5, faults=faults)
    outcome = measure(BASE, run, HERE, (OWN, OTHER))
    assert outcome.reason == ""
    counted = outcome.account
    assert counted["received"] > 0
    assert (counted["doubled"], counted["reported"], counted["unseen"]) == (0, 0, [])
    assert [kind for kind, *_ in outcome.result["told"]] == ["exception"]


def test_what_cannot_be_measured_is_a_reason() -> None:
    run = dataclasses.replace(FLOOD, warm_s=0.1, seconds=0.1)
    missing = measure(BASE, run, HERE / "no-such-folder", (OWN, OTHER))
    assert "make bench-peers" in missing.reason
    stray = Peer("stray", "stray", "benchmarks.peers.no_such_module")
    assert "no_such_module" in measure(stray, run, HERE, (OWN, OTHER)).reason
