"""From one socket read to the subscribers' sockets without the interpreter: the path's kernels.

`take` is called with every read: it takes the frames, appends the records to the tape's file with one
write(2), and serves them (`pump` does so for any bytes). `serve` encodes records once per interest, sends,
stamps, and folds them into the derived series, in this order. What is rare comes back to Python as an
ATTENTION word: a socket that is full, an arena that is too small, a disk that refuses. The interpreter lock
is held throughout: giving it away between two steps costs up to a switch interval before it comes back, and
nothing here waits.

The kernels for reading, encoding and deriving are called by address, so that each is compiled once.
"""

from typing import Any

from numba import types

from tradeback.ingest import context as words
from tradeback.kernel.jit import helper, kernel
from tradeback.kernel.memory import call_3, call_9, load_8, load_32, load_i64, store_64
from tradeback.kernel.row import KIND, RECV_NS, ROW_BYTES
from tradeback.model import tape_words as head
from tradeback.model.limits import BATCH_ROWS_MAX
from tradeback.model.record import TRADE
from tradeback.path import layout as at
from tradeback.wire import v1_layout as wire
from tradeback.wire import v2_layout as v2

_send: Any = types.ExternalFunction("send", types.int64(types.int32, types.int64, types.int64, types.int32))
_write: Any = types.ExternalFunction("write", types.int64(types.int32, types.int64, types.int64))
_clock: Any = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.int64))
_setsockopt: Any = types.ExternalFunction(
    "setsockopt", types.int32(types.int32, types.int32, types.int32, types.int64, types.int32)
)
_TCP, _QUICKACK = 6, 12  # IPPROTO_TCP, TCP_QUICKACK, Linux
_FLAGS = 0x40 | 0x4000  # MSG_DONTWAIT | MSG_NOSIGNAL, Linux
_REALTIME = 0  # CLOCK_REALTIME

_STATION_BYTES = 8 * at.STATION_WORDS
_TABLE_BYTES, _REST_BYTES = 8 * at.TABLE_WORDS, 8 * at.REST_WORDS
_LINE_BYTES = 8 * wire.TOUCHED_WORDS


@helper
def _add(address: Any, amount: Any) -> None:
    store_64(address, load_i64(address) + amount)


@helper
def _send_group(line: Any, data: Any, size: Any, group: Any, rests: Any, failed: Any) -> Any:
    """Send `size` bytes at `data` to the plain sockets of one group; returns how many failed by now."""
    fds = load_i64(line + 8 * at.TABLE_FDS)
    for place in range(load_i64(line + 8 * at.TABLE_PLAIN)):
        sent = _send(load_32(fds + 4 * place), data, size, _FLAGS)
        if sent != size:
            rest = rests + _REST_BYTES * failed
            store_64(rest + 8 * at.REST_GROUP, group)
            store_64(rest + 8 * at.REST_PLACE, place)
            store_64(rest + 8 * at.REST_SENT, sent)
            failed += 1
    return failed


@helper
def _send_touched(path: Any, station: Any, context: Any) -> Any:
    """Send what the encoder left in its arena. True when Python has to look after some clients."""
    line = load_i64(context + 8 * wire.TOUCHED)
    arena = load_i64(context + 8 * wire.OUT)
    table = load_i64(station + 8 * at.STATION_TABLE)
    rests = load_i64(path + 8 * at.RESTS)
    failed = 0
    others = 0
    for _ in range(load_i64(context + 8 * wire.TOUCHED_COUNT)):
        index = load_i64(line + 8 * wire.TOUCHED_GROUP)
        size = load_i64(line + 8 * wire.TOUCHED_BYTES)
        group = table + _TABLE_BYTES * index
        failed = _send_group(
            group, arena + load_i64(line + 8 * wire.TOUCHED_OFFSET), size, index, rests, failed
        )
        clients = load_i64(group + 8 * at.TABLE_PLAIN) + load_i64(group + 8 * at.TABLE_OTHERS)
        others += load_i64(group + 8 * at.TABLE_OTHERS)
        _add(group + 8 * at.TABLE_BATCHES, 1)
        _add(station + 8 * at.STATION_FRAMES, load_i64(line + 8 * wire.TOUCHED_FRAMES) * clients)
        _add(station + 8 * at.STATION_BYTES, size * clients)
        line += _LINE_BYTES
    store_64(path + 8 * at.REST_COUNT, failed)
    return failed + others > 0


@helper
def _wall_ns(path: Any) -> Any:
    timespec = load_i64(path + 8 * at.TIMESPEC)
    _clock(_REALTIME, timespec)
    return load_i64(timespec) * 1_000_000_000 + load_i64(timespec + 8)


