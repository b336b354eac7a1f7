"""The synthetic market: ids, prices, mix, bursts, determinism."""

import itertools
import json
from decimal import Decimal

import numpy as np
import pytest

from tests.sim.tools import START_US, body, play
from tradeback.sim.channels import Hub
from tradeback.sim.market import Synthetic
from tradeback.sim.rhythm import SLOT_US, Rhythm

TRIO = ("trade", "aggTrade", "bookTicker")


def test_ids_rise_by_one_and_aggregates_tile_the_trades() -> None:
    market = Synthetic(6, 5_000, 3)
    streams, _ = play(market, 3, TRIO)
    for symbol, book in market.books.items():
        name = book.instrument.stream
        trades, aggs = streams[f"{name}@trade"], streams[f"{name}@aggTrade"]
        ids = [trade["t"] for trade in trades]
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert len(ids) > 20, symbol
        by_id = {trade["t"]: trade for trade in trades}
        expected = ids[0]
        for before, agg in zip([None, *aggs], aggs, strict=False):
            assert before is None or agg["a"] == before["a"] + 1
            assert agg["f"] == expected
            expected = agg["l"] + 1
            fills = [by_id[number] for number in range(agg["f"], agg["l"] + 1)]
            assert {(fill["p"], fill["m"], fill["T"]) for fill in fills} == {(agg["p"], agg["m"], agg["T"])}
            assert sum(Decimal(fill["q"]) for fill in fills) == Decimal(agg["q"])
        assert expected == ids[-1] + 1
        updates = [quote["u"] for quote in streams[f"{name}@bookTicker"]]
        assert all(one < two for one, two in itertools.pairwise(updates))


def test_prices_and_quantities_stand_on_the_grid_with_eight_decimals() -> None:
    market = Synthetic(32, 20_000, 4)
    streams, _ = play(market, 1, TRIO)
    for book in market.books.values():
        tick, step = Decimal(book.instrument.tick_size), Decimal(book.instrument.step_size)
        name = book.instrument.stream
        for trade in streams[f"{name}@trade"]:
            assert len(trade["p"].partition(".")[2]) == len(trade["q"].partition(".")[2]) == 8
            assert Decimal(trade["p"]) % tick == 0
            assert Decimal(trade["q"]) % step == 0
            assert Decimal(trade["q"]) > 0
        for quote in streams[f"{name}@bookTicker"]:
            assert Decimal(quote["b"]) < Decimal(quote["a"])
            assert Decimal(quote["b"]) % tick == Decimal(quote["a"]) % tick == 0


def test_every_quote_differs_from_the_one_before_and_mostly_in_quantity() -> None:
    streams, _ = play(Synthetic(1, 5_000, 9), 3, ("bookTicker",))
    (quotes,) = streams.values()
    moved = 0
    for one, two in itertools.pairwise(quotes):
        assert any(one[key] != two[key] for key in "bBaA")
        moved += one["b"] != two["b"] or one["a"] != two["a"]
    assert 0.04 < moved / len(quotes) < 0.16


def test_times_are_near_now_and_a_trade_never_precedes_its_match() -> None:
    streams, _ = play(Synthetic(2, 2_000, 5), 2, ("trade", "aggTrade"))
    for trades in streams.values():
        for one, two in itertools.pairwise(trades):
            assert one["T"] <= two["T"] <= two["E"] <= START_US + 2_000_000
            assert one["E"] <= two["E"]
        assert np.median([trade["E"] - trade["T"] for trade in trades]) < 3_000


def test_milliseconds_are_cut_microseconds() -> None:
    (us, _), (ms, _) = (
        play(Synthetic(2, 3_000, 5), 1, ("trade",), microseconds=unit) for unit in (True, False)
    )
    for name, trades in us.items():
        expected = [{**trade, "E": trade["E"] // 1_000, "T": trade["T"] // 1_000} for trade in trades]
        assert ms[name] == expected


def test_the_seed_decides_every_byte() -> None:
    runs = [play(Synthetic(5, 3_000, seed), 1, TRIO)[1] for seed in (7, 7, 8)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert len(runs[0]) > 500


def test_the_trio_is_mixed_as_recorded() -> None:
    _, frames = play(Synthetic(3, 30_000, 2), 3, TRIO)
    kinds = [json.loads(body(frame))["stream"].partition("@")[2] for frame in frames]
    shares = [kinds.count(kind) / len(kinds) for kind in TRIO]
    assert shares == pytest.approx([0.20, 0.11, 0.69], abs=0.025)


def test_symbols_outside_ascii_are_listed_on_wish() -> None:
    market = Synthetic(4, 2_000, 1, unicode_names=True)
    assert "币安人生USDT" in market.books
    streams, _ = play(market, 2, ("trade",))
    assert streams["币安人生usdt@trade"][0]["s"] == "币安人生USDT"


def test_prices_stay_near_their_home_for_long() -> None:
    market = Synthetic(1, 40_000, 1, bursts=0)
    market.attach(Hub())
    market.begin(START_US)
    market.advance(START_US + 20_000_000, 10**9)
    (book,) = market.books.values()
    book.refresh()
    assert abs(book.bid / book.instrument.price - 1) < 0.12


def test_the_mean_rate_is_held_and_arrivals_cluster() -> None:
    rhythm = Rhythm(3, 10, 1_000.0)
    counts = [len(rhythm.slot().times_us) for _ in range(1_200)]
    assert sum(counts) / 120 == pytest.approx(1_000, rel=0.15)
    assert np.percentile(counts, 50) < 85
    assert np.percentile(counts, 99) > 300
    even = Rhythm(3, 10, 1_000.0, bursts=0)
    assert {len(even.slot().times_us) for _ in range(50)} <= {99, 100, 101}


def test_activity_follows_zipf() -> None:
    rhythm = Rhythm(1, 50, 20_000.0, bursts=0)
    who = np.concatenate([rhythm.slot().symbols for _ in range(20)])
    counts = np.bincount(who, minlength=50)
    assert counts[0] / counts[9] == pytest.approx(10**0.9, rel=0.25)
    assert rhythm.share(0) == pytest.approx(counts[0] / len(who), rel=0.1)
    assert SLOT_US == 100_000
