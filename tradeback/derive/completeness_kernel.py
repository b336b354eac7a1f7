"""Kernels of the ledger: ids that simply go on, nearly all of them, and aggregates ripe to be judged.

What does not go on is `completeness_feed`'s business.

The ledger's arrays are reached through words (int64): addresses of arrays, indexed by (stream, symbol id),
and the number of symbols they have room for.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tradeback.kernel import row as tick
from tradeback.kernel.jit import entry, helper, kernel
from tradeback.kernel.memory import load_8, load_16, load_f64, load_i64, store_8, store_64
from tradeback.model.record import AGG, GAP, STAND_IN, TRADE, UNWATCHED

FROM, TOP, TOP_US, DIRTY, REACH, MARK, SIZE = range(7)
WORDS = 7


def words_of(arrays: list[NDArray[Any]]) -> NDArray[np.int64]:
    """The words for arrays in the order of FROM to MARK, each (2, symbols); they must outlive the words."""
    return np.array([*(int(array.ctypes.data) for array in arrays), arrays[0].shape[1]], np.int64)


@helper
def _note_reach(words: Any, row: Any, symbol: Any, size: Any) -> None:
    """An aggregate says which trades there are: remember where it runs ahead of them."""
    reaches, marks = load_i64(words + 8 * REACH) + 8 * symbol, load_i64(words + 8 * MARK) + 8 * symbol
    top = load_i64(load_i64(words + 8 * TOP) + 8 * symbol)
    reach = max(load_i64(reaches), int(load_f64(row + tick.ASK_QUANTITY)))
    store_64(reaches, reach)
    if load_i64(marks) <= top and reach > top:
        store_64(marks, reach)
        store_64(marks + 8 * size, load_i64(row + tick.RECV_NS))
    if load_i64(load_i64(words + 8 * FROM) + 8 * symbol) < 0 and load_i64(reaches + 8 * size) < 0:
        store_64(reaches + 8 * size, int(load_f64(row + tick.ASK)))


@kernel("int64(int64,int64,int64)")
def _go_on(words: Any, rows: Any, count: Any) -> Any:
    size = load_i64(words + 8 * SIZE)
    for number in range(count):
        row = rows + number * tick.ROW_BYTES
        kind = load_8(row + tick.KIND)
        if kind in (GAP, UNWATCHED):
            return number
        if kind != TRADE and kind != AGG:
            continue
        symbol = load_16(row + tick.SYMBOL_ID)
        if symbol >= size or (kind == TRADE and load_8(row + tick.FLAGS) & STAND_IN):
            return number
        place = symbol if kind == TRADE else size + symbol
        top = load_i64(words + 8 * TOP) + 8 * place
        identifier = load_i64(row + tick.ID)
        if load_i64(load_i64(words + 8 * FROM) + 8 * place) < 0 or identifier != load_i64(top) + 1:
            return number
        store_64(top, identifier)
        store_64(load_i64(words + 8 * TOP_US) + 8 * place, load_i64(row + tick.EXCHANGE_US))
        store_8(load_i64(words + 8 * DIRTY) + place, 1)
        if kind == AGG:
            _note_reach(words, row, symbol, size)
    return count


@kernel("int64(int64,int64)")
def _tails(words: Any, due_ns: Any) -> Any:
    size = load_i64(words + 8 * SIZE)
    tops, reaches = load_i64(words + 8 * TOP), load_i64(words + 8 * REACH)
    marks = load_i64(words + 8 * MARK)
    for symbol in range(size):
        top, mark = load_i64(tops + 8 * symbol), load_i64(marks + 8 * symbol)
        ahead = mark > top
        if (ahead and load_i64(marks + 8 * (size + symbol)) <= due_ns) or (
            not ahead and load_i64(reaches + 8 * symbol) > top
        ):
            return 1
    return 0


@kernel("int64(int64,int64,int64,int64,int64,int64)")
def _ripe(words: Any, holed: Any, rows: Any, count: Any, limit_ns: Any, found: Any) -> Any:
    size, tops = load_i64(words + 8 * SIZE), load_i64(words + 8 * TOP)
    aggregates = doubtful = 0
    for number in range(count):
        row = rows + number * tick.ROW_BYTES
        if load_i64(row + tick.RECV_NS) > limit_ns:
            count = number
            break
        if load_8(row + tick.KIND) != AGG:
            continue
        aggregates += 1
        symbol = load_16(row + tick.SYMBOL_ID)
        if (
            symbol >= size
            or int(load_f64(row + tick.ASK_QUANTITY)) > load_i64(tops + 8 * symbol)
            or load_8(holed + symbol) != 0
        ):
            store_64(found + 8 * (2 + doubtful), number)
            doubtful += 1
    store_64(found, aggregates)
    store_64(found + 8, doubtful)
    return count


@kernel("int64(int64,int64)")
def _run(rows: Any, count: Any) -> Any:
    kind, symbol = load_8(rows + tick.KIND), load_16(rows + tick.SYMBOL_ID)
    identifier = load_i64(rows + tick.ID)
    for number in range(1, count):
        row = rows + number * tick.ROW_BYTES
        if (
            load_8(row + tick.KIND) != kind
            or load_16(row + tick.SYMBOL_ID) != symbol
            or load_i64(row + tick.ID) != identifier + number
            or load_8(row + tick.FLAGS) & STAND_IN
        ):
            return number
    return count


_entry, _tails_entry, _ripe_entry, _run_entry = entry(_go_on), entry(_tails), entry(_ripe), entry(_run)


def go_on(words: NDArray[np.int64], rows: NDArray[Any]) -> int:
    """Take records, contiguous in memory, into the ledger as long as each is the next of its stream.

    Returns how many: the first one left over jumps, comes late, begins a stream or is no trade or aggregate
    that certifies itself (a gap, a stand-in, the end of a watch).
    """
    taken: int = _entry(words.ctypes.data, rows.ctypes.data, len(rows))
    return taken


def run_length(rows: NDArray[Any]) -> int:
    """How many records from the first one on, contiguous in memory and not empty, are of its stream, no
    stand-ins, and have ids that rise by one."""
    length: int = _run_entry(rows.ctypes.data, len(rows))
    return length


def has_tails(words: NDArray[np.int64], due_ns: int) -> bool:
    """Do aggregates name trades behind the last one, of which the oldest were named before `due_ns`, or
    further ones than they did when they began to run ahead?"""
    return bool(_tails_entry(words.ctypes.data, due_ns))


def ripe_aggregates(
    words: NDArray[np.int64], holed: NDArray[np.bool_], rows: NDArray[Any], limit_ns: int
) -> tuple[int, int, NDArray[np.int64]]:
    """Records, contiguous in memory, up to the first that was received after `limit_ns`.

    `holed`: (2, symbols), whether ids of a stream are missing. Returns how many records, how many aggregates
    among them, and the indexes of those whose trades are perhaps not all there.
    """
    found = np.empty(2 + len(rows), np.int64)
    ripe: int = _ripe_entry(
        words.ctypes.data, holed.ctypes.data, rows.ctypes.data, len(rows), limit_ns, found.ctypes.data
    )
    return ripe, int(found[0]), found[2 : 2 + int(found[1])]
