"""Everything that a tape holds, and what a replay from its first record makes of it."""

from pathlib import Path

import numpy as np

from tests.flow.oracle import SECONDS, BarValues
from tradeback.derive.bars import merge_all
from tradeback.derive.layout import EXCHANGE, Bars, Drained
from tradeback.derive.state import Derived
from tradeback.model.record import TRADE, Rows
from tradeback.model.symbols import Symbol
from tradeback.stores.registry_sqlite import RegistrySqlite
from tradeback.stores.series_sqlite import SeriesSqlite
from tradeback.tape.reader import TapeReader

SLICE_ROWS = 997
"""An odd number: where a replay is cut must not show."""
ALL_TIME_S = 1 << 40


def all_rows(reader: TapeReader) -> list[tuple[int, int, Rows]]:
    """(epoch, first sequence, records) in pieces, from the oldest record to the newest."""
    sequence = reader.oldest_sequence
    found: list[tuple[int, int, Rows]] = []
    while True:
        epoch, rows = reader.read_with_epoch(sequence, 1 << 16)
        if not len(rows):
            return found
        found.append((epoch, sequence, rows))
        sequence += len(rows)


def joined(reader: TapeReader) -> Rows:
    """All records as one array."""
    pieces = [rows for _, _, rows in all_rows(reader)]
    whole: Rows = np.concatenate(pieces)
    return whole


def trades_of(rows: Rows, symbol_id: int) -> Rows:
    """The trades of one symbol, in tape order."""
    found: Rows = rows[(rows["kind"] == TRADE) & (rows["symbol_id"] == symbol_id)]
    return found


def symbols_of(data_dir: Path) -> dict[str, Symbol]:
    """The registry's symbols by name."""
    registry = RegistrySqlite(data_dir / "registry.sqlite")
    try:
        return {symbol.symbol: symbol for symbol in registry.symbols()}
    finally:
        registry.close()


def replay(data_dir: Path) -> tuple[Derived, Drained]:
    """A fresh state after every record of the tape, and the bars that left it on the way."""
    derived = Derived()
    for symbol in symbols_of(data_dir).values():
        derived.add_symbol(symbol)
    rows = joined(TapeReader(data_dir / "tape"))
    for start in range(0, len(rows), SLICE_ROWS):
        piece = np.ascontiguousarray(rows[start : start + SLICE_ROWS])
        derived.on_rows(int(piece.ctypes.data), len(piece))
    return derived, derived.drain()


def compare_with_replay(data_dir: Path) -> int:
    """A stopped engine's bars, levels and latest prices against a replay, bit for bit; how many bars.

    Bars that are the exchange's closed klines came by REST and are none of the replay's.
    """
    derived, drained = replay(data_dir)
    assert not drained.lost
    store = SeriesSqlite(data_dir / "series.sqlite")
    try:
        stored = store.load()
        assert stored.position.sequence == TapeReader(data_dir / "tape").next_sequence - 1
        states = derived.latest_all()
        states["dirty"] = 0
        states.sort(order="symbol_id")
        stored.states.sort(order="symbol_id")
        for ours, theirs in zip(states, stored.states, strict=True):
            assert ours.tobytes() == theirs.tobytes(), f"state: replay {ours}, engine {theirs}"
        parts = derived.snapshot().parts
        held = {_part_key(part): part for part in stored.parts}
        for part in parts:
            assert held[_part_key(part)].tobytes() == part.tobytes(), f"replay {part}"
        compared = 0
        for symbol in symbols_of(data_dir).values():
            for index in range(len(SECONDS)):
                mask = (drained.closed["symbol_id"] == symbol.id) & (drained.closed["resolution"] == index)
                kept = store.closed(symbol.id, index, 0, ALL_TIME_S, 1 << 30).rows
                compared += _compare(merge_all([drained.closed[mask]]), kept)
        return compared
    finally:
        store.close()


def replayed_bars(derived: Derived, drained: Drained, symbol: Symbol, index: int) -> dict[int, BarValues]:
    """All bars of one series by start in unix seconds, the open ones included."""
    closed = drained.closed
    mine = closed[(closed["symbol_id"] == symbol.id) & (closed["resolution"] == index)]
    bars = merge_all([mine, derived.bars_open(symbol.id, index)])
    return {
        int(bar["slot_us"]) // 1_000_000: BarValues(
            float(bar["open"]),
            float(bar["high"]),
            float(bar["low"]),
            float(bar["close"]),
            int(bar["volume"]) / 10**symbol.lot_digits,
            int(bar["trade_count"]),
        )
        for bar in bars
    }


def _part_key(part: np.void) -> tuple[int, int, int]:
    bar = part["bar"]
    return int(bar["symbol_id"]), int(bar["resolution"]), int(part["part"])


def _compare(replayed: Bars, kept: Bars) -> int:
    by_slot = {int(bar["slot_us"]): bar for bar in kept}
    ours = {int(bar["slot_us"]) for bar in replayed}
    stray = [bar for slot, bar in by_slot.items() if slot not in ours and not bar["flags"] & EXCHANGE]
    assert not stray, f"bars that no replay makes: {stray[:3]}"
    compared = 0
    for bar in replayed:
        held = by_slot.get(int(bar["slot_us"]))
        assert held is not None, f"the store lacks {bar}"
        if not held["flags"] & EXCHANGE:
            assert held.tobytes() == bar.tobytes(), f"replay {bar}, store {held}"
            compared += 1
    return compared
