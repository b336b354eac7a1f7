"""The tape: commit against other ways to keep records, reading, symbol queries by index against a scan.

Small by default; TRADEBACK_BENCH=full for the sizes of docs/performance.md. `extra_info["result"]` is a
checksum of what was stored or found, and is asserted: nobody gets faster by storing or finding less.
"""

import os
import sqlite3
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tradeback.model.config import TapeConfig
from tradeback.model.record import ROW_BYTES, TRADE, Rows, empty_rows, seal
from tradeback.tape.growing import Growing
from tradeback.tape.index import build_index, write_index
from tradeback.tape.reader import TapeReader
from tradeback.tape.segment import CHECK_ROWS, list_segments
from tradeback.tape.writer import Tape

FULL = os.environ.get("TRADEBACK_BENCH") == "full"
COMMITS = 500 if FULL else 200
"""Commits per round; the time shown by pytest-benchmark is for all of them, us_per_commit for one."""
ROUNDS = 10 if FULL else 3
READ_ROWS = 2_000_000 if FULL else 100_000
SYMBOLS = 500
START_US = 1_700_000_000_000_000
RECORD = struct.Struct("<qqqddddHBBI")


def market_rows(count: int) -> Rows:
    """Trades of 500 symbols, 10 us apart."""
    rows = empty_rows(count)
    ids = np.arange(1, count + 1)
    rows["id"] = ids
    rows["symbol_id"] = ids * 7919 % SYMBOLS + 1
    rows["kind"] = TRADE
    rows["exchange_us"] = START_US + ids * 10
    rows["recv_ns"] = (START_US + ids * 10) * 1_000
    rows["price"] = ids / 8
    rows["quantity"] = ids % 977
    return rows


def note(benchmark: Any, size: int) -> None:
    """The median for one commit and for one record."""
    if benchmark.stats is not None:  # none with --benchmark-disable
        each_us = benchmark.stats.stats.median / COMMITS * 1e6
        benchmark.extra_info["us_per_commit"] = round(each_us, 3)
        benchmark.extra_info["ns_per_record"] = round(each_us * 1e3 / size, 1)


def measure(benchmark: Any, work: Callable[[], object], size: int) -> int:
    """Time rounds of COMMITS calls; returns how many calls there were."""
    calls = 0

    def all_of_them() -> None:
        nonlocal calls
        for _ in range(COMMITS):
            work()
        calls += COMMITS

    benchmark.pedantic(all_of_them, rounds=ROUNDS, warmup_rounds=1)
    note(benchmark, size)
    return calls


def stored_ok(benchmark: Any, written: bytes, rows: Rows, batches: int) -> None:
    """Assert that the store holds `batches` times the records, by their crc without the checksum field."""
    content = np.frombuffer(written, rows.dtype).copy()
    assert len(content) == batches * len(rows)
    content["checksum"] = 0
    expected = rows.copy()
    expected["checksum"] = 0
    assert (content.reshape(batches, len(rows)) == expected).all()
    benchmark.extra_info["result"] = f"{zlib.crc32(expected.tobytes()):08x}"


def _read(tape: Tape, sequence: int, count: int) -> bytes:
    parts = []
    while count:
        rows = tape.read(sequence, count)
        parts.append(rows.tobytes())
        sequence += len(rows)
        count -= len(rows)
    return b"".join(parts)


