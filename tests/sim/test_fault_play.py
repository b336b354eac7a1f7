"""Scripts acted out on frames and connections in memory; time is told."""

from collections import Counter
from typing import Any

import pytest

from tests.exchange.harness import frame, quote, trade
from tradeback.sim.fault_frames import stream_of
from tradeback.sim.fault_play import Act, FaultPlay
from tradeback.sim.faults import make_fault

TRADES = {"btcusdt@trade"}
REPLY = frame(b'{"result":null,"id":1}')


def play(*entries: dict[str, Any], connections: int = 2, seed: int = 1) -> FaultPlay:
    """A run with some connections that all carry BTCUSDT's trades, at second 0."""
    made = FaultPlay([make_fault(entry) for entry in entries], seed)
    for number in range(1, connections + 1):
        made.opened(number)
        made.subscribed(number, TRADES)
    return made


def send(made: FaultPlay, at_s: float, *frames: bytes, to: int = 1) -> list[bytes]:
    made.on_time(at_s)
    return made.on_frames(to, list(frames))


def test_without_active_faults_frames_go_as_they_are() -> None:
    made = play({"kind": "lose", "at": "5s", "for": "1s", "chance": 1})
    frames = [trade(number) for number in range(10)]
    assert send(made, 1.0, *frames) == frames
    assert send(made, 6.0, *frames) == frames


def test_the_same_ids_are_lost_on_all_lines_or_each_loses_its_own() -> None:
    frames = [trade(number) for number in range(400)]
    for how in ("same", "each"):
        made = play({"kind": "lose", "chance": 0.3, "how": how})
        one, two = send(made, 1.0, *frames), send(made, 1.0, *frames, to=2)
        assert 60 < 400 - len(one) < 180
        assert (one == two) == (how == "same")
        assert made.hits["lose"] == 800 - len(one) - len(two)


