"""client.wants: one request that covers all, and what gives back the rest."""

from hypothesis import given
from hypothesis import strategies as st

from tradeback.client.wants import EVERY, Wants
from tradeback.model.limits import SYMBOLS_PER_REQUEST_MAX

KNOWN = ("A", "B", "C", "D")
IDS = {name: number for number, name in enumerate(KNOWN, 1)}
CHANNELS = ("trades", "quotes", "gaps", "enigma")
names = st.lists(st.sampled_from((*KNOWN, "a", EVERY)), min_size=1, max_size=3)
channels = st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=3, unique=True)
steps = st.lists(st.tuples(st.booleans(), names, channels), max_size=8)


@given(steps)
def test_cover_less_excess_is_what_is_wanted(taken: list[tuple[bool, list[str], list[str]]]) -> None:
    wants = Wants()
    truth: dict[str, set[str]] = {channel: set() for channel in CHANNELS}
    for add, some, where in taken:
        meant = set(KNOWN) if EVERY in some else {name.upper() for name in some}
        if add:
            wants.add(some, where)
        else:
            wants.remove(some, where, KNOWN)
        for channel in where:
            truth[channel] = truth[channel] | meant if add else truth[channel] - meant
    assert bool(wants) == any(truth.values())
    if not wants:
        return
    request = wants.request()
    covered = set(KNOWN) if request["symbols"] == [EVERY] else set(request["symbols"])
    brought = {channel: set(covered) for channel in request["channels"]}
    excess = wants.excess(sorted(covered))
    for answer in excess:
        for channel in answer["channels"]:
            brought[channel] -= set(answer["symbols"])
    assert brought == {channel: held for channel, held in truth.items() if held}
    if wants.even:
        assert excess == []
    for channel, held in truth.items():
        ids = wants.ids(channel, IDS)
        assert ids is None or ids == {IDS[name] for name in held}


def test_more_names_than_a_request_holds() -> None:
    wants = Wants()
    many = [f"S{number}" for number in range(SYMBOLS_PER_REQUEST_MAX + 1)]
    wants.add(many, ["trades"])
    assert not wants.even
    assert wants.request()["symbols"] == [EVERY]
    spare = [f"T{number}" for number in range(SYMBOLS_PER_REQUEST_MAX + 5)]
    excess = wants.excess(many + spare)
    assert [len(request["symbols"]) for request in excess] == [SYMBOLS_PER_REQUEST_MAX, 5]
    assert not wants.everything
