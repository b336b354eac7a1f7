"""web/js/wire_v2.js in node: the golden vectors, and random frames of the Python encoder, decoded alike."""

import json
import os
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tradeback
from tests.wire.test_v2 import make_decoder, sealed
from tests.wire.v2_vectors import plain
from tests.wire.v2_world import DECODED, EPOCH, GRIDS, RECV_NS, market
from tradeback.model.record import GAP, REPAIRED, Rows
from tradeback.wire import v2_layout as at
from tradeback.wire.v2 import Decoder
from tradeback.wire.v2_encode import encode_rows
from tradeback.wire.v2_frame import WireError

MODULE = Path(tradeback.__file__).parent / "web" / "js" / "wire_v2.js"
VECTORS = json.loads((Path(__file__).parent.parent / "wire" / "vectors_v2.json").read_text("utf-8"))
UNSAFE = 10


def by_node(grids: Any, frames: list[bytes]) -> list[dict[str, Any]]:
    """What the JavaScript decoder says of each frame."""
    node = shutil.which("node")
    if node is None:
        if os.environ.get("CI"):
            pytest.fail("node is not installed")
        pytest.skip("node is not installed")
    asked = json.dumps({"grids": grids, "frames": [payload.hex() for payload in frames]})
    script = str(Path(__file__).parent / "decode_v2.mjs")
    done = subprocess.run(
        [node, script, str(MODULE)], input=asked, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def compare(found: dict[str, Any], meaning: dict[str, Any]) -> None:
    """JavaScript's frame is Python's; decimals as text are the units, and bits of floats are not given."""
    for kind in ("trades", "quotes", "gaps", "enigma"):
        assert len(found[kind]) == len(meaning[kind])
        for row, wanted in zip(found.pop(kind), meaning[kind], strict=True):
            decimals = {name: row.pop(name) for name in list(row) if name.endswith("_decimal")}
            for name, text in decimals.items():
                value = name.removesuffix("_decimal")
                units, digits = int(wanted[f"{value}_units"]), wanted[f"{value}_digits"]
                assert Decimal(text) == Decimal(units).scaleb(-digits)
            bits = [name for name in row if name.endswith("_units") and row[name] == "nan"]
            assert all(wanted[name.replace("_units", "_digits")] == at.DIGITS_BITS for name in bits)
            assert {name: value for name, value in row.items() if name not in bits} == {
                name: value for name, value in wanted.items() if name not in bits
            }
    kinds = ("trades", "quotes", "gaps", "enigma")
    assert {name: value for name, value in found.items() if name not in kinds} == {
        name: value for name, value in meaning.items() if name not in kinds
    }


def test_golden_vectors() -> None:
    vectors = VECTORS["frames"]
    found = by_node(VECTORS["grids"], [bytes.fromhex(vector["hex"]) for vector in vectors])
    for answer, vector in zip(found, vectors, strict=True):
        if "refused" in vector:
            assert vector["refused"] in answer["message"], vector["name"]
        else:
            compare(answer, vector["meaning"])


def random_rows(seed: int) -> Rows:
    """A market with values beside the grid, flags and gaps in it."""
    random = np.random.default_rng(seed)
    rows = market(random, 80)
    odd = random.random(len(rows)) < 0.1
    rows["price"][odd] = random.choice([0.1 + 0.2, float("nan"), float("inf"), -1.5, 1e300, 1e-9], odd.sum())
    rows["flags"][random.random(len(rows)) < 0.1] |= REPAIRED
    gaps = random.random(len(rows)) < 0.1
    rows["kind"][gaps], rows["ask"][gaps], rows["price"][gaps] = GAP, 1 << 40, 7
    rows["exchange_us"][gaps] = RECV_NS // 1000 - 1
    return rows


def test_random_frames_of_the_python_encoder() -> None:
    frames = [
        payload
        for seed in range(100)
        for payload in encode_rows(
            random_rows(seed), 1 << 45, epoch=EPOCH, grids=GRIDS, publish_ns=RECV_NS + seed * 10**7
        )
    ]
    decoder = make_decoder(True)
    for answer, payload in zip(by_node(dict(DECODED), frames), frames, strict=True):
        compare(answer, plain(decoder.decode(payload)))


def test_damaged_frames_are_refused_as_in_python() -> None:
    """Bytes changed behind a good CRC: the same entries, or the same reason; only JavaScript has UNSAFE."""
    random = np.random.default_rng(11)
    frames = []
    for seed in range(400):
        rows = random_rows(seed)[:8]
        payload = bytearray(encode_rows(rows, 9, epoch=EPOCH, grids=GRIDS)[0])
        for place in random.integers(at.HEADER_FIXED_BYTES, len(payload), 2):
            payload[place] = random.choice([0, 1, 127, 128, 255, int(random.integers(256))])
        frames.append(sealed(bytes(payload)) if seed % 8 else bytes(payload))
    decoder = make_decoder(True)
    refused = 0
    for answer, made in zip(by_node(dict(DECODED), frames), frames, strict=True):
        meaning, code = outcome(decoder, made)
        refused += code is not None
        if meaning is None:
            assert answer.get("code") in (code, UNSAFE)
        elif answer.get("code") != UNSAFE:
            compare(answer, meaning)
    assert 50 < refused < 400, "some can still be read"


def outcome(decoder: Decoder, payload: bytes) -> tuple[dict[str, Any] | None, int | None]:
    """What Python makes of it: the frame, or the code of the reason."""
    try:
        return plain(decoder.decode(payload)), None
    except WireError as error:
        return None, error.code
