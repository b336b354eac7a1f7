"""wire/conflate_kernel: last price and exact volume per symbol, through feed.catchup, against Decimal."""

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.feed.harness import MemoryTape, rows_of
from tradeback.feed.catchup import CatchUp
from tradeback.feed.interest import EVERYTHING, Interest
from tradeback.model.record import LATE, QUOTE
from tradeback.model.symbols import Symbol, SymbolTable

SYMBOLS = SymbolTable.of(
    [
        Symbol(1, "BTCUSDT", step_size="0.00001000"),
        Symbol(2, "SHIBUSDT", step_size="1.00000000"),
        Symbol(3, "ETHUSDT", step_size="0.00010000"),
    ]
)
DIGITS = {1: 5, 2: 0, 3: 4}

trades = st.tuples(
    st.sampled_from([1, 2, 3]), st.integers(1, 10**8), st.integers(1, 10**9), st.sampled_from([0, 0, 0, LATE])
)
Trade = tuple[int, int, int, int]


def quantity(symbol_id: int, lots: int) -> Decimal:
    return Decimal(lots).scaleb(-DIGITS[symbol_id])


def oracle(interest: Interest, given_trades: list[Trade]) -> dict[int, tuple[float, float]]:
    prices: dict[int, float] = {}
    volumes: dict[int, Decimal] = {}
    for symbol_id, cents, lots, flags in given_trades:
        if interest != EVERYTHING and symbol_id not in interest:
            continue
        if symbol_id not in prices or not flags & LATE:
            prices[symbol_id] = cents / 100
        volumes[symbol_id] = volumes.get(symbol_id, Decimal(0)) + quantity(symbol_id, lots)
    return {symbol_id: (prices[symbol_id], float(volumes[symbol_id])) for symbol_id in prices}


@settings(deadline=None)
@given(
    st.lists(trades, max_size=60),
    st.one_of(st.just(EVERYTHING), st.frozensets(st.integers(1, 3), min_size=1)),
    st.integers(0, 63),
)
def test_prices_are_the_last_and_volumes_add_up_exactly(
    given_trades: list[Trade], interest: Interest, before: int
) -> None:
    tape = MemoryTape(hot_rows=64)
    tape.append(rows_of([(1, 1.0, 1.0)] * before, kind=QUOTE))  # so that the trades may wrap round the ring
    first = tape.next_sequence
    for symbol_id, cents, lots, flags in given_trades:
        tape.append(rows_of([(symbol_id, cents / 100, float(quantity(symbol_id, lots)))], flags=flags))
    catchup = CatchUp(tape, SYMBOLS)
    catchup.attach()
    catchup.learn(interest)
    for _ in range(2):  # the second time from a scratch that the first has used
        found = catchup.entries(interest, first, tape.next_sequence)
        assert {int(e["symbol_id"]): (float(e["price"]), float(e["volume"])) for e in found} == oracle(
            interest, given_trades
        )


def test_quantities_off_the_grid_and_beyond_2_to_the_53_are_not_lost() -> None:
    tape = MemoryTape(hot_rows=64)
    tape.append(rows_of([(2, 1.0, 0.123456789), (2, 1.0, 3.0), (1, 1.0, 1e15), (1, 2.0, 1e15)]))
    catchup = CatchUp(tape, SYMBOLS)
    catchup.attach()
    catchup.learn(EVERYTHING)
    found = catchup.entries(EVERYTHING, 1, tape.next_sequence)
    assert found.tolist() == [(2, 1.0, 3.123456789), (1, 2.0, 2e15)]