@helper
def _serve_station(path: Any, station: Any, rows: Any, n: Any, first: Any, epoch: Any, done: Any) -> Any:
    """Encode and send the records from `done` on. Returns (how many are done, attention)."""
    encode = load_i64(station + 8 * at.STATION_ENCODE)
    context = load_i64(station + 8 * at.STATION_CONTEXT)
    if load_i64(station + 8 * at.STATION_VERSION) == 2:
        if load_i64(station + 8 * at.STATION_GROUPS) == 0:
            return n, at.NOTHING
        store_64(context + 8 * v2.EPOCH, epoch)
        store_64(context + 8 * v2.SEQUENCE, first + done)
        store_64(context + 8 * v2.PUBLISH_NS, _wall_ns(path))
    while done < n:
        consumed = call_3(encode, context, rows + ROW_BYTES * done, n - done)
        if consumed == 0:
            return done, at.GROW
        done += consumed
        if load_i64(context + 8 * wire.TOUCHED_COUNT) > 0:
            _add(station + 8 * at.STATION_ENCODED, load_i64(context + 8 * wire.FRAMES))
            if _send_touched(path, station, context):
                return done, at.LEFT_OVER
    return done, at.NOTHING


@helper
def _stamp(path: Any, rows: Any, n: Any) -> None:
    """Count the trades, and receive -> last send of the first of them for all."""
    trades = 0
    recv_ns = 0
    for index in range(n):
        row = rows + ROW_BYTES * index
        if load_8(row + KIND) == TRADE:
            if trades == 0:
                recv_ns = load_i64(row + RECV_NS)
            trades += 1
    if trades == 0:
        return
    _add(path + 8 * at.TRADES, trades)
    lag = (_wall_ns(path) - recv_ns) // 1_000
    sums = load_i64(path + 8 * at.LATENCY_SUMS)
    if lag < 0:
        _add(sums + 8, trades)
        lag = 0
    _add(sums, lag * trades)
    bounds = load_i64(path + 8 * at.LATENCY_BOUNDS)
    last = load_i64(path + 8 * at.LATENCY_BUCKETS)
    bucket = 0
    while bucket < last and load_i64(bounds + 8 * bucket) < lag:
        bucket += 1
    _add(load_i64(path + 8 * at.LATENCY_COUNTS) + 8 * bucket, trades)


@helper
def _announce(path: Any, after: Any) -> None:
    """Tell readers in other processes that every record before sequence `after` is in the tape's file."""
    word = load_i64(path + 8 * at.PUBLISHED)
    if word == 0:
        return
    store_64(word, after)
    wakes = load_i64(path + 8 * at.WAKES)
    for index in range(load_i64(path + 8 * at.WAKE_COUNT)):
        _write(load_32(wakes + 4 * index), path + 8 * at.ONE, 8)


@helper
def _serve(path: Any, rows: Any, n: Any, first: Any, epoch: Any, first_station: Any, done: Any) -> Any:
    """Serve `n` records from address `rows` on; returns the attention word."""
    for index in range(first_station, load_i64(path + 8 * at.STATIONS)):
        station = path + 8 * at.FIRST_STATION + _STATION_BYTES * index
        done, attention = _serve_station(path, station, rows, n, first, epoch, done)
        if attention != at.NOTHING:
            store_64(path + 8 * at.AT_STATION, index)
            store_64(path + 8 * at.AT_ROW, done)
            return attention
        done = 0
    _stamp(path, rows, n)
    derive = load_i64(path + 8 * at.DERIVE)
    if derive != 0:
        derived = call_3(derive, load_i64(path + 8 * at.DERIVE_CONTEXT), rows, n)
        if derived < n:
            store_64(path + 8 * at.AT_ROW, derived)
            return at.DERIVE_SHORT
    return at.NOTHING


@kernel("int64(int64,int64,int64,int64,int64,int64,int64)", keep_lock=True)
def serve(path: Any, rows: Any, n: Any, first: Any, epoch: Any, station: Any, done: Any) -> Any:
    """Serve `n` committed records from address `rows` on, going on at `station`, record `done`.

    `first` is the sequence of the first of them. Returns NOTHING, or why Python has to go on (AT_STATION,
    AT_ROW, REST_COUNT say where).
    """
    if station + done == 0:
        _announce(path, first + n)
    attention = _serve(path, rows, n, first, epoch, station, done)
    store_64(path + 8 * at.ATTENTION, attention)
    return attention


