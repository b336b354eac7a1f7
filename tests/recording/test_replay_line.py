"""Recorded bytes take the way of live ones."""

from pathlib import Path

import pytest

from tests.exchange.harness import SYMBOLS, UNSTAMPED, combined, desk, frame, quote, trade
from tradeback.model.errors import TapeError
from tradeback.model.record import LINE_SHIFT
from tradeback.model.symbols import SymbolTable
from tradeback.recording.playback import RecordedClock
from tradeback.recording.replay_line import ReplayLine


def test_reads_of_any_size_with_their_time_and_line(tmp_path: Path) -> None:
    clock = RecordedClock()
    with desk(tmp_path) as made:
        lines = [ReplayLine(made.intake, clock, SymbolTable.of(SYMBOLS), line) for line in (0, 1)]
        clock.now_ns = 1_000
        lines[1].push(b"".join(trade(number) for number in range(1, 3_001)))
        clock.now_ns = 2_000
        lines[0].push(trade(3_000) + trade(3_001) + quote(5))
        rows = made.rows
        assert rows["id"].tolist() == [*range(1, 3_002), 5]
        assert rows["recv_ns"].tolist() == [1_000] * 3_000 + [2_000] * 2
        assert (rows["flags"] >> LINE_SHIFT).tolist() == [1] * 3_000 + [0] * 2
        made.check_tape()


def test_what_the_kernel_refuses_takes_the_slow_path(tmp_path: Path) -> None:
    spaced = trade(2)[4:].replace(b'"data":{', b'"data": { ')
    with desk(tmp_path) as made:
        line = ReplayLine(made.intake, RecordedClock(7), SymbolTable.of(SYMBOLS), 0)
        line.push(trade(1) + frame(spaced) + trade(3))
        assert line.fallbacks == 1
        assert made.rows["id"].tolist() == [1, 2, 3]
        assert made.rows["recv_ns"].tolist() == [7] * 3
        line.push(frame(b'{"result":null,"id":1}') + frame(b"garbage") + combined("x@trade", '{"e":"x"}'))
        line.push(frame(b"", 0x89) + trade(4))
        assert (line.malformed, line.differs, made.count) == (3, 0, 4)
        names = list(UNSTAMPED)
        assert made.rows[names][1]["price"] == made.rows[names][0]["price"]


def test_bytes_that_are_no_frames_end_the_replay(tmp_path: Path) -> None:
    with desk(tmp_path) as made:
        line = ReplayLine(made.intake, RecordedClock(7), SymbolTable.of(SYMBOLS), 0)
        with pytest.raises(TapeError, match="line a broke"):
            line.push(b"\xff\xff\xff\xff")
