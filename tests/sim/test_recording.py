"""Recordings: frames byte for byte, in the order of receipt, aggregates derived, klines equal the trades."""

import gzip
import json
from decimal import Decimal
from pathlib import Path

import pytest

from tests.sim.tools import by_stream
from tradeback.sim.channels import Hub, Listener, frame
from tradeback.sim.recording import Recording, to_microseconds
from tradeback.sim.recording_files import parse_line, to_ns

TRADE = (
    '{"stream":"btcusdt@trade","data":{"e":"trade","E":%d,"s":"BTCUSDT","t":%d,"p":"%s","q":"0.00100000",'
    '"T":%d,"m":true,"M":true}}'
)
E_MS = 1_723_161_255_000


def write_recording(folder: Path) -> Path:
    """Two files of one session, then a later session; one gzipped, one with a REST body in it."""
    first = [
        (E_MS + 1, TRADE % (E_MS + 1, 10, "61000.10000000", E_MS)),
        (E_MS + 2, TRADE % (E_MS + 2, 11, "61000.10000000", E_MS)),
        (E_MS + 9, TRADE % (E_MS + 9, 12, "61000.20000000", E_MS + 8)),
    ]
    quote = '{"stream":"btcusdt@bookTicker","data":{"u":5,"s":"BTCUSDT","b":"1.00000000","B":"2.00000000",'
    quote += '"a":"3.00000000","A":"4.00000000"}}'
    later_ms = E_MS + 3_600_000
    with gzip.open(folder / "a.gz", "wt") as file:
        file.writelines(f"{time}000000 {text}\n" for time, text in first)
    (folder / "b.txt").write_text(
        f'{E_MS + 5}000000 {quote}\n{E_MS + 6}000000 {{"lastUpdateId":1,"bids":[],"asks":[]}}\n'
    )
    (folder / "c").write_text(f"{later_ms}000000 {TRADE % (later_ms, 13, '61000.30000000', later_ms)}\n")
    return folder


def replay(recording: Recording, streams: list[str], *, combined: bool, us: bool) -> list[bytes]:
    """All frames of `streams`, as fast as it goes, in chunks of odd sizes."""
    hub, frames = Hub(), list[bytes]()
    recording.attach(hub)
    recording.begin(0)
    for stream in streams:
        hub.subscribe(stream, 1, Listener(frames.append, combined, us))
    chunk = 1
    while (due := recording.next_us()) is not None:
        recording.advance(due, chunk)
        chunk = chunk % 700 + 13
    return frames


def test_frames_merge_by_receive_time_and_stay_byte_exact(tmp_path: Path) -> None:
    recording = Recording(write_recording(tmp_path))
    lines = []
    for name in ("a.gz", "b.txt", "c"):
        data = (tmp_path / name).read_bytes()
        lines += (gzip.decompress(data) if name.endswith("gz") else data).splitlines()
    wanted = sorted(line.split(b" ", 1) for line in lines if b"stream" in line)
    frames = replay(recording, ["btcusdt@trade", "btcusdt@bookTicker"], combined=True, us=False)
    assert frames == [frame(text) for _, text in wanted]


def test_aggregates_are_derived_and_close_when_nothing_follows(tmp_path: Path) -> None:
    recording = Recording(write_recording(tmp_path))
    frames = replay(recording, ["btcusdt@aggTrade"], combined=True, us=False)
    aggs = by_stream(frames)["btcusdt@aggTrade"]
    assert [(agg["a"], agg["f"], agg["l"], agg["q"]) for agg in aggs] == [
        (1, 10, 11, "0.00200000"),
        (2, 12, 12, "0.00100000"),
        (3, 13, 13, "0.00100000"),
    ]
    assert recording.books["BTCUSDT"].aggs.newest(9)[0].first_id == 10


def test_sessions_keep_their_own_clock_and_a_pattern_picks_files(tmp_path: Path) -> None:
    recording = Recording(write_recording(tmp_path), files="[ab]*")
    assert recording.begin(0) == E_MS * 1_000 + 1_000
    assert len(replay(recording, ["btcusdt@trade"], combined=True, us=False)) == 3


def test_what_a_rollover_has_recorded_twice_is_sent_once(tmp_path: Path) -> None:
    """Two connections of one line, the newer one ahead."""
    quote = '{"stream":"btcusdt@bookTicker","data":{"u":%d,"s":"BTCUSDT","b":"1.00000000","B":"2.00000000",'
    quote += '"a":"3.00000000","A":"4.00000000"}}'
    agg = '{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":%d,"s":"BTCUSDT","a":%d,'
    agg += '"p":"61000.10000000","q":"0.00100000","f":%d,"l":%d,"T":%d,"m":true,"M":true}}'
    numbers = [1, 2, 3, 2, 4, 3, 4, 5, 5, 6]
    lines = []
    for place, number in enumerate(numbers):
        time = E_MS + 10 * place
        lines.append((time, TRADE % (E_MS + number, 100 + number, "61000.10000000", E_MS + number)))
        lines.append((time + 1, agg % (E_MS + number, number, 100 + number, 100 + number, E_MS + number)))
        lines.append((time + 2, quote % (7 * number)))
    (tmp_path / "a").write_text("".join(f"{time}000000 {text}\n" for time, text in lines))
    recording = Recording(tmp_path)
    names = ["btcusdt@trade", "btcusdt@aggTrade", "btcusdt@bookTicker"]
    sent = by_stream(replay(recording, names, combined=True, us=False))
    assert [one["t"] for one in sent["btcusdt@trade"]] == [101, 102, 103, 104, 105, 106]
    assert [one["a"] for one in sent["btcusdt@aggTrade"]] == [1, 2, 3, 4, 5, 6]
    assert [one["u"] for one in sent["btcusdt@bookTicker"]] == [7, 14, 21, 28, 35, 42]
    book = recording.books["BTCUSDT"]
    assert [one.id for one in book.trades.read(0, 99)] == [101, 102, 103, 104, 105, 106]
    assert [one.id for one in book.aggs.read(0, 99)] == [1, 2, 3, 4, 5, 6]