@pytest.mark.parametrize("size", [1, 16, 256, 500])
class TestCommit:
    """Batches of records that stand in memory already, into the operating system's hands."""

    @pytest.fixture(autouse=True)
    def _group(self, benchmark: Any, size: int) -> None:
        benchmark.group = f"tape commit of {size}"

    def test_tape(self, benchmark: Any, tmp_path: Path, size: int) -> None:
        """Tape.commit, the hot path's own call. The kernel seals records before, so not in the measure."""
        rows = market_rows(size)
        ring = 1 << (COMMITS * size).bit_length()
        with Tape.open(tmp_path, TapeConfig(hot_rows=ring)) as tape:

            def fill() -> None:
                """Put the round's batches into the slots that follow, beginning at the ring's start."""
                tape.append(empty_rows(tape.room() % ring))
                first, many = tape.next_sequence, COMMITS * size
                tape.rows[:many] = np.tile(rows, COMMITS)
                seal(tape.rows[:many], first, tape.epoch)
                starts.append(first)

            def all_of_them() -> None:
                for _ in range(COMMITS):
                    commit(size)

            starts: list[int] = []
            commit = tape.commit
            benchmark.pedantic(all_of_them, setup=fill, rounds=ROUNDS, warmup_rounds=1)
            note(benchmark, size)
            parts = [_read(tape, first, COMMITS * size) for first in starts]
            stored_ok(benchmark, b"".join(parts), rows, len(starts) * COMMITS)
            benchmark.extra_info["roll_us_max"] = tape.counters.roll_ns_max / 1e3

    def test_struct_and_file(self, benchmark: Any, tmp_path: Path, size: int) -> None:
        """Baseline: struct.pack and file.write for each record, flush for each batch."""
        rows = market_rows(size)
        values = rows.tolist()
        path = tmp_path / "file"
        with path.open("wb") as file:

            def work() -> None:
                for row in values:
                    file.write(RECORD.pack(*row))
                file.flush()

            calls = measure(benchmark, work, size)
        stored_ok(benchmark, path.read_bytes(), rows, calls)

    def test_sqlite_blob(self, benchmark: Any, tmp_path: Path, size: int) -> None:
        """Baseline: one blob a batch in SQLite, WAL, synchronous=NORMAL."""
        rows = market_rows(size)
        store = sqlite3.connect(tmp_path / "db")
        store.execute("PRAGMA journal_mode=WAL")
        store.execute("PRAGMA synchronous=NORMAL")
        store.execute("CREATE TABLE batches(id INTEGER PRIMARY KEY, rows BLOB)")
        view = rows.view("u1").data

        def work() -> None:
            store.execute("INSERT INTO batches(rows) VALUES (?)", (view,))
            store.commit()

        calls = measure(benchmark, work, size)
        blobs = [blob for (blob,) in store.execute("SELECT rows FROM batches ORDER BY id")]
        stored_ok(benchmark, b"".join(blobs), rows, calls)
        store.close()


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> TapeReader:
    """A tape of four sealed, indexed segments and a newest one."""
    folder = tmp_path_factory.mktemp("tape")
    with Tape.open(folder, TapeConfig(segment_bytes=ROW_BYTES * (READ_ROWS // 4 - 10))) as tape:
        tape.append(market_rows(READ_ROWS))
    for segment in list_segments(folder)[:-1]:
        write_index(segment, build_index(segment))
    return TapeReader(folder)


def read_through(reader: TapeReader) -> int:
    """The crc of everything, read in slices and verified."""
    crc, sequence = 0, 1
    while len(rows := reader.read(sequence, CHECK_ROWS)):
        crc = zlib.crc32(rows["id"].tobytes(), crc)
        sequence += len(rows)
    return crc


@pytest.mark.benchmark(group="tape read")
def test_read_all(benchmark: Any, reader: TapeReader) -> None:
    """Sequential reading with every checksum verified, without numba."""
    found = benchmark.pedantic(read_through, args=(reader,), rounds=ROUNDS, warmup_rounds=1)
    assert found == zlib.crc32(market_rows(READ_ROWS)["id"].tobytes())
    benchmark.extra_info["result"] = f"{found:08x}"
    if benchmark.stats is not None:
        benchmark.extra_info["million_per_s"] = round(READ_ROWS / benchmark.stats.stats.median / 1e6, 1)


FROM_US, TO_US = START_US + READ_ROWS, START_US + 2 * READ_ROWS
"""A tenth of the tape's time, from the second tenth on: within the first sealed segment."""


def query(reader: TapeReader) -> Rows:
    return reader.symbol_rows(17, kinds=[TRADE], from_us=FROM_US, to_us=TO_US, rows_max=1 << 30)


def assert_found(benchmark: Any, found: Rows) -> None:
    rows = market_rows(READ_ROWS)
    times = rows["exchange_us"]
    wanted = rows[(rows["symbol_id"] == 17) & (times >= FROM_US) & (times < TO_US)]
    assert found["id"].tolist() == wanted["id"].tolist()
    assert len(wanted) > 0
    benchmark.extra_info["result"] = f"{zlib.crc32(found['id'].tobytes()):08x}"
    benchmark.extra_info["records"] = len(found)


@pytest.mark.benchmark(group="tape: one symbol, a tenth of the time")
def test_query_by_index(benchmark: Any, reader: TapeReader) -> None:
    """Sealed segments answer by index; those outside the time are skipped by their headers."""
    assert_found(benchmark, benchmark.pedantic(query, args=(reader,), rounds=10 * ROUNDS, warmup_rounds=1))


@pytest.mark.benchmark(group="tape: one symbol, a tenth of the time")
def test_query_by_scan(benchmark: Any, reader: TapeReader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Baseline: the same without indexes, every record read and verified."""
    monkeypatch.setattr(reader._indexes, "find", lambda segment: None)
    monkeypatch.setattr(Growing, "pieces", lambda known: [])
    assert_found(benchmark, benchmark.pedantic(query, args=(reader,), rounds=ROUNDS, warmup_rounds=1))


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of all records are of one symbol; one segment is sealed and indexed, the newest as large."""
    folder = tmp_path_factory.mktemp("busy")
    rows = market_rows(READ_ROWS)
    rows["symbol_id"] %= 2
    with Tape.open(folder, TapeConfig(segment_bytes=ROW_BYTES * (READ_ROWS // 2 + 10))) as tape:
        tape.append(rows)
    for segment in list_segments(folder)[:-1]:
        write_index(segment, build_index(segment))
    return folder


PAGE_ROWS = 1_000
PAGES = {"sealed": READ_ROWS // 4, "newest": READ_ROWS * 3 // 4}
"""Id from which on a page is asked for: in the middle of either segment."""


def page(reader: TapeReader, from_id: int) -> Rows:
    return reader.symbol_rows(1, kinds=[TRADE], from_id=from_id, rows_max=PAGE_ROWS, by_id=True)


def assert_page(benchmark: Any, found: Rows, from_id: int) -> None:
    rows = market_rows(READ_ROWS)
    wanted = rows["id"][(rows["symbol_id"] % 2 == 1) & (rows["id"] >= from_id)][:PAGE_ROWS]
    assert found["id"].tolist() == wanted.tolist()
    benchmark.extra_info["result"] = f"{zlib.crc32(found['id'].tobytes()):08x}"


@pytest.mark.benchmark(group="tape: a page of 1,000 trades in order of id")
@pytest.mark.parametrize("where", PAGES)
def test_next_page(benchmark: Any, busy: Path, where: str) -> None:
    """By a reader that has given a page before: of pieces without these ids it reads nothing."""
    reader = TapeReader(busy)
    page(reader, 0)
    found = benchmark.pedantic(page, args=(reader, PAGES[where]), rounds=10 * ROUNDS, warmup_rounds=1)
    assert_page(benchmark, found, PAGES[where])


@pytest.mark.benchmark(group="tape: a page of 1,000 trades in order of id")
@pytest.mark.parametrize("where", PAGES)
def test_page_of_a_new_reader(benchmark: Any, busy: Path, where: str) -> None:
    """Baseline: nothing is known yet, so every trade of the symbol is looked at."""
    found = benchmark.pedantic(
        lambda reader: page(reader, PAGES[where]), setup=lambda: ((TapeReader(busy),), {}), rounds=ROUNDS
    )
    assert_page(benchmark, found, PAGES[where])
