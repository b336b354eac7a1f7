"""exchange.watchdog with invented time: what is found, when, and what is left alone."""

import random
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeback.exchange.watchdog import Findings, Rules, Watchdog

S = 1_000_000_000
RULES = Rules(floor_s=5.0, ceiling_s=900.0)


@dataclass
class World:
    """Streams on lines; `bring` delivers, `look` is one step a second later."""

    lines: int = 2
    streams: int = 3
    rules: Rules = RULES
    now_s: float = 1_000.0
    stalled: list[tuple[float, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        shape = (self.lines, self.streams)
        self.counts, self.ids = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self.since = np.full(shape, int(self.now_s * S), np.int64)
        self.dog = Watchdog(self.lines, self.streams, self.rules)

    def bring(self, line: int, stream: int, identifier: int, count: int = 1) -> None:
        self.counts[line, stream] += count
        self.ids[line, stream] = max(self.ids[line, stream], identifier)

    def look(self, passed_s: float = 1.0) -> Findings:
        self.now_s += passed_s
        findings = self.dog.step(int(self.now_s * S), self.counts, self.ids, self.since)
        self.stalled += [(self.now_s, line, stream) for line, stream in findings.stalled]
        return findings

    def reconnect(self, line: int) -> None:
        self.since[line] = int(self.now_s * S)


def flowing(world: World, seconds: int, stalled: tuple[int, int] | None = None, start: int = 0) -> int:
    """Every stream brings one id a second on every line, but for the one that is stalled."""
    for second in range(start, start + seconds):
        for line in range(world.lines):
            for stream in range(world.streams):
                if (line, stream) != stalled:
                    world.bring(line, stream, second + 1)
        findings = world.look()
        assert findings.asks == []
    return start + seconds


def test_a_stall_on_one_line_is_found_by_the_other() -> None:
    world = World()
    second = flowing(world, 60)
    assert world.stalled == []
    begin_s = world.now_s
    second = flowing(world, 20, (1, 2), second)
    ((found_s, line, stream),) = world.stalled
    assert (line, stream) == (1, 2)
    assert RULES.floor_s <= found_s - begin_s <= RULES.floor_s + 2
    assert world.dog.stalled.tolist() == [[False] * 3, [False, False, True]]
    # The connection is replaced: it owes only what comes from now on.
    world.reconnect(1)
    flowing(world, 3, (1, 2), second)
    assert not world.dog.stalled.any()
    world.bring(1, 2, second + 4)
    world.look()
    assert not world.dog.stalled.any()
    assert len(world.stalled) == 1


def test_a_replaced_connection_that_stalls_again_is_found_again() -> None:
    world = World()
    second = flowing(world, 30)
    second = flowing(world, 10, (0, 0), second)
    world.reconnect(0)
    flowing(world, 10, (0, 0), second)
    assert [(line, stream) for _, line, stream in world.stalled] == [(0, 0)] * 2


def test_a_line_that_is_behind_but_moves_is_not_stalled() -> None:
    world = World(streams=1)
    for second in range(120):
        world.bring(0, 0, 10_000 + second)
        world.bring(1, 0, second + 1)
        world.look()
    assert world.stalled == []


def test_a_line_that_is_down_is_nobodys_stall() -> None:
    world = World()
    world.since[1] = 0
    for second in range(40):
        world.bring(0, 0, second + 1)
        world.look()
    assert world.stalled == []


def test_a_line_that_never_brings_a_stream_is_found() -> None:
    """Subscribed, acknowledged, and nothing comes: the name was taken silently."""
    world = World()
    flowing(world, 12, (1, 1))
    assert [(line, stream) for _, line, stream in world.stalled] == [(1, 1)]


def test_silence_on_all_lines_is_asked_about_by_the_streams_own_rate() -> None:
    world = World(lines=1, streams=2)
    # One stream brings ten a second, the other one every 20 s.
    for second in range(600):
        world.bring(0, 0, 10 * second, 10)
        if second % 20 == 0:
            world.bring(0, 1, second + 1)
        assert world.look().asks == []
    fast, slow = world.dog.explained_s()[0]
    assert fast == RULES.floor_s
    assert slow == pytest.approx(12 * 20, rel=0.1)
    asked: dict[int, int] = {}
    for second in range(1, 400):
        for stream in world.look().asks:
            asked.setdefault(stream, second)
    assert asked[0] in (5, 6)
    assert 215 <= asked[1] <= 265
    assert world.stalled == [], "a suspicion alone is no stall"


def test_what_rest_knows_settles_a_suspicion() -> None:
    world = World(lines=1, streams=2)
    flowing(world, 60)
    while not (asks := world.look().asks):
        pass
    assert set(asks) == {0, 1}
    for stream in asks:
        world.dog.asked(stream)
    assert world.look().asks == [], "not twice"
    assert world.dog.learn(0, 60) is False
    assert world.dog.learn(1, 61) is True
    begin_s = world.now_s
    while world.now_s < begin_s + 20:
        world.look()
    ((found_s, line, stream),) = world.stalled
    assert (line, stream) == (0, 1)
    assert found_s - begin_s <= RULES.floor_s + 2


def test_an_id_that_comes_while_rest_answers_is_no_stall() -> None:
    world = World(lines=1, streams=1)
    flowing(world, 60)
    while not world.look().asks:
        pass
    assert world.dog.learn(0, 61) is True
    world.look()
    world.bring(0, 0, 61)
    for _ in range(20):
        world.look()
    assert world.stalled == []


def test_rest_tells_a_connection_that_brought_nothing_only_where_it_begins() -> None:
    world = World(lines=2, streams=1)
    world.look()
    assert world.dog.learn(0, 5_000_000) is False, "that trade may be a year old"
    for _ in range(30):
        world.look()
    assert world.stalled == []
    assert world.dog.learn(0, 5_000_001) is True, "and that one came since"
    for _ in range(8):
        world.look()
    assert sorted((line, stream) for _, line, stream in world.stalled) == [(0, 0), (1, 0)]


def test_an_accusation_without_an_id() -> None:
    world = World(lines=2, streams=1)
    flowing(world, 30)
    world.dog.accuse(0)
    for _ in range(8):
        world.look()
    assert [(line, stream) for _, line, stream in world.stalled] == [(0, 0), (1, 0)]


@pytest.mark.parametrize("times_a_day", [0, 1, 24, 300])
def test_a_quiet_symbol_is_asked_about_rarely_and_never_stalled(times_a_day: int) -> None:
    """A day at random times; REST always says that there is nothing newer."""
    rng, world = random.Random(times_a_day), World(lines=2, streams=1)
    asked, identifier = 0, 0
    for _ in range(86_400 // 5):
        if rng.random() < times_a_day * 5 / 86_400:
            identifier += 1
            world.bring(0, 0, identifier)
            world.bring(1, 0, identifier)
        for stream in world.look(5.0).asks:
            asked += 1
            world.dog.asked(stream)
            assert world.dog.learn(stream, identifier) is False
    assert world.stalled == []
    assert asked <= 110, "about every 15 minutes at the very most"


def test_bursts_and_pauses_are_this_streams_way() -> None:
    """Hundreds at once, then up to 40 s of nothing: the longest silence counts, not the mean."""
    rng, world = random.Random(2), World(lines=1, streams=1)
    asked, identifier = 0, 0
    for _ in range(300):
        identifier += 500
        world.bring(0, 0, identifier, 500)
        for _ in range(rng.randrange(1, 40)):
            for stream in world.look().asks:
                asked += 1
                world.dog.asked(stream)
                world.dog.learn(stream, identifier)
    assert asked <= 12


def test_forgiven_silence_says_nothing() -> None:
    world = World()
    second = flowing(world, 60)
    for line in (0, 1):
        world.bring(line, 0, second + 5 + line)
    world.now_s += 3_000.0
    world.dog.forgive(int(world.now_s * S))
    assert world.look() == Findings([], [])
    assert world.look(3.0) == Findings([], [])


deliveries = st.lists(
    st.tuples(st.integers(0, 2), st.floats(0, 400), st.floats(0, 3.9), st.floats(0, 3.9)), max_size=80
)


@settings(max_examples=150, deadline=None)
@given(deliveries, st.lists(st.tuples(st.integers(0, 1), st.integers(0, 400)), max_size=6))
def test_whoever_brings_everything_in_time_is_never_stalled(
    sent: list[tuple[int, float, float, float]], reconnects: list[tuple[int, int]]
) -> None:
    """Any times of events, any delays below the floor on either line, connections replaced at any time."""
    world = World()
    events = []
    for number, (stream, at_s, delay_a, delay_b) in enumerate(sorted(sent, key=lambda event: event[1]), 1):
        events += [(at_s + delay_a, 0, stream, number), (at_s + delay_b, 1, stream, number)]
    events.sort()
    for second in range(420):
        while events and events[0][0] <= second:
            _, line, stream, number = events.pop(0)
            world.bring(line, stream, number)
        for line, at in reconnects:
            if at == second:
                world.reconnect(line)
        world.look()
    assert world.stalled == []


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 1), st.integers(0, 2), st.integers(20, 60), st.floats(0.3, 4.0), st.integers(0, 99))
def test_every_stall_is_found_and_nothing_else(
    line: int, stream: int, begin: int, interval_s: float, seed: int
) -> None:
    rng, world = random.Random(seed), World()
    due = [rng.random() * interval_s for _ in range(3)]
    identifier = [0, 0, 0]
    for second in range(begin + 40):
        for each in range(3):
            while due[each] <= second:
                due[each] += rng.expovariate(1 / interval_s)
                identifier[each] += 1
                for carrier in (0, 1):
                    if (carrier, each) != (line, stream) or second < begin:
                        world.bring(carrier, each, identifier[each])
        world.look()
    assert [(found, which) for _, found, which in world.stalled] in ([(line, stream)], [])
    if interval_s < 2:
        assert len(world.stalled) == 1


# Streams that come and go.


def rearrange(world: World, kept: list[int]) -> None:
    """Now there are these streams: an old index, or -1 for a new one."""
    for name in ("counts", "ids", "since"):
        old = getattr(world, name)
        new = np.zeros((world.lines, len(kept)), np.int64)
        for index, was in enumerate(kept):
            new[:, index] = old[:, was] if was >= 0 else 0
        setattr(world, name, new)
    world.since[:, [was < 0 for was in kept]] = int(world.now_s * S)
    world.streams = len(kept)
    world.dog.rearrange(kept, world.counts)


def test_streams_that_stay_keep_what_is_known_of_them() -> None:
    world = World()
    flowing(world, 60)
    explained = world.dog.explained_s()
    rearrange(world, [2, -1, 0])
    assert np.array_equal(world.dog.explained_s()[:, [0, 2]], explained[:, [2, 0]])
    flowing(world, 30, start=60)
    assert world.stalled == []


def test_a_stall_goes_on_in_its_new_place_and_one_that_left_is_forgotten() -> None:
    world = World()
    flowing(world, 20)
    flowing(world, 10, stalled=(1, 2), start=20)
    assert [(line, stream) for _, line, stream in world.stalled] == [(1, 2)]
    rearrange(world, [2, 1])
    assert world.dog.stalled.tolist() == [[False, False], [True, False]]
    rearrange(world, [1])
    assert not world.dog.stalled.any()
    world.stalled.clear()
    flowing(world, 10, start=30)
    assert world.stalled == []


def test_a_stream_that_comes_owes_nothing_of_before() -> None:
    """Counts and ids of an earlier time are no news, and no evidence."""
    world = World(streams=1)
    flowing(world, 20)
    rearrange(world, [0, -1])
    world.counts[:, 1], world.ids[:, 1] = 500, 9_000
    world.dog.rearrange([0, -1], world.counts)
    for second in range(20, 40):
        for line in range(2):
            world.bring(line, 0, second)
        findings = world.look()
        assert findings.stalled == []
    world.bring(0, 1, 9_001)
    for second in range(40, 50):
        for line in range(2):
            world.bring(line, 0, second)
        world.look()
    assert [(line, stream) for _, line, stream in world.stalled] == [(1, 1)], "this one is owed"


def test_no_streams_at_all() -> None:
    world = World(streams=0)
    assert world.look().asks == []
    rearrange(world, [-1])
    assert world.look().asks == []
    rearrange(world, [])
    assert world.look().stalled == []
