"""The symbol table: what is in it is found, and nothing else."""

import string
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeback.ingest.names import TOO_LONG, UNKNOWN, NameTable, find_name, name_words
from tradeback.kernel.jit import kernel

names = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters='"\\'), min_size=1, max_size=23
).filter(lambda name: len(name.encode()) <= 23)


@kernel("int64(int64,int64,int64)")
def symbol_id_at(address: int, slots: int, mask: int) -> Any:
    symbol_id, _ = find_name(address, slots, mask)
    return symbol_id


@kernel("int64(int64,int64,int64)")
def length_at(address: int, slots: int, mask: int) -> Any:
    _, stop = find_name(address, slots, mask)
    return stop - address


def find(table: NameTable, name: bytes, behind: bytes = b'",' + bytes(32)) -> int:
    memory = np.frombuffer(name + behind, np.uint8)
    address = int(memory.ctypes.data)
    found: int = symbol_id_at(address, table.address, table.mask)
    if found != TOO_LONG:
        assert length_at(address, table.address, table.mask) == len(name)
    return found


@settings(max_examples=200, deadline=None)
@given(st.lists(names, unique=True, max_size=80), st.lists(names, max_size=10), st.sampled_from([1, 4, 256]))
def test_every_name_is_found_and_no_other(known: list[str], others: list[str], capacity: int) -> None:
    table = NameTable(capacity)
    for symbol_id, name in enumerate(known, 1):
        table.add(name, symbol_id)
        table.add(name, symbol_id)  # again: changes nothing
    for symbol_id, name in enumerate(known, 1):
        assert find(table, name.encode()) == symbol_id
    for name in others:
        assert find(table, name.encode()) == (known.index(name) + 1 if name in known else UNKNOWN)
    assert table.mask + 1 >= 4 * len(known) or len(known) == 0


def test_thousands_of_names() -> None:
    known = [f"{letter}{number}USDT" for letter in string.ascii_uppercase for number in range(150)]
    table = NameTable()
    for symbol_id, name in enumerate(known, 1):
        table.add(name, symbol_id)
    assert [find(table, name.encode()) for name in known] == list(range(1, len(known) + 1))
    assert find(table, b"NOSUCHUSDT") == UNKNOWN
    assert table.mask & (table.mask + 1) == 0


@pytest.mark.parametrize("size", range(1, 24))
def test_names_that_begin_or_end_alike(size: int) -> None:
    table = NameTable()
    name = "ABCDEFGHIJKLMNOPQRSTUVWX"[:size]
    table.add(name, 7)
    assert find(table, name.encode()) == 7
    assert find(table, name.encode(), b'"' + b"\xff" * 40) == 7
    for other in (name + "Z", name[:-1], name + "\0", "\0" + name, name[:-1] + "\0", name.lower()):
        if len(other) < 24:
            assert find(table, other.encode()) == UNKNOWN


def test_names_of_24_bytes_and_more_do_not_fit() -> None:
    table = NameTable()
    assert find(table, b"X" * 23) == UNKNOWN
    assert find(table, b"X" * 24) == TOO_LONG
    assert find(table, b"X" * 80) == TOO_LONG
    with pytest.raises(ValueError, match="24 bytes"):
        table.add("X" * 24, 1)
    with pytest.raises(ValueError, match="24 bytes"):
        table.add("币" * 8, 1)
    with pytest.raises(ValueError, match="0 bytes"):
        table.add("", 1)


@pytest.mark.parametrize("name", ['A"', "A\\", "A\0", "A\n"])
def test_names_that_json_would_escape_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="JSON escapes"):
        NameTable().add(name, 1)


@pytest.mark.parametrize("symbol_id", [0, -1, 65_536])
def test_ids_that_are_none(symbol_id: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        NameTable().add("BTCUSDT", symbol_id)


def test_a_refused_name_leaves_the_table_as_it_was() -> None:
    table = NameTable(4)
    table.add("A", 1)
    with pytest.raises(ValueError, match="30 bytes"):
        table.add("X" * 30, 2)
    with pytest.raises(ValueError, match="already has id 1"):
        table.add("A", 2)
    for symbol_id in range(2, 60):  # grows several times
        table.add(f"S{symbol_id}", symbol_id)
    assert find(table, b"A") == 1
    assert find(table, b"S59") == 59


def test_words_are_the_bytes() -> None:
    assert name_words(b"A") == (65, 0, 0)
    assert name_words(bytes(range(97, 120))) == tuple(
        int.from_bytes(part, "little") for part in (b"abcdefgh", b"ijklmnop", b"qrstuvw\0")
    )
