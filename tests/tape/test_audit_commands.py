"""`tradeback tape info|verify|export`, run as the command line runs them."""

import csv
import io
import json
import sqlite3
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.tape.helpers import START_US, config, flip, kill, make_rows, newest_file
from tradeback.cli.main import main
from tradeback.model.record import KIND_NAMES, TRADE
from tradeback.tape.export import COLUMNS, flag_text
from tradeback.tape.index import build_index, write_index
from tradeback.tape.segment import HEADER_BYTES, list_segments, offset_of
from tradeback.tape.writer import Tape

COUNT = 47


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner(env={"DATA_DIR": "", "COLUMNS": "200", **(env or {})}).invoke(main, ["tape", *arguments])


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A tape of 47 records in five segments, and a registry that names three of five symbols."""
    with Tape.open(tmp_path / "tape", config()) as tape:
        tape.append(make_rows(COUNT))
    with sqlite3.connect(tmp_path / "registry.sqlite") as connection:
        connection.execute("CREATE TABLE symbolsmap(id INTEGER PRIMARY KEY, symbol TEXT)")
        connection.executemany(
            "INSERT INTO symbolsmap VALUES (?, ?)", [(1, "BTCUSDT"), (2, "ETHUSDT"), (3, "币安人生USDT")]
        )
    connection.close()
    return tmp_path


@pytest.mark.parametrize("command", [["info"], ["verify"], ["export", "-o", "x"]])
def test_no_tape(tmp_path: Path, command: list[str]) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        found = run(*command, "--data-dir", str(folder))
        assert found.exit_code == 2
        assert found.stderr.count("\n") == 1
        assert f"no tape in {folder / 'tape'}" in found.stderr
        assert "tradeback run" in found.stderr


def test_info_json(data_dir: Path) -> None:
    found = run("info", "--json", env={"DATA_DIR": str(data_dir)})
    assert found.exit_code == 0
    told = json.loads(found.stdout)
    rows = make_rows(COUNT)
    assert (told["oldest_sequence"], told["next_sequence"]) == (1, COUNT + 1)
    assert told["ended_cleanly"] is True
    assert told["bytes"] == 5 * HEADER_BYTES + 64 * COUNT
    assert (told["recv_ns_min"], told["recv_ns_max"]) == (rows["recv_ns"].min(), rows["recv_ns"].max())
    assert told["records"] == {
        KIND_NAMES[kind]: (rows["kind"] == kind).sum() for kind in sorted({*rows["kind"].tolist()})
    }
    assert [each["records"] for each in told["segments"]] == [10, 10, 10, 10, 7]
    assert len(told["epochs"]) == 1
    assert told["cut_files"] == []


def test_info_as_a_table(data_dir: Path) -> None:
    found = run("info", "--data-dir", str(data_dir))
    assert found.exit_code == 0
    assert "47 (1 to 47)" in found.stdout
    assert newest_file(data_dir / "tape").name in found.stdout
    assert "2023-11-14" in found.stdout


def test_info_and_verify_of_an_empty_tape(tmp_path: Path) -> None:
    Tape.open(tmp_path / "tape", config()).close()
    found = run("info", "--data-dir", str(tmp_path))
    assert found.exit_code == 0
    assert "none" in found.stdout
    assert json.loads(run("info", "--json", "--data-dir", str(tmp_path)).stdout)["recv_ns_min"] is None
    assert run("verify", "--data-dir", str(tmp_path)).stdout == "good: the tape is empty\n"


def test_verify_a_good_tape(data_dir: Path) -> None:
    found = run("verify", "--data-dir", str(data_dir))
    assert (found.exit_code, found.stdout, found.stderr) == (0, "good: records 1 to 47 in 5 segments\n", "")


def test_verify_a_killed_tape_and_one_being_written(tmp_path: Path) -> None:
    """A partial record at the end is what a kill leaves, nothing to complain of."""
    tape = Tape.open(tmp_path / "tape", config())
    tape.append(make_rows(COUNT))
    assert run("verify", "--data-dir", str(tmp_path)).exit_code == 0
    kill(tape)
    with newest_file(tmp_path / "tape").open("ab") as file:
        file.write(b"half a record")
    assert run("verify", "--data-dir", str(tmp_path)).exit_code == 0


@pytest.mark.parametrize("place", [0, 2, 4])
def test_verify_names_the_first_bad_record(data_dir: Path, place: int) -> None:
    segment = list_segments(data_dir / "tape")[place]
    flip(segment.path, offset_of(3) + 17)
    flip(segment.path, offset_of(5) + 17)
    found = run("verify", "--data-dir", str(data_dir))
    assert found.exit_code == 1
    assert found.stderr == (
        f"record {10 * place + 4} fails its checksum: {segment.path.name} at byte {offset_of(3)}; "
        "the 3 records before it in this file are good\n"
    )


def test_verify_finds_holes_headers_and_indexes(data_dir: Path) -> None:
    segments = list_segments(data_dir / "tape")
    for segment in segments[:-1]:
        write_index(segment, build_index(segment))
    assert run("verify", "--data-dir", str(data_dir)).exit_code == 0
    flip(segments[3].index_path, 140)
    flip(segments[4].path, 16)
    segments[1].path.unlink()
    found = run("verify", "--data-dir", str(data_dir))
    assert found.exit_code == 1
    assert found.stderr.splitlines() == [
        f"{segments[0].path.name} ends with record 10, but the next file begins with 21",
        f"{segments[3].index_path.name} does not fit its segment: remove it, "
        "the writer makes it anew at its next start",
        f"{segments[4].path.name} has a damaged header: its records cannot be read",
    ]
    told = json.loads(run("info", "--json", "--data-dir", str(data_dir)).stdout)
    assert [each["records"] for each in told["segments"]] == [10, 10, 10, 0]
    assert [each["header_good"] for each in told["segments"]] == [True, True, True, False]


def test_verify_finds_an_index_that_is_whole_but_wrong(data_dir: Path) -> None:
    """Its own crc is good, its content belongs to other records."""
    first, second, *_ = list_segments(data_dir / "tape")
    write_index(first, build_index(second))
    found = run("verify", "--data-dir", str(data_dir))
    assert found.exit_code == 1
    assert f"{first.index_path.name} does not fit" in found.stderr


def exported(data_dir: Path, *arguments: str) -> list[dict[str, str]]:
    found = run("export", "--data-dir", str(data_dir), "-o", "-", *arguments)
    assert found.exit_code == 0, found.output
    return list(csv.DictReader(io.StringIO(found.stdout)))


def as_text(sequence: int, epoch: int, row: Any) -> dict[str, str]:
    """One record as the export should show it."""
    names = {1: "BTCUSDT", 2: "ETHUSDT", 3: "币安人生USDT"}
    values = (
        sequence, epoch, KIND_NAMES[int(row["kind"])],
        names.get(int(row["symbol_id"]), str(row["symbol_id"])),
        row["exchange_us"], row["recv_ns"], row["id"],
        *(
            format(Decimal(repr(float(row[name]))).normalize(), "f")
            for name in ("price", "quantity", "ask", "ask_quantity")
        ),
        ("A", "B", "rest", "local")[row["flags"] >> 6], flag_text(int(row["flags"])),
    )  # fmt: skip
    return dict(zip(COLUMNS, map(str, values), strict=True))


def test_export_csv(data_dir: Path) -> None:
    epoch = list_segments(data_dir / "tape")[0].epoch
    wanted = [as_text(at, epoch, row) for at, row in enumerate(make_rows(COUNT), 1)]
    assert exported(data_dir) == wanted
    output = data_dir / "out.csv"
    found = run("export", "--data-dir", str(data_dir), "-o", str(output))
    assert (found.exit_code, found.stderr) == (0, f"47 records written to {output}\n")
    assert list(csv.DictReader(io.StringIO(output.read_text(encoding="utf-8")))) == wanted
    assert not list(data_dir.glob("*.part"))


def test_flag_names() -> None:
    assert flag_text(0) == flag_text(3 << 6) == ""
    assert flag_text(0b1111) == "buyer_maker+repaired+stand_in+late"


def test_export_selects(data_dir: Path) -> None:
    everything = exported(data_dir)
    assert exported(data_dir, "--symbol", "ethusdt") == [r for r in everything if r["symbol"] == "ETHUSDT"]
    assert exported(data_dir, "--symbol", "币安人生USDT", "--symbol", "4") == [
        row for row in everything if row["symbol"] in ("币安人生USDT", "4")
    ]
    assert exported(data_dir, "--kind", "trade", "--kind", "aggtrade") == [
        row for row in everything if row["kind"] in ("trade", "aggTrade")
    ]


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2023-11-14T22:13:20.010", "2023-11-14T22:13:20.030"),
        ("2023-11-14T23:13:20.010+01:00", "2023-11-14T22:13:20.030Z"),
        ("1700000000.010", "1700000000.03"),
    ],
)
def test_export_between_times(data_dir: Path, start: str, end: str) -> None:
    """From the tenth millisecond on, up to but without the thirtieth."""
    rows = make_rows(COUNT)
    wanted = [
        str(row["id"])
        for row in rows
        if row["kind"] == TRADE and START_US + 10_000 <= row["exchange_us"] < START_US + 30_000
    ]
    assert [
        row["id"] for row in exported(data_dir, "--kind", "trade", "--from", start, "--to", end)
    ] == wanted
    assert wanted


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--symbol", "NOPE"], "BTCUSDT, ETHUSDT"),
        (["--symbol", "70000"], "unknown symbol"),
        (["--kind", "nope"], "trade, quote, aggTrade"),
        (["--from", "yesterday"], "ISO 8601"),
        (["--format", "parquet"], "cannot be streamed"),
        (["--format", "xml"], "csv"),
    ],
)
def test_wrong_usage(data_dir: Path, arguments: list[str], says: str) -> None:
    found = run("export", "--data-dir", str(data_dir), "-o", "-", *arguments)
    assert found.exit_code == 2
    assert says in found.stderr


def test_symbols_by_id_without_a_registry(data_dir: Path) -> None:
    (data_dir / "registry.sqlite").write_bytes(b"this is no database, and long enough to be one" * 9)
    assert {row["symbol"] for row in exported(data_dir, "--symbol", "2")} == {"2"}
    (data_dir / "registry.sqlite").unlink()
    found = run("export", "--data-dir", str(data_dir), "-o", "-", "--symbol", "BTCUSDT")
    assert found.exit_code == 2
    assert "no registry here" in found.stderr


def test_an_output_that_cannot_be_written(data_dir: Path) -> None:
    found = run("export", "--data-dir", str(data_dir), "-o", str(data_dir / "none" / "x.csv"))
    assert found.exit_code == 2
    assert "cannot be written (No such file or directory)" in found.stderr


def test_export_parquet(data_dir: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an optional extra")
    output = data_dir / "out.parquet"
    assert run("export", "--data-dir", str(data_dir), "--format", "parquet", "-o", str(output)).exit_code == 0
    found = parquet.read_table(output).to_pylist()
    wanted = exported(data_dir)
    for row in wanted:
        row.update({name: str(float(row[name])) for name in ("price", "quantity", "ask", "ask_quantity")})
    assert [{name: str(value) for name, value in row.items()} for row in found] == wanted


def test_parquet_without_pyarrow(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    output = data_dir / "out.parquet"
    found = run("export", "--data-dir", str(data_dir), "--format", "parquet", "-o", str(output))
    assert found.exit_code == 2
    assert "pip install 'tradeback[parquet]'" in found.stderr
    assert not output.exists()
