"""api/bus_packing: bars and derived state come back as they were, and what is none is refused."""

import zlib

import numpy as np
import orjson
import pytest

from tradeback.api.bus_packing import pack_bars, pack_state, unpack_bars, unpack_state
from tradeback.derive.layout import EXCHANGE, NO_FIRST_ID, PART, empty_bars, empty_states
from tradeback.stores.ports import Position, Stored


def stored(symbols: int) -> Stored:
    states = empty_states(symbols)
    states["symbol_id"] = np.arange(symbols, 0, -1)
    states["ath"] = states["symbol_id"] * 1.5
    parts = np.zeros(3 * symbols, PART)
    parts["bar"]["symbol_id"], parts["part"] = np.repeat(states["symbol_id"], 3), np.tile([0, 1, 2], symbols)
    return Stored(Position(7, 99), states, parts)


def test_bars_come_back_as_the_exchanges_own() -> None:
    bars = empty_bars(3)
    bars["slot_us"], bars["open"], bars["trade_count"], bars["first_id"] = [1, 2, 3], [1.5, 2.5, 3.5], 4, 17
    found = unpack_bars(pack_bars(bars))
    assert found["slot_us"].tolist() == [1, 2, 3]
    assert found["open"].tolist() == [1.5, 2.5, 3.5]
    assert set(found["flags"]) == {EXCHANGE}
    assert set(found["seed_count"]) == {4}
    assert set(found["first_id"]) == {NO_FIRST_ID}
    assert bars["first_id"].tolist() == [17] * 3
    assert len(unpack_bars(pack_bars(empty_bars(0)))) == 0


def test_a_state_comes_back_in_pieces() -> None:
    whole = stored(7)
    pieces = [unpack_state(pack_state(whole, first, 3)) for first in (0, 3, 6, 9)]
    assert {piece.position for piece in pieces} == {Position(7, 99)}
    assert {piece.symbols for piece in pieces} == {7}
    assert [len(piece.states) for piece in pieces] == [3, 3, 1, 0]
    assert np.concatenate([piece.states for piece in pieces])["symbol_id"].tolist() == list(range(1, 8))
    assert sum(len(piece.parts) for piece in pieces) == len(whole.parts)
    for piece in pieces:
        assert set(piece.parts["bar"]["symbol_id"]) == set(piece.states["symbol_id"])


def test_what_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="still starting"):
        unpack_bars(orjson.dumps({"error": {"code": "not_ready", "message": "still starting"}}))
    with pytest.raises(ValueError, match="none"):
        unpack_bars(b"junk")
    head = orjson.dumps({"rows": {"bars": [1, 8]}})
    with pytest.raises(ValueError, match="one version"):
        unpack_bars(zlib.compress(head + b"\n" + bytes(8)))
    whole = zlib.decompress(pack_bars(empty_bars(2)))
    with pytest.raises(ValueError, match="cut"):
        unpack_bars(zlib.compress(whole[:-100]))
