"""Relations between bounds that the kernels and the exchange rely on."""

from tradeback.ingest.context import AGG_WINDOW_BYTES, AGG_WINDOW_IDS, STATE_BYTES, TRADE_WINDOW_BYTES
from tradeback.model import limits
from tradeback.model.symbols import SYMBOL_BYTES_MAX


def test_windows_are_rings_of_words() -> None:
    for size in (limits.SEEN_WINDOW_IDS, AGG_WINDOW_IDS):
        assert size & (size - 1) == 0
        assert size % 64 == 0
    assert (TRADE_WINDOW_BYTES, AGG_WINDOW_BYTES) == (limits.SEEN_WINDOW_IDS // 8, AGG_WINDOW_IDS // 8)
    assert STATE_BYTES % 8 == 0


def test_what_kernels_may_read_too_far_is_there() -> None:
    """Names are loaded in three words, decimals give up after 64 digits and their dot."""
    assert limits.READ_PADDING_BYTES >= SYMBOL_BYTES_MAX + 8
    assert limits.READ_PADDING_BYTES >= 32


def test_we_stay_within_what_the_exchange_allows() -> None:
    assert limits.CONTROL_MESSAGES_PER_SECOND < 5
    assert limits.CONTROL_BYTES_MAX < 4_096
    assert limits.CONTROL_NAMES_MAX <= 200
    assert limits.CONNECT_ATTEMPTS_PER_5_MIN < 300
    assert limits.REST_WEIGHT_PER_MINUTE < 6_000
    assert limits.STREAMS_PER_CONNECTION_MAX == 1_024
