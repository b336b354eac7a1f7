"""ops.repeats: every event is shown or counted, the last of a kind is shown, in order, in bounded memory."""

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tradeback.ops.repeats import KIND, SUPPRESSED, Event, Repeats

S = 1_000_000_000
BURST, INTERVAL_S, KINDS_MAX = 3, 10.0, 4

steps = st.lists(
    st.tuples(
        st.sampled_from(("line", "feed")),
        st.sampled_from(("up", "down", "lost")),
        st.sampled_from((0, 1, S, 4 * S, 30 * S)),
        st.booleans(),
    ),
    max_size=120,
)
"""Component, event, pause before it, whether the time is looked at meanwhile."""


def event(component: str, text: str, number: int, **more: Any) -> Event:
    return {"component": component, "event": text, "level": "info", "number": number, **more}


def played(moves: list[tuple[str, str, int, bool]], repeats: Repeats) -> tuple[list[Event], list[Event]]:
    """All events that were offered, and all that were shown, to the end."""
    now, offered, shown = 0, list[Event](), list[Event]()
    for number, (component, text, pause_ns, looks) in enumerate(moves):
        now += pause_ns
        if looks:
            shown += repeats.due(now)
        made = event(component, text, number)
        offered.append(dict(made))
        shown += repeats.offer(made, now)
        assert len(repeats) <= KINDS_MAX
    return offered, shown + repeats.rest()


def kind(held: Event) -> tuple[str, str]:
    return held["component"], held["event"]


@settings(deadline=None)
@given(steps)
def test_nothing_is_lost_uncounted_and_the_last_state_is_shown(
    moves: list[tuple[str, str, int, bool]],
) -> None:
    offered, shown = played(moves, Repeats(BURST, INTERVAL_S, KINDS_MAX))
    counted: Counter[tuple[str, str]] = Counter()
    for held in shown:
        counted[kind(held)] += 1 + held.get(SUPPRESSED, 0)
    assert counted == Counter(map(kind, offered))
    for component in {held["component"] for held in offered}:
        own = [held["number"] for held in shown if held["component"] == component]
        assert own == sorted(own), "lines of a component come in the order in which they happened"
    for name in set(map(kind, offered)):
        last = max(held["number"] for held in offered if kind(held) == name)
        assert last in {held["number"] for held in shown}, "the last of a kind is always shown"


def test_a_storm_of_one_kind_costs_a_burst_and_one_line_an_interval() -> None:
    repeats = Repeats(BURST, INTERVAL_S)
    shown = []
    for number in range(100_000):  # 100 s at 1,000 a second
        now = number * S // 1_000
        shown += repeats.due(now) + repeats.offer(event("line", "lost", number), now)
    assert BURST + 8 <= len(shown) <= BURST + 11
    assert repeats.held_back == 100_000 - BURST
    assert repeats.next_due_ns() is not None
    shown += repeats.rest()
    assert shown[-1]["number"] == 99_999
    assert sum(1 + held.get(SUPPRESSED, 0) for held in shown) == 100_000


def test_after_a_quiet_interval_a_burst_passes_again() -> None:
    repeats = Repeats(BURST, INTERVAL_S)
    assert sum(len(repeats.offer(event("a", "x", number), 0)) for number in range(BURST + 1)) == BURST
    assert len(repeats.due(int(INTERVAL_S * 1e9))) == 1
    later = int(2 * INTERVAL_S * 1e9)
    assert sum(len(repeats.offer(event("a", "x", number), later)) for number in range(BURST)) == BURST


def test_kinds_without_end_need_no_memory_without_end() -> None:
    repeats = Repeats(1, INTERVAL_S, KINDS_MAX)
    shown = []
    for number in range(1_000):
        shown += repeats.offer(event("a", f"event {number // 2}", number), 0)
        assert len(repeats) <= KINDS_MAX
    shown += repeats.rest()
    assert sorted(held["number"] for held in shown) == list(range(1_000)), "who is forgotten is shown first"


def test_formatted_texts_are_counted_by_their_template() -> None:
    repeats = Repeats(BURST, INTERVAL_S)
    shown = []
    for number in range(50):
        shown += repeats.offer(event("sinks", f"call {number} failed", number, **{KIND: "call %d failed"}), 0)
    assert len(shown) == BURST
    (last,) = repeats.rest()
    assert (last["event"], last[SUPPRESSED]) == ("call 49 failed", 50 - BURST - 1)
    assert KIND not in last


def test_what_an_event_says_of_others_is_added() -> None:
    repeats = Repeats(1, INTERVAL_S)
    repeats.offer(event("line", "lost", 0), 0)
    for number in (1, 2):
        repeats.offer(event("line", "lost", number, suppressed=10), 0)
    (last,) = repeats.rest()
    assert last[SUPPRESSED] == 10 + 1 + 10
