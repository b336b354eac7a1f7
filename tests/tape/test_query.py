"""Symbol queries, by index and by scan, against a plain filter over all records."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.tape.helpers import START_US, config, flip, make_rows, same
from tradeback.model.errors import TapeError
from tradeback.model.record import AGG, QUOTE, REPAIRED, TRADE, Rows
from tradeback.tape import growing, query, segment
from tradeback.tape.index import build_index, write_index
from tradeback.tape.keeper import Keeper
from tradeback.tape.query import IndexCache, Query, only_symbols
from tradeback.tape.reader import TapeReader
from tradeback.tape.segment import list_segments, offset_of
from tradeback.tape.spans import times_us
from tradeback.tape.writer import Tape

COUNT = 700


def market_rows() -> Rows:
    """Records with a few repaired trades that stand late on the tape, with their early times and ids."""
    rows = make_rows(COUNT)
    for late in range(200, COUNT, 97):
        rows[late]["id"] -= 150
        rows[late]["exchange_us"] = START_US + rows[late]["id"] * 1_000
        rows[late]["kind"] = TRADE
        rows[late]["flags"] |= REPAIRED
    return rows


@contextmanager
def small_pieces(rows: int) -> Iterator[None]:
    """Segments of so few records consist of several pieces."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (query, growing, segment):
            patch.setattr(module, "CHECK_ROWS", rows)
        yield


@contextmanager
def market(*, indexed: bool, rows_per_segment: int = 64) -> Iterator[TapeReader]:
    """A reader of `market_rows`, with indexes on its sealed segments or without."""
    with tempfile.TemporaryDirectory() as folder:
        with Tape.open(folder, config(rows_per_segment=rows_per_segment)) as tape:
            tape.append(market_rows())
        for sealed in list_segments(Path(folder))[:-1]:
            if indexed:
                write_index(sealed, build_index(sealed))
            else:
                sealed.index_path.unlink(missing_ok=True)
        yield TapeReader(folder)


@pytest.fixture(
    scope="module", params=["indexed", "scanned", "indexed pieces", "scanned pieces", "one piece-wise"]
)
def reader(request: pytest.FixtureRequest) -> Iterator[TapeReader]:
    """The same tape with and without indexes, in segments of one piece and of several.

    One reader for all examples: what one query has learnt must be right for the next.
    """
    indexed, pieces = "indexed" in request.param, "piece" in request.param
    rows_per_segment = 1_000 if "one" in request.param else 64
    rows = 9 if pieces else segment.CHECK_ROWS
    with small_pieces(rows), market(indexed=indexed, rows_per_segment=rows_per_segment) as found:
        yield found


BOUND = st.none() | st.integers(-5_000, 1_000 * COUNT + 5_000).map(lambda offset: START_US + offset)


@settings(max_examples=150, deadline=None)
@given(
    symbol=st.integers(0, 7),
    kinds=st.none() | st.sets(st.sampled_from([TRADE, QUOTE, AGG])),
    from_us=BOUND,
    to_us=BOUND,
    from_id=st.none() | st.integers(0, COUNT),
    rows_max=st.integers(1, 80) | st.just(10_000),
    by_id=st.booleans(),
)
def test_against_a_plain_filter(
    reader: TapeReader,
    symbol: int,
    kinds: set[int] | None,
    from_us: int | None,
    to_us: int | None,
    from_id: int | None,
    rows_max: int,
    by_id: bool,
) -> None:
    wanted = []
    for row in market_rows():
        when = int(row["recv_ns"]) // 1_000 if row["kind"] == QUOTE else int(row["exchange_us"])
        if (
            row["symbol_id"] == symbol
            and (kinds is None or row["kind"] in kinds)
            and (from_us is None or when >= from_us)
            and (to_us is None or when < to_us)
            and (from_id is None or row["id"] >= from_id)
        ):
            wanted.append(row.item()[:-1])
    if by_id:
        wanted.sort(key=lambda row: row[2])
    found = reader.symbol_rows(
        symbol, kinds=kinds, from_us=from_us, to_us=to_us, from_id=from_id, rows_max=rows_max, by_id=by_id
    )
    assert [row[:-1] for row in found.tolist()] == wanted[:rows_max]


