"""A small grind in every run; `make fuzz N=5000000` for more."""

import random
from pathlib import Path

import pytest

from tests.exchange.harness import trade
from tests.fuzz.grind import grind
from tests.fuzz.mutate import PAYLOAD_MAX, WAYS, mutated
from tradeback.exchange import fallback


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_garbage_harms_no_neighbour(tmp_path: Path, seed: int) -> None:
    ground = grind(tmp_path, 16_384, seed)
    assert not ground.problems, f"python -m tests.fuzz --frames 1 --seed {seed}: {ground.problems[0]}"
    assert ground.frames == 16_384
    assert ground.good == 16_384 // 4
    assert ground.malformed > 1_000
    assert ground.by_slow_path > 100
    assert ground.broken_accepted > 100


async def test_the_check_sees_a_lost_neighbour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The grind would notice: the slow path brings one good trade under another id."""
    right = fallback.decode_event
    done = 0

    def wrong(event: object, symbols: object) -> object:
        nonlocal done
        rows, event_us = right(event, symbols)  # type: ignore[arg-type]
        done += 1
        if done == 50:
            rows["symbol_id"] = 1
        return rows, event_us

    monkeypatch.setattr(fallback, "decode_event", wrong)
    assert grind(tmp_path, 8_192, 4).problems


def test_mutations_differ_and_repeat() -> None:
    payload = trade(77)[4:]
    made = {mutated(payload, random.Random(seed)) for seed in range(500)}
    assert len(made) > 400
    assert mutated(payload, random.Random(5)) == mutated(payload, random.Random(5))
    for way in WAYS:
        changed = 0
        for seed in range(50):
            data = bytearray(payload)
            way(data, random.Random(seed))
            changed += bytes(data) != payload
            assert len(data[:PAYLOAD_MAX]) <= PAYLOAD_MAX
        assert changed > 25, way