def test_runs_of_ids_are_lost_together_and_replies_never() -> None:
    made = play({"kind": "lose", "chance": 0.3, "count": 20, "stream": "btc*@trade"})
    frames = [trade(number) for number in range(400)]
    kept = send(made, 1.0, REPLY, *frames, quote(7), trade(3, symbol="ETHUSDT"))
    assert kept[0] == REPLY
    assert kept[-2:] == [quote(7), trade(3, symbol="ETHUSDT")]
    blocks = Counter(frames.index(one) // 20 for one in kept[1:-2])
    assert set(blocks.values()) == {20}
    assert 5 < len(blocks) < 20
    muted = play({"kind": "lose", "chance": 1, "stream": "reply"})
    assert send(muted, 1.0, REPLY, trade(1)) == [trade(1)]


def test_a_stalled_stream_comes_late_and_in_order_while_others_pass() -> None:
    made = play({"kind": "stall", "at": "1s", "for": "2s", "stream": "btcusdt@trade"})
    other = trade(1, symbol="ETHUSDT")
    assert send(made, 1.5, trade(1), other, trade(2)) == [other]
    assert send(made, 2.5, trade(3)) == []
    assert send(made, 3.5, trade(4)) == [trade(1), trade(2), trade(3), trade(4)]
    assert made.links[1].held == {}


def test_delays_keep_the_order_of_a_stream() -> None:
    made = play({"kind": "delay", "ms": 100, "chance": 0.5})
    frames = [trade(number) for number in range(100)]
    came = send(made, 1.0, *frames)
    assert len(came) < 100
    assert came + send(made, 1.2) == frames


def test_one_means_the_same_connection_until_the_window_closes() -> None:
    made = play({"kind": "lose", "connections": "one", "chance": 1}, connections=3)
    got = {number: len(send(made, at_s, trade(1), to=number)) for at_s in (1.0, 2.0) for number in (1, 2, 3)}
    assert sorted(got.values()) == [0, 1, 1]


def test_half_means_one_of_those_with_the_same_streams() -> None:
    made = play({"kind": "cut", "at": "1s", "connections": "half"}, connections=2)
    for number in (3, 4):
        made.opened(number, {"btcusdt@bookTicker"})
    acts = made.on_time(1.0)
    assert len(acts) == 2
    assert len({act.connection in (1, 2) for act in acts}) == 2
    assert made.on_time(2.0) == []


def test_cuts_happen_once_or_every_so_often_or_at_an_age() -> None:
    made = play(
        {
            "kind": "cut",
            "at": "2s",
            "for": "5s",
            "every": "2s",
            "connections": 1,
            "how": "close",
            "code": 1012,
        },
        {"kind": "cut", "age": "24h", "connections": "all"},
    )
    closes = [
        at_s
        for at_s in range(1, 20)
        for act in made.on_time(float(at_s))
        if act == Act("close", 1, code=1012)
    ]
    assert closes == [2, 4, 6]
    made.life_rate = 3_600.0
    assert [act.connection for act in made.on_time(25.0)] == [1, 2]
    assert made.on_time(26.0) == []


def test_an_act_waits_for_a_connection_that_it_means() -> None:
    made = play({"kind": "cut", "at": "1s", "stream": "eth*"})
    assert made.on_time(1.0) == []
    made.opened(3, {"ethusdt@trade"})
    assert made.on_time(5.0) == [Act("reset", 3)]


def test_half_open_is_silent_and_deaf_and_a_shutdown_is_announced_first() -> None:
    made = play({"kind": "half_open", "at": "1s", "connections": 1})
    send(made, 1.0)
    assert made.is_deaf(1)
    assert not made.is_deaf(2)
    assert send(made, 1.1, trade(1)) == []
    assert send(made, 1.1, trade(1), to=2) == [trade(1)]
    ending = play({"kind": "shutdown", "at": "1s", "delay": "3s"}, connections=1)
    assert ending.on_time(1.0) == [Act("announce", 1)]
    assert ending.on_time(3.9) == []
    assert ending.on_time(4.0) == [Act("close", 1, code=1001)]


def test_mid_frame_leaves_a_piece_of_a_frame() -> None:
    made = play({"kind": "cut", "at": "1s", "how": "mid_frame"}, connections=1)
    send(made, 0.5, trade(1))
    (act,) = made.on_time(1.0)
    assert act.doing == "reset"
    assert 0 < len(act.data) < len(trade(1))
    assert trade(1).startswith(act.data)


def test_duplicates_are_of_the_past_and_garbage_harms_no_neighbour() -> None:
    frames = [trade(number) for number in range(100)]
    made = play({"kind": "duplicate", "chance": 0.2})
    came = send(made, 1.0, *frames)
    assert list(dict.fromkeys(came)) == frames
    assert 105 < len(came) < 140
    again = play({"kind": "duplicate", "chance": 0.1, "count": 5})
    first, second = send(again, 1.0, *frames[:50]), send(again, 1.1, *frames[50:])
    assert list(dict.fromkeys(first + second)) == frames
    littered = play({"kind": "garbage", "chance": 0.5})
    came = send(littered, 1.0, *frames)
    assert [one for one in came if one in frames] == frames
    assert len(came) > 120


def test_reordering_keeps_each_stream() -> None:
    frames = [one for number in range(50) for one in (trade(number), trade(number, symbol="ETHUSDT"))]
    came = send(play({"kind": "reorder"}), 1.0, *frames)
    assert came != frames
    for name in ("btcusdt@trade", "ethusdt@trade"):
        assert [one for one in came if stream_of(one) == name] == [
            one for one in frames if stream_of(one) == name
        ]


def test_handshakes_are_refused_in_their_window() -> None:
    made = play({"kind": "refuse", "at": "1s", "for": "1s", "status": 429, "retry_after": "3s"})
    refused = []
    for at_s in (0.5, 1.5, 2.5):
        made.on_time(at_s)
        refused.append(made.on_handshake())
    assert refused[0] is refused[2] is None
    assert refused[1] is not None
    assert (refused[1].status, refused[1].retry_after_s) == (429, 3.0)


def test_the_clock_is_wrong_from_the_start_or_later() -> None:
    made = play({"kind": "clock", "ms": 40}, {"kind": "clock", "at": "5s", "ms": -7, "drift_ppm": 100})
    assert [act.ahead_ms for act in made.first_clock()] == [40]
    assert made.first_clock() == []
    assert made.on_time(1.0) == []
    assert made.on_time(5.0) == [Act("clock", ahead_ms=-7, drift_ppm=100)]


@pytest.mark.parametrize("seed", range(5))
def test_the_same_seed_does_the_same(seed: int) -> None:
    def run() -> list[Any]:
        made = play(
            {"kind": "garbage", "chance": 0.3}, {"kind": "cut", "at": "1s", "connections": "one"}, seed=seed
        )
        return [send(made, at_s, *(trade(n) for n in range(20))) for at_s in (0.5, 1.0)] + made.on_time(1.5)

    assert run() == run()
