"""Line protocol: tags as the library writes them, the line of a position."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from influxdb_client.client.write.point import Point

from tradeback.stores.influx_lines import body_of, position_line, tag


def test_what_cannot_be_a_tag_is_refused() -> None:
    for text in ("", "a\nb", "a\\"):
        with pytest.raises(ValueError, match="cannot be a tag"):
            tag(text)


def test_a_body_leaves_out_what_has_no_line() -> None:
    assert body_of(["a x=1 1", "", "b x=2 2"]) == b"a x=1 1\nb x=2 2"


@settings(deadline=None)
@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=12))
def test_tags_are_those_of_the_library(text: str) -> None:
    if not text.isprintable() or text.endswith("\\"):
        return
    point: Any = Point("m")  # type: ignore[no-untyped-call]
    line = point.tag("symbol", text).field("x", 1).time(1).to_line_protocol()
    assert line == f"m,symbol={tag(text)} x=1i 1"


def test_positions() -> None:
    assert position_line("trades", 7, 9, 5) == "tradeback_position,sink=trades epoch=7i,sequence=9i 5"
