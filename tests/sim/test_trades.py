"""The bounded stores of trades and aggregates."""

from tradeback.sim.trades import AggStore, TradeStore


def test_ids_stay_right_when_the_older_half_goes() -> None:
    store = TradeStore(kept=100)
    store.begin(5_000)
    for number in range(1_234):
        store.extend((number * 10, number, 7, number % 2))
        store.trim()
        assert len(store) < 200
    assert store.next_id == 6_234
    assert store.first_id > 6_000
    newest = store.newest(100)
    assert [trade.id for trade in newest] == list(range(6_134, 6_234))
    assert [trade.price for trade in newest] == list(range(1_134, 1_234))
    assert store.read(0, 1)[0].id == store.first_id
    assert store.read(6_234, 10) == []
    assert [trade.is_buyer_maker for trade in store.read(6_232, 2)] == [False, True]


def test_aggregates_are_found_by_time() -> None:
    store = AggStore(kept=50)
    store.begin(10)
    for number in range(40):
        store.extend((number // 2 * 100, 1, 1, False, number, number))
    assert store.first_at(0) == 10
    assert store.first_at(300) == 16
    assert store.first_at(301) == 18
    assert store.first_at(10_000) == store.next_id == 50
    assert store.read(16, 1)[0].time_us == 300
