"""Memory shared by the path's kernels and by Python around them: word offsets, no numba.

The path's own words are one int64 array. A station is an encoder of the feed: a kernel that turns
records into frames for groups of clients, and the table of those groups' sockets. What an encoder's
context must hold for the path to send what it made is the first part of `wire.v1_layout`.
"""

from typing import Final

# Settings: addresses of kernels (C calling convention) and of what they work on.
READ: Final = 0
"""ingest.read.read_frames; 0 in a process without exchange lines."""
INGEST: Final = 1
ROWS: Final = 2
"""Address of the tape's hot ring."""
HOT_ROWS: Final = 3
DERIVE: Final = 4
"""derive.row_kernel.apply_rows; 0 where nothing is derived."""
DERIVE_CONTEXT: Final = 5
STATIONS: Final = 6
"""How many there are."""
RESTS: Final = 7
"""Address of int64[...][REST_WORDS]: result, sockets that did not take everything."""
LATENCY_BOUNDS: Final = 8
LATENCY_BUCKETS: Final = 9
LATENCY_COUNTS: Final = 10
LATENCY_SUMS: Final = 11
TIMESPEC: Final = 12
"""Address of two words for clock_gettime."""
PUBLISHED: Final = 13
"""Address of a word that readers in other processes see: the sequence after the newest record; 0: none."""
WAKES: Final = 14
"""Address of int32[...]: eventfds of those readers."""
WAKE_COUNT: Final = 15

# Results of a call.
COMMITTED: Final = 16
"""1 when the records are with the operating system."""
FULL: Final = 17
"""1 when the kernel stopped because its stretch of the ring was full."""
ATTENTION: Final = 18
"""NOTHING, or why Python has to go on."""
AT_STATION: Final = 19
AT_ROW: Final = 20
"""Up to which record this station, or with DERIVE_SHORT the derived state, has been served."""
REST_COUNT: Final = 21
COUNT: Final = 22
"""How many records came of the last read."""
FIRST: Final = 23
"""Sequence of the first of them."""

# Counters.
TRADES: Final = 24
"""Trades published."""
ONE: Final = 25
"""Always 1: what is written to an eventfd."""

# What the reading kernels need besides.
TAPE: Final = 26
"""Address of the tape's own words, see `model.tape_words`; 0 in a process that does not write one."""
STALLED: Final = 27
"""1 while the tape refuses records: nothing may be read then."""

FIRST_STATION: Final = 32
STATION_WORDS: Final = 8
STATIONS_MAX: Final = 4
PATH_WORDS: Final = FIRST_STATION + STATION_WORDS * STATIONS_MAX

STATION_ENCODE: Final = 0
STATION_CONTEXT: Final = 1
STATION_TABLE: Final = 2
"""Address of int64[groups][TABLE_WORDS]."""
STATION_ENCODED: Final = 3
"""Counter: frames encoded."""
STATION_FRAMES: Final = 4
"""Counter: frames sent, all clients together."""
STATION_BYTES: Final = 5
STATION_VERSION: Final = 6
"""1 or 2. A version 2 encoder is told epoch, sequence and publish time of what it encodes."""
STATION_GROUPS: Final = 7
"""How many groups have clients. Without one version 2 encodes nothing; version 1 keeps prices anyhow."""

TABLE_FDS: Final = 0
"""Address of int32[...]: sockets that take bytes by send(2)."""
TABLE_PLAIN: Final = 1
"""How many of them."""
TABLE_OTHERS: Final = 2
"""How many clients Python writes to."""
TABLE_BATCHES: Final = 3
"""Counter: how many times something was sent to all of the group."""
TABLE_WORDS: Final = 4

REST_GROUP: Final = 0
REST_PLACE: Final = 1
"""Index in the group's sockets."""
REST_SENT: Final = 2
"""Bytes it took; -1: none, an error."""
REST_WORDS: Final = 3

NOTHING: Final = 0
GROW: Final = 1
"""The station's arena is too small for a single record."""
LEFT_OVER: Final = 2
"""Sockets did not take everything, or there are clients to whom Python writes."""
DERIVE_SHORT: Final = 3
"""The derived state's output ring is full."""

# A reader: the arena of one exchange connection.
READER_BASE: Final = 0
"""Address of the arena."""
READER_HAVE: Final = 1
"""Bytes in it that have not been taken."""
READER_LINE: Final = 2
READER_RECV_NS: Final = 3
"""When the newest of them were received."""
READER_READS: Final = 4
"""Counter."""
READER_BYTES: Final = 5
"""Counter: bytes read."""
READER_SAMPLE_IN: Final = 6
"""Reads until one is left to Python altogether."""
READER_BLOCKED: Final = 7
"""Not 0: Python is to look first."""
READER_TAKEN: Final = 8
"""1 when the last call has taken frames, 0 when it left everything to Python."""
READER_PATH: Final = 9
"""Address of the path's words."""
READER_SOCKET: Final = 10
"""Descriptor of a TCP socket that acknowledges after each read was served; -1: leave it to the system."""
READER_ACK_NOW: Final = 11
"""2, for TCP_QUICKACK: send what is owed, and stay in the mode that delays."""
READER_ACK_LATER: Final = 12
"""0, for TCP_QUICKACK."""
READER_WORDS: Final = 13

DONE: Final = 0
"""Every byte of a read is taken and served."""
LOOK: Final = 1
"""Python has to go on."""
