"""docs/wire.md specifies version 2: its example is a golden vector, its numbers are those of the code."""

import json
import re
from pathlib import Path

from tradeback.wire import v2_layout as at

CHECKOUT = Path(__file__).parents[2]
TEXT = (CHECKOUT / "docs" / "wire.md").read_text("utf-8")
VECTORS = json.loads((Path(__file__).parent / "vectors_v2.json").read_text("utf-8"))["frames"]


def test_the_example_is_a_golden_vector() -> None:
    section = TEXT.partition("## Version 2: one frame")[2].partition("\n## ")[0]
    named = re.search(r'The golden vector "(.+?)": .* in (\d+) bytes', section)
    assert named is not None
    (vector,) = (vector for vector in VECTORS if vector["name"] == named[1])
    (example,) = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    shown = "".join(line.split("  ")[0] for line in example.splitlines()).replace(" ", "")
    assert shown == vector["hex"]
    assert len(shown) == 2 * int(named[2])


def test_kinds_and_bounds_are_those_of_the_code() -> None:
    for text in (
        f"{at.HEADER_FIXED_BYTES + 3} to {at.FRAME_BYTES_MAX:,} bytes",
        f"0x{at.TAG_GAP:02x} is a gap, 0x{at.TAG_ENIGMA:02x} Enigma",
        f"of {at.REPAIRED}, {at.STAND_IN}, {at.LATE}, {at.SNAPSHOT}, {at.OFF_GRID})",
        f"of {at.REPAIRED}, {at.LATE}, {at.SNAPSHOT}, {at.CONFLATED}, {at.OFF_GRID})",
        f"0 to 2^{at.UNITS_LIMIT.bit_length() - 1} - 1. The precisions",
        f"0 to {at.DIGITS_MAX}, then a varint",
    ):
        assert text in TEXT, text
