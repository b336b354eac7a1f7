from pathlib import Path

from benchmarks.harness.tape_files import rows_written, sums
from tradeback.model.config import TapeConfig
from tradeback.model.record import AGG, QUOTE, SEED_BAR, TRADE, empty_rows
from tradeback.tape.segment import HEADER_BYTES
from tradeback.tape.writer import Tape

ROWS = 500


def test_a_tape_is_counted_summed_and_verified_from_its_files(tmp_path: Path) -> None:
    rows = empty_rows(ROWS)
    rows["id"] = range(1, ROWS + 1)
    rows["kind"] = [(TRADE, QUOTE, AGG, SEED_BAR)[number % 4] for number in range(ROWS)]
    folder = tmp_path / "data" / "tape"
    with Tape.open(folder, TapeConfig(segment_bytes=64 * 128)) as tape:
        tape.append(rows)
        assert rows_written(tmp_path / "data") == ROWS
        got = sums(tmp_path / "data")
    assert (got.rows, got.intact) == (ROWS * 3 // 4, True)
    assert got.id_sum == sum(number for number in range(1, ROWS + 1) if (number - 1) % 4 != 3)

    broken = next(iter(sorted(folder.glob("*.tape"))))
    damaged = bytearray(broken.read_bytes())
    damaged[HEADER_BYTES + 20] ^= 1
    broken.write_bytes(damaged)
    assert not sums(tmp_path / "data").intact
