"""Every bound with its unit, and the relations between them, asserted when the module is imported."""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# One socket read.
READ_BUFFER_BYTES: Final = 256 * KIB
"""Arena of one exchange connection. 16 KiB already reaches three quarters of the full speed."""
READ_BUFFER_BYTES_MAX: Final = 4 * MIB
"""An exchange message longer than this closes its line (1009)."""
READ_PADDING_BYTES: Final = 64
"""Readable bytes behind the arena, because kernels load eight at a time."""
BATCH_ROWS_MAX: Final = 1024
"""Records that one kernel call may append; a longer read takes several calls."""

# The exchange's own rules (binance.md section 3).
STREAMS_PER_CONNECTION_MAX: Final = 1_024
CONTROL_NAMES_MAX: Final = 200
CONTROL_BYTES_MAX: Final = 4_000
CONTROL_MESSAGES_PER_SECOND: Final = 4
"""The exchange disconnects above 5; pongs count too, so one is kept in reserve."""
CONNECT_ATTEMPTS_PER_5_MIN: Final = 250
"""The exchange allows 300 per address; others on the machine may need some."""
REST_WEIGHT_PER_MINUTE: Final = 5_000
"""The exchange allows 6,000 per address."""

# Dedup.
SEEN_WINDOW_IDS: Final = 4_096
"""Trade ids behind the newest for which it is known one by one whether they were seen."""

# The feed.
V1_ENTRIES_MAX: Final = 50
SYMBOLS_PER_REQUEST_MAX: Final = 1_024
CLIENT_MESSAGE_BYTES_MAX: Final = 64 * KIB
CLIENT_ERRORS_MAX: Final = 20
"""Bad requests after which a client is closed with 1008."""
CLIENT_REQUESTS_MAX: Final = 1_000
"""Requests of a client between two sweeps (a second); beyond them each is an error."""
SYMBOLS_PER_COST: Final = 16
"""So many symbols of a request count as one request more."""

# HTTP.
HEAD_BYTES_MAX: Final = 16 * KIB
URL_BYTES_MAX: Final = 8_000
"""aiohttp's own bound for a line, which holds for the later requests of a connection, is 8,190."""
HEADS_WAITING_MAX: Final = 4_096
"""Connections whose request has not come; beyond it the one that has taken longest goes."""
BODY_BYTES_MAX: Final = 64 * KIB
HEAD_SECONDS_MAX: Final = 10.0
BARS_PER_ANSWER_MAX: Final = 20_000
TICKS_PER_ANSWER_MAX: Final = 5_000

assert READ_BUFFER_BYTES <= READ_BUFFER_BYTES_MAX
assert SEEN_WINDOW_IDS & (SEEN_WINDOW_IDS - 1) == 0, "the window is a ring indexed by a mask"
assert CONTROL_MESSAGES_PER_SECOND < 5
assert CONTROL_BYTES_MAX < 4_096