@pytest.mark.parametrize("rows_per_segment", [64, 1_000])
def test_a_page_reads_the_pieces_it_is_made_of(
    rows_per_segment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trades page by page in order of id, some repaired late: not everything is read for every page."""
    read = 0
    mask = Query.mask

    def counting(self: Query, rows: Rows) -> NDArray[np.bool_]:
        nonlocal read
        read += len(rows)
        return mask(self, rows)

    monkeypatch.setattr(Query, "mask", counting)
    wanted = market_rows()
    wanted = wanted[(wanted["symbol_id"] == 2) & (wanted["kind"] == TRADE)]
    wanted = wanted[np.argsort(wanted["id"], kind="stable")]
    with small_pieces(4), market(indexed=True, rows_per_segment=rows_per_segment) as found:
        pages, from_id, more = [], 0, True
        while more:
            page = found.symbol_rows(2, kinds=(TRADE,), from_id=from_id, rows_max=3, by_id=True)
            pages.append(page[:2])
            more = len(page) == 3
            from_id = int(page["id"][-1])
    together = np.concatenate(pages)
    assert same(together, wanted)
    assert len(pages) > 10
    assert read < 4 * COUNT, f"{read} records looked at for {len(pages)} pages of a tape of {COUNT}"


def test_a_cut_file_is_an_error_not_a_wrong_answer() -> None:
    with small_pieces(9), market(indexed=True, rows_per_segment=1_000) as found:
        whole = found.symbol_rows(2, rows_max=10_000)
        (only,) = found.segments()
        with only.path.open("r+b") as file:
            file.truncate(offset_of(COUNT - 40))
        shorter = found.symbol_rows(2, rows_max=10_000)
        assert same(shorter, whole[: len(shorter)])
        assert len(shorter) < len(whole)
        known = growing.Growing(only)
        pieces = known.pieces()
        with only.path.open("r+b") as file:
            file.truncate(offset_of(COUNT - 80))
        with pytest.raises(TapeError, match="are gone"):
            list(known.gather(pieces, 2, lambda: None))


def test_find_tells_sequences(reader: TapeReader) -> None:
    market = market_rows()
    for symbol in (3, None):
        for piece in reader.find(Query(symbol, kinds=[TRADE])):
            assert same(piece.rows, market[piece.sequences - 1])
            assert piece.sequences.tolist() == sorted(piece.sequences.tolist())
    pieces = list(only_symbols(reader.find(Query(None)), [2, 4]))
    assert np.concatenate([piece.sequences for piece in pieces]).tolist() == [
        at + 1 for at, row in enumerate(market) if row["symbol_id"] in (2, 4)
    ]


def test_receipt_counts_where_there_is_no_exchange_time() -> None:
    rows = make_rows(8)
    rows["exchange_us"][0] = 0
    expected = [
        recv // 1_000 if kind == QUOTE or exchange == 0 else exchange
        for exchange, recv, kind in zip(
            rows["exchange_us"].tolist(), rows["recv_ns"].tolist(), rows["kind"].tolist(), strict=True
        )
    ]
    assert times_us(rows).tolist() == expected


@pytest.mark.parametrize("piece", [7, 16_384])
def test_while_the_tape_is_written(tmp_path: Path, piece: int) -> None:
    """The newest records are found at once, and rolls and indexing change no answer."""
    with small_pieces(piece), Tape.open(tmp_path, config(rows_per_segment=50, sync_interval_s=0.001)) as tape:
        reader = TapeReader(tmp_path)
        for first in range(1, 1_000, 30):
            tape.append(make_rows(30, first))
            everything = make_rows(first + 29)
            wanted = everything[everything["symbol_id"] == 2]
            assert same(reader.symbol_rows(2, rows_max=10_000), wanted)


def test_a_damaged_record_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Keeper, "_index", lambda self: None)
    with Tape.open(tmp_path, config(rows_per_segment=50)) as tape:
        tape.append(make_rows(120))
    path = list_segments(tmp_path)[0].path
    flip(path, offset_of(20))
    reader = TapeReader(tmp_path)
    with pytest.raises(TapeError, match="record 21 "):
        reader.symbol_rows(2, rows_max=10_000)
    assert len(reader.symbol_rows(2, rows_max=1)) == 1


def test_retired_segments_leave_the_cache(tmp_path: Path) -> None:
    with Tape.open(tmp_path, config(rows_per_segment=50)) as tape:
        tape.append(make_rows(220))
    segments = list_segments(tmp_path)
    write_index(segments[0], build_index(segments[0]))
    cache = IndexCache()
    assert cache.find(segments[0]) is not None
    assert cache.find(segments[0]) is cache.find(segments[0])
    cache.keep_only(segments[1:])
    segments[0].path.unlink()
    segments[0].index_path.unlink()
    assert cache.find(segments[0]) is None


def test_a_query_lets_go_of_retired_segments(tmp_path: Path) -> None:
    """A mapped index of a removed segment would hold its disk space."""
    with Tape.open(tmp_path, config(rows_per_segment=50)) as tape:
        tape.append(make_rows(220))
    first = list_segments(tmp_path)[0]
    write_index(first, build_index(first))
    reader = TapeReader(tmp_path)
    reader.symbol_rows(2, rows_max=1_000)
    assert first in reader._indexes._held
    first.path.unlink()
    found = reader.symbol_rows(2, rows_max=1_000)
    assert first not in reader._indexes._held
    assert found["id"].min() > 50
