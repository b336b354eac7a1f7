"""A real process, really killed with SIGKILL at random moments, its folder reopened each time."""

import os
import random
import signal
import struct
import subprocess
import sys
from pathlib import Path

from tests.tape.helpers import config, read_all
from tradeback.tape.reader import TapeReader
from tradeback.tape.writer import Tape

KILLS = int(os.environ.get("TRADEBACK_KILLS", "25"))
ROWS_PER_SEGMENT = 700
REPORT = struct.Struct("<IQQ")

WRITER = """
import os, struct, sys
from tests.tape.helpers import config, make_rows
from tradeback.tape.writer import Tape

folder, rows_per_segment, salt = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
tape = Tape.open(folder, config(rows_per_segment, hot_rows=4096, sync_interval_s=0.003))
report = struct.Struct("<IQQ")
rows = make_rows(4096, salt)
number = 0
while True:
    size = (number * number * 31 + salt) % (40, 300, 1000)[number % 3] + 1
    sequence = tape.append(rows[number % 3000 : number % 3000 + size])
    number += 1
    os.write(1, report.pack(tape.epoch, sequence, size))
"""


def run_and_kill(folder: Path, salt: int, dice: random.Random) -> list[tuple[int, int, int]]:
    """Let a writer work until it has reported some batches, kill it; (epoch, first, count) reported."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(ROWS_PER_SEGMENT), str(salt)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    with process:
        raw = process.stdout.read(REPORT.size * dice.randrange(1, 40))
        for _ in range(dice.randrange(2_000)):
            pass  # a moment that has nothing to do with the reports
        os.kill(process.pid, signal.SIGKILL)
        raw += process.stdout.read()
    return list(REPORT.iter_unpack(raw[: len(raw) // REPORT.size * REPORT.size]))


def test_kill_9_many_times(tmp_path: Path) -> None:
    """Whatever was reported as committed is there after each kill, and no name ever changes its record."""
    dice = random.Random(2)
    seen: dict[tuple[int, int], bytes] = {}
    batches = 0
    for salt in range(1, KILLS + 1):
        reported = run_and_kill(tmp_path, salt, dice)
        batches += len(reported)
        visible = read_all(TapeReader(tmp_path))
        for epoch, first, count in reported:
            missing = [at for at in range(first, first + count) if (epoch, at) not in visible]
            assert missing == [], f"kill {salt} lost records that commit had acknowledged"
        assert [name for name in seen if visible[name] != seen[name]] == []
        seen = visible
    with Tape.open(tmp_path, config(ROWS_PER_SEGMENT)) as tape:
        assert sorted(sequence for _, sequence in seen) == list(range(1, tape.next_sequence))
        assert {epoch for epoch, _ in seen} == {tape.epoch}, "a killed process alone begins no new epoch"
    assert batches >= KILLS