def test_folders_without_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no files"):
        Recording(tmp_path)
    (tmp_path / "x").write_text("hello\n")
    with pytest.raises(ValueError, match="no recorded"):
        Recording(tmp_path)
    with pytest.raises(ValueError, match="no folder"):
        Recording(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        (b"1633998512.0633569:", 1_633_998_512_063_356_900),
        (b"1723161255208", 1_723_161_255_208_000_000),
        (b"1680652800004107", 1_680_652_800_004_107_000),
        (b"1723161253937085768", 1_723_161_253_937_085_768),
        (b"wss://x", None),
    ],
)
def test_receive_times_of_every_unit(text: bytes, ns: int | None) -> None:
    assert to_ns(text) == ns


def test_lines_without_a_frame_are_passed_over() -> None:
    for line in (
        b"",
        b"12",
        b'1723161253937085768 {"lastUpdateId":1}',
        b'x {"stream":"a","data":{}}',
        b'1 {"stream":"a',
    ):
        assert parse_line(line) is None


def test_microseconds_touch_times_only() -> None:
    payload = b'{"e":"trade","E":1723161255343,"s":"X","t":1723161255343,"p":"1723161255343",'
    payload += b'"T":1723161255342,"m":true}'
    expected = payload.replace(b'"E":1723161255343', b'"E":1723161255343000').replace(b"5342", b"5342000")
    assert to_microseconds(payload) == expected


@pytest.mark.parametrize("us", [False, True])
def test_the_real_recording_is_replayed_byte_for_byte(shared_folder: Path, us: bool) -> None:
    path = shared_folder / "data/binance/spot_ws/btcusdt_20240809_part1.gz"
    with gzip.open(path) as file:
        lines = [line.rstrip(b"\n").split(b" ", 1)[1] for line in file]
    wanted = [line for line in lines if line.startswith(b'{"stream"')]
    streams = ["btcusdt@trade", "btcusdt@bookTicker", "btcusdt@depth@100ms"]
    frames = replay(Recording(path), streams, combined=True, us=us)
    assert len(frames) == len(wanted) > 20_000
    for sent, recorded in zip(frames, wanted, strict=True):
        text = to_microseconds(recorded) if us else recorded
        assert sent == frame(text)
        if us:
            data, original = json.loads(text)["data"], json.loads(recorded)["data"]
            assert data == {key: value * 1_000 if key in "ET" else value for key, value in original.items()}
    raw = replay(Recording(path), ["btcusdt@trade"], combined=False, us=False)
    trades = [line for line in wanted if b"@trade" in line]
    assert raw == [frame(line[len(b'{"stream":"btcusdt@trade","data":') : -1]) for line in trades]


def test_klines_and_rest_of_the_real_recording_equal_its_trades(shared_folder: Path) -> None:
    recording = Recording(shared_folder / "data/binance/spot_ws", files="*2024*")
    frames = replay(
        recording, ["btcusdt@trade", "ethusdt@trade", "btcusdt@aggTrade"], combined=True, us=False
    )
    streams = by_stream(frames)
    for name in ("btcusdt", "ethusdt"):
        trades, book = streams[f"{name}@trade"], recording.books[name.upper()]
        assert [trade["t"] for trade in trades] == list(range(trades[0]["t"], trades[0]["t"] + len(trades)))
        kept = book.trades.read(0, 10**9)
        assert [
            (one.id, Decimal(one.price).scaleb(-8), Decimal(one.quantity).scaleb(-8)) for one in kept
        ] == [(one["t"], Decimal(one["p"]), Decimal(one["q"])) for one in trades]
        start_s = trades[0]["T"] // 1_000 + 1
        rows = list(book.chart.rows("1s", start_s, trades[-1]["T"] // 1_000 + 1))
        for at_s, _, bar in rows:
            inside = [trade for trade in trades if trade["T"] // 1_000 == at_s]
            assert bar.trades == len(inside)
            assert Decimal(bar.volume).scaleb(-8) == sum(Decimal(trade["q"]) for trade in inside)
            if inside:
                assert bar.first_id == inside[0]["t"]
                assert Decimal(bar.close).scaleb(-8) == Decimal(inside[-1]["p"])
        assert len(rows) > 400
    expected = streams["btcusdt@trade"][0]["t"]
    for agg in streams["btcusdt@aggTrade"]:
        assert agg["f"] == expected
        expected = agg["l"] + 1
    assert expected == streams["btcusdt@trade"][-1]["t"] + 1


def test_cryptofeed_files_play_too(shared_folder: Path) -> None:
    recording = Recording(shared_folder / "data/binance/cryptofeed", files="*.ws.*")
    assert list(recording.books) == ["NKNUSDT", "BLZETH", "LRCBTC", "RUNEEUR"]
    assert recording.owns("nknusdt@kline_1m")
    frames = replay(recording, ["nknusdt@aggTrade", "nknusdt@bookTicker"], combined=True, us=False)
    assert len(by_stream(frames)["nknusdt@aggTrade"]) == recording.streams["nknusdt@aggTrade"]
    assert recording.books["NKNUSDT"].instrument.tick_size == "0.00010000"
