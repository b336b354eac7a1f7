"""Numbers as the kernel writes them, against Python's own."""

from decimal import Decimal
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tradeback.kernel.jit import kernel
from tradeback.wire.influx_kernel import put_decimal, put_time, put_whole

PAIRS = np.frombuffer("".join(f"{number:02}" for number in range(100)).encode(), np.uint8)
_pairs = int(PAIRS.ctypes.data)
_out = np.zeros(64, np.uint8)


@kernel("int64(float64,int64,int64)")
def decimal(value: Any, out: Any, pairs: Any) -> Any:
    return put_decimal(value, out, pairs)


@kernel("int64(int64,int64,int64)")
def whole(value: Any, out: Any, pairs: Any) -> Any:
    return put_whole(value, out, pairs)


@kernel("int64(int64,int64,int64,int64,int64)")
def moment(us: Any, trade_id: Any, run_first: Any, out: Any, pairs: Any) -> Any:
    return put_time(us, trade_id, run_first, out, pairs)


def written(end: int) -> str:
    return _out[: end - int(_out.ctypes.data)].tobytes().decode()


def decimal_text(value: float) -> str | None:
    end = decimal(value, int(_out.ctypes.data), _pairs)
    return written(end) if end else None


@settings(deadline=None, max_examples=500)
@given(st.integers(0, 10**15 - 1), st.integers(0, 8))
@example(8_589_934_593, 2)
def test_what_a_decimal_string_said_is_written_again(steps: int, places: int) -> None:
    """Of up to fifteen digits, which a float64 holds apart."""
    said = Decimal(steps).scaleb(-places)
    text = decimal_text(float(said))
    if text is None:  # too many digits for eight places, and for two or five it has too many places
        held = 5 if said < 10**10 else 2
        assert said >= 10**7
        assert said >= 10**13 or said != round(said, held)
        return
    assert text == (format(said, "f").rstrip("0").rstrip(".") if places else str(steps))


@settings(deadline=None, max_examples=500)
@given(st.floats(allow_nan=False, allow_infinity=False))
@example(9_007_199_254_740_991.0)
@example(90_071_992.54740992)
@example(0.1 + 0.2)
@example(5e-324)
@example(-0.00000001)
def test_whatever_is_written_reads_back_the_same(value: float) -> None:
    text = decimal_text(value)
    if text is not None:
        assert float(text) == value
        assert "e" not in text
        assert len(text) <= 18


@settings(deadline=None)
@given(st.integers(-(1 << 62), (1 << 63) - 1))
@example(0)
@example(99)
@example(10**18 - 1)
@example(10**18)
@example((1 << 63) - 1)
def test_whole_numbers(value: int) -> None:
    assert written(whole(value, int(_out.ctypes.data), _pairs)) == str(value)


@settings(deadline=None)
@given(
    st.integers(-(10**15), (1 << 63) // 1_000 + 10**6), st.integers(-(10**9), 1 << 50), st.integers(0, 5_000)
)
@example((1 << 63) // 1_000, 999, 0)
@example(0, 7, 0)
@example(-1, 1_000, 1_000)
def test_times_also_beyond_what_a_server_takes(us: int, trade_id: int, since_first: int) -> None:
    end = moment(us, trade_id, trade_id - since_first, int(_out.ctypes.data), _pairs)
    assert written(end) == str(us * 1_000 + trade_id % 1_000 + since_first // 1_000 * 1_000)
