"""The shared memory of the kernels: it grows without forgetting."""

import numpy as np
import pytest

from tests.ingest.oracle import ws_frame
from tests.ingest.test_arbiter import row
from tests.ingest.world import Room, quote, raw, trade
from tradeback.ingest import context as words
from tradeback.model.record import AGG, QUOTE, TRADE
from tradeback.model.symbols import SYMBOL_IDS_MAX


def test_growing_keeps_what_is_known() -> None:
    room = Room(["BTCUSDT"])
    room.admit(np.concatenate([row(TRADE, 5), row(TRADE, 9), row(AGG, 3), row(QUOTE, 77)]))
    before = room.word(words.STATES)
    for symbol_id in (2, 1_023, 1_024, 5_000, SYMBOL_IDS_MAX):
        name = f"S{symbol_id}"
        room.context.add_symbol(name, symbol_id)
        room.ids[name] = symbol_id
        found = room.read(ws_frame(raw(trade(name, 1))) + ws_frame(raw(quote("BTCUSDT", symbol_id))))
        assert found.rows["symbol_id"][0] == symbol_id
        assert len(room.admit(np.concatenate([row(TRADE, 5), row(TRADE, 9), row(AGG, 3)]))) == 0
        assert room.context.last_id(symbol_id, TRADE) == 1
    assert room.word(words.STATES) != before
    assert room.context.last_id(1, TRADE) == 9
    assert room.context.missing_trades(1) == 3
    assert room.context.last_id(1, AGG) == 3
    assert room.context.last_id(1, QUOTE) == SYMBOL_IDS_MAX


def test_a_symbol_means_one_id() -> None:
    room = Room(["BTCUSDT"])
    room.context.add_symbol("BTCUSDT", 1)
    with pytest.raises(ValueError, match="already has id 1"):
        room.context.add_symbol("BTCUSDT", 2)
    assert room.read(ws_frame(raw(trade("BTCUSDT", 4)))).rows["symbol_id"].tolist() == [1]


def test_counters_are_by_kind() -> None:
    room = Room(["BTCUSDT"])
    stream = [trade("BTCUSDT", 1), trade("BTCUSDT", 1), quote("BTCUSDT", 5), trade("BTCUSDT", 4)]
    room.read(b"".join(ws_frame(raw(event)) for event in stream))
    by_kind = {
        word: [room.context.counter(word, kind) for kind in words.KINDS]
        for word in (words.MESSAGES, words.ACCEPTED, words.DUPLICATES, words.SKIPPED_IDS)
    }
    assert by_kind == {
        words.MESSAGES: [3, 1, 0],
        words.ACCEPTED: [2, 1, 0],
        words.DUPLICATES: [1, 0, 0],
        words.SKIPPED_IDS: [2, 0, 0],
    }
    assert room.context.view[words.MESSAGES + TRADE] == 3
