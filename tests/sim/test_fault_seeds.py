"""Seeded scripts: valid, over before their span ends, the same every time, and of every kind."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tradeback.sim.fault_seeds import fault_entries, seeded_faults
from tradeback.sim.faults import KINDS

NAMES = ["BTCUSDT", "币安人生USDT"]


@settings(deadline=None)
@given(st.integers(0, 2**40), st.floats(1.0, 2_000.0))
def test_any_seed_makes_a_valid_script_that_ends(seed: int, span_s: float) -> None:
    faults = seeded_faults(seed, span_s, NAMES)
    assert faults
    assert fault_entries(seed, span_s, NAMES) == fault_entries(seed, span_s, NAMES)
    for fault in faults:
        if fault.group in ("frames", "handshake", "rest"):
            assert fault.end_s <= span_s
        assert fault.at_s <= 0.8 * span_s + 0.001


def test_all_kinds_come_up() -> None:
    found = {fault.kind for seed in range(60) for fault in seeded_faults(seed, 60.0, NAMES)}
    assert found == set(KINDS)