@helper
def _pull(path: Any, address: Any, end: Any, recv_ns: Any, line: Any) -> Any:
    """Take the frames in [address, end): read, append, serve. Returns the number of records."""
    tape = load_i64(path + 8 * at.TAPE)
    first = load_i64(tape + 8 * head.NEXT_SEQUENCE)
    hot_rows = load_i64(path + 8 * at.HOT_ROWS)
    slot = first & (hot_rows - 1)
    room = hot_rows - slot
    if room > BATCH_ROWS_MAX:
        room = BATCH_ROWS_MAX
    row = load_i64(path + 8 * at.ROWS) + ROW_BYTES * slot
    epoch = load_i64(tape + 8 * head.EPOCH)
    count = call_9(
        load_i64(path + 8 * at.READ),
        load_i64(path + 8 * at.INGEST),
        address,
        end,
        recv_ns,
        line,
        row,
        room,
        first,
        epoch,
    )
    store_64(path + 8 * at.FULL, 1 if count == room else 0)
    store_64(path + 8 * at.FIRST, first)
    store_64(path + 8 * at.COUNT, count)
    store_64(path + 8 * at.ATTENTION, at.NOTHING)
    if count > 0:
        size = ROW_BYTES * count
        after = first + count
        limit = load_i64(tape + 8 * head.LIMIT)
        if after <= limit and _write(load_i64(tape + 8 * head.DESCRIPTOR), row, size) == size:
            store_64(tape + 8 * head.NEXT_SEQUENCE, after)
            store_64(path + 8 * at.COMMITTED, 1)
            _announce(path, after)
            store_64(path + 8 * at.ATTENTION, _serve(path, row, count, first, epoch, 0, 0))
        else:
            store_64(path + 8 * at.COMMITTED, 0)
    return count


@kernel("int64(int64,int64,int64,int64,int64)", keep_lock=True)
def pump(path: Any, address: Any, end: Any, recv_ns: Any, line: Any) -> Any:
    """Take the frames in [address, end): read, append, serve. Returns the number of records.

    FIRST is the sequence of the first of them. With COMMITTED 0 the records stand sealed in the ring and
    nothing more was done: the tape's slow way has to bring the file in order, some of the bytes may be in it.
    """
    return _pull(path, address, end, recv_ns, line)


@helper
def _acknowledge(reader: Any) -> None:
    """Acknowledge now what was read, so that the next read does not do it before it returns.

    For short messages recv(2) sends an acknowledgement each time, or every second time where the mode of
    two-way connections is on (tcp_cleanup_rbuf in Linux): 0.8 us before anybody has the trade. An even number
    for TCP_QUICKACK sends it and keeps that mode; it ends when nothing was owed, so it is set again.
    """
    socket = load_i64(reader + 8 * at.READER_SOCKET)
    if socket >= 0:
        _setsockopt(socket, _TCP, _QUICKACK, reader + 8 * at.READER_ACK_NOW, 4)
        _setsockopt(socket, _TCP, _QUICKACK, reader + 8 * at.READER_ACK_LATER, 4)


@kernel("int64(int64,int64,int64)", keep_lock=True)
def take(reader: Any, n: Any, recv_ns: Any) -> Any:
    """A socket read brought `n` bytes: take what the arena of `reader` holds now.

    DONE when nothing is left to do and the arena was empty before, so that the next read goes where this
    one went. LOOK when Python has to go on, with READER_TAKEN 1 from the results of `pump`, with 0 from the
    start; the arena is as it was then, so that a sample (READER_SAMPLE_IN 0) is compared after it is served.
    """
    path = load_i64(reader + 8 * at.READER_PATH)
    before = load_i64(reader + 8 * at.READER_HAVE)
    have = before + n
    store_64(reader + 8 * at.READER_HAVE, have)
    store_64(reader + 8 * at.READER_RECV_NS, recv_ns)
    _add(reader + 8 * at.READER_READS, 1)
    _add(reader + 8 * at.READER_BYTES, n)
    _add(reader + 8 * at.READER_SAMPLE_IN, -1)
    store_64(reader + 8 * at.READER_TAKEN, 0)
    if load_i64(reader + 8 * at.READER_BLOCKED) | load_i64(path + 8 * at.STALLED) != 0:
        return at.LOOK
    base = load_i64(reader + 8 * at.READER_BASE)
    count = _pull(path, base, base + have, recv_ns, load_i64(reader + 8 * at.READER_LINE))
    store_64(reader + 8 * at.READER_TAKEN, 1)
    ingest = load_i64(path + 8 * at.INGEST)
    odd = load_i64(ingest + 8 * words.SIDE_OPCODE) | load_i64(ingest + 8 * words.PROTOCOL_ERROR)
    left = base + have - load_i64(ingest + 8 * words.POSITION)
    if count > 0:
        odd |= (1 - load_i64(path + 8 * at.COMMITTED)) | load_i64(path + 8 * at.ATTENTION)
    if odd | left != 0 or load_i64(reader + 8 * at.READER_SAMPLE_IN) == 0:
        return at.LOOK
    store_64(reader + 8 * at.READER_HAVE, 0)
    _acknowledge(reader)
    return at.LOOK if before != 0 else at.DONE
