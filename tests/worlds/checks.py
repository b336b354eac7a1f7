"""What must hold in every world, whatever broke. Shares no arithmetic with tradeback: Decimal and dicts."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

import numpy as np

from tests.flow.replaying import all_rows, compare_with_replay, replay, replayed_bars, symbols_of
from tests.flow.watching import window
from tests.worlds.truth import Told, Trade, total
from tests.worlds.world import Broken, Story
from tradeback.model.record import (
    AGG,
    BUYER_MAKER,
    GAP,
    LATE,
    LINE_SHIFT,
    QUOTE,
    REPAIRED,
    STAND_IN,
    TRADE,
    Rows,
    count_intact,
    empty_rows,
)
from tradeback.model.symbols import Symbol
from tradeback.tape.reader import TapeReader

GRACE_S = 0.3
"""What left the exchange so shortly before a connection or the engine ended may have been on its way."""
RESOLUTIONS = ((0, 1_000_000), (1, 60_000_000))
"""(number of the resolution, its length in us) of the bars that are aggregated anew."""
EXPECTED_ERRORS: tuple[str, ...] = ()
"""Log lines of level error that a fault may cause."""
OPEN, UNREPAIRABLE = 1, 3


class Tape:
    """Everything on the tape of a world."""

    def __init__(self, story: Story) -> None:
        reader = TapeReader(story.folder / "tape")
        self.pieces = all_rows(reader)
        self.rows: Rows = np.concatenate([empty_rows(0), *(rows for _, _, rows in self.pieces)])
        self.first = self.pieces[0][1] if self.pieces else 1
        self.symbols: dict[str, Symbol] = symbols_of(story.folder)
        self.names = {symbol.id: name for name, symbol in self.symbols.items()}
        self.places = self.first + np.arange(len(self.rows))

    def of(self, name: str, kind: int) -> Rows:
        found: Rows = self.rows[
            (self.rows["symbol_id"] == self.symbols[name].id) & (self.rows["kind"] == kind)
        ]
        return found

    def singles(self, name: str) -> Rows:
        """The trades that are one trade each."""
        trades = self.of(name, TRADE)
        found: Rows = trades[trades["flags"] & STAND_IN == 0]
        return found

    def covered(self, name: str) -> dict[int, list[int]]:
        """Stand-ins: index among the symbol's trades -> the ids it stands for."""
        trades = self.of(name, TRADE)
        own = set(trades["id"][trades["flags"] & STAND_IN == 0].tolist())
        found: dict[int, list[int]] = {}
        for index in np.flatnonzero(trades["flags"] & STAND_IN).tolist():
            row = trades[index]
            found[index] = [
                number for number in range(int(row["ask"]), int(row["id"]) + 1) if number not in own
            ]
        return found

    def held(self, name: str) -> Counter[int]:
        """How often each trade id is on the tape, by itself or inside a stand-in."""
        counted = Counter(self.singles(name)["id"].tolist())
        for numbers in self.covered(name).values():
            counted.update(numbers)
        return counted

    def gaps(self, name: str) -> dict[tuple[int, int, int], int]:
        """(stream kind, first id, last id) of every gap -> its newest state."""
        return {
            (int(row["ask_quantity"]), int(row["id"]), int(row["ask"])): int(row["quantity"])
            for row in self.of(name, GAP)
        }


def check(story: Story, tape: Tape | None = None) -> None:
    """Broken names the first invariant that does not hold, with its context. `tape`: the story's own."""
    _logs(story)
    tape = tape or Tape(story)
    _order(tape)
    for name in tape.symbols:
        told = story.told.get(name, Told())
        _values(tape, name, told)
        _quotes_and_aggs(tape, name, told)
        _once(tape, name, told)
        _stand_ins(tape, name, told)
    _given(story, tape)
    _complete(story, tape)
    _feeds(story, tape)
    _bars(story, tape)


def _must(holds: bool, invariant: str, **context: Any) -> None:
    if not holds:
        words = "".join(f"\n  {name}: {value}" for name, value in context.items())
        raise Broken(invariant + words)


def _logs(story: Story) -> None:
    _must(not story.crashes, "nothing fails in a callback", crashes=story.crashes[:3])
    errors = [
        line for line in story.logs
        if line[0] in ("error", "critical") and not any(words in line[1] for words in EXPECTED_ERRORS)
    ]  # fmt: skip
    _must(not errors, "no errors are logged", first=errors[:2])


def _order(tape: Tape) -> None:
    epochs: list[int] = []
    following = tape.first
    for epoch, first, rows in tape.pieces:
        _must(first == following, "sequences follow each other", place=first, expected=following)
        _must(count_intact(rows, first, epoch) == len(rows), "every record is intact", first=first)
        if epoch not in epochs[-1:]:
            _must(epoch not in epochs, "an epoch is never used again", epoch=epoch)
            epochs.append(epoch)
        following += len(rows)


def _exact(value: float) -> Decimal:
    return Decimal(repr(float(value)))


def _values(tape: Tape, name: str, told: Told) -> None:
    """Every trade is one that happened, to the last digit; those that are not late are in order."""
    highest = 0
    for row in tape.singles(name):
        true, number = told.trades.get(int(row["id"])), int(row["id"])
        if true is None:
            raise Broken(f"every trade on the tape happened\n  {name}: {row}")
        same = (
            _exact(row["price"]) == Decimal(true.price)
            and _exact(row["quantity"]) == Decimal(true.quantity)
            and bool(row["flags"] & BUYER_MAKER) == true.maker
            and _same_time(row, true)
        )
        _must(same, "values are exact", symbol=name, tape=row, truth=true)
        if not row["flags"] & (LATE | REPAIRED):
            _must(number > highest, "trades are in order unless LATE", symbol=name, id=number, before=highest)
        highest = max(highest, number)


def _same_time(row: Any, true: Trade) -> bool:
    """REST gives milliseconds where the streams give microseconds."""
    if row["flags"] & REPAIRED:
        return int(row["exchange_us"]) // 1_000 == true.time_us // 1_000
    return int(row["exchange_us"]) == true.time_us


def _quotes_and_aggs(tape: Tape, name: str, told: Told) -> None:
    highest = 0
    for row in tape.of(name, QUOTE):
        true, number = told.quotes.get(int(row["id"])), int(row["id"])
        values = tuple(_exact(row[field]) for field in ("price", "quantity", "ask", "ask_quantity"))
        _must(
            true is not None and values == tuple(map(Decimal, true[1:])),
            "quotes are exact",
            tape=row,
            truth=true,
        )
        _must(number > highest, "quotes rise", symbol=name, id=number, before=highest)
        highest = number
    seen: set[int] = set()
    for row in tape.of(name, AGG):
        agg, number = told.aggs.get(int(row["id"])), int(row["id"])
        same = agg is not None and (
            _exact(row["price"]) == Decimal(agg.price)
            and _exact(row["quantity"]) == Decimal(agg.quantity)
            and (int(row["ask"]), int(row["ask_quantity"])) == (agg.first, agg.last)
        )
        _must(same, "aggregates are exact", tape=row, truth=agg)
        _must(number not in seen, "an aggregate is there once", symbol=name, id=number)
        seen.add(number)


def _once(tape: Tape, name: str, told: Told) -> None:
    doubled = [number for number, count in tape.held(name).items() if count > 1]
    rows = [row for row in tape.of(name, TRADE) if doubled and _covers(row, doubled[0])]
    _must(not doubled, "a trade is on the tape once", symbol=name, ids=doubled[:5], first=rows)


def _covers(row: Any, number: int) -> bool:
    return bool(row["id"] == number or (row["flags"] & STAND_IN and row["ask"] <= number <= row["id"]))


def _stand_ins(tape: Tape, name: str, told: Told) -> None:
    trades = tape.of(name, TRADE)
    for index, numbers in tape.covered(name).items():
        row = trades[index]
        missed = [told.trades[number] for number in numbers if number in told.trades]
        same = (
            len(missed) == len(numbers) == int(row["ask_quantity"])
            and {Decimal(one.price) for one in missed} == {_exact(row["price"])}
            and total(one.quantity for one in missed) == _exact(row["quantity"])
        )
        _must(same, "a stand-in is worth the trades it stands for", symbol=name, tape=row, truth=missed[:4])


def _given(story: Story, tape: Tape) -> None:
    """What arrived on any line is on the tape."""
    witness = story.witness
    assert witness is not None
    arrived: dict[str, dict[int, float]] = defaultdict(dict)
    for at_s, number, frames in witness.sent:
        end_s = witness.ends.get(number, float("inf"))
        if at_s > end_s - GRACE_S or any(0 <= stop_s - at_s < GRACE_S for stop_s in story.stops_s):
            continue
        for data in frames:
            kind, name, identifier = story.frames.get(data, ("", "", 0))
            if kind == "trade":
                arrived[name].setdefault(identifier, at_s)
    for name, numbers in arrived.items():
        held = tape.held(name)
        lost = [(number, at_s) for number, at_s in numbers.items() if not held[number]]
        _must(
            not lost, "what arrived on any line is on the tape", symbol=name, lost=len(lost),
            id_and_time=lost[:3], on_tape=len(held), stops=story.stops_s,
        )  # fmt: skip


def _complete(story: Story, tape: Tape) -> None:
    """Between the first trade and the last every one is there, or lies in a gap that REST could not fill.

    What comes after the last that was seen is not known to be missing: the market has ended.
    """
    for name, told in story.told.items():
        held = tape.held(name)
        if not held:
            continue
        gaps = tape.gaps(name)
        still = [key for key, state in gaps.items() if state == OPEN]
        _must(not still, "every gap is closed at the end", symbol=name, open=still[:3], gaps=gaps)
        ended = [key[1:] for key, state in gaps.items() if state == UNREPAIRABLE and key[0] == TRADE]
        missing = [number for number in told.trades if min(held) < number < max(held) and not held[number]]
        hidden = [number for number in missing if not any(first <= number <= last for first, last in ended)]
        _must(
            not hidden, "what is missing lies in a gap", symbol=name, ids=hidden[:5], count=len(hidden),
            on_tape=(min(held), max(held)), gaps=gaps,
        )  # fmt: skip
        could = [number for number in missing if not _is_nowhere(story, name, told.trades[number])]
        _must(not could, "what REST has is repaired", symbol=name, ids=could[:5], count=len(could), gaps=gaps)


def _is_nowhere(story: Story, name: str, trade: Trade) -> bool:
    """Is a trade missing in every page, by its time in us or in whole ms?"""
    assert story.witness is not None
    times = (trade.time_us, trade.time_us // 1_000 * 1_000)
    hides = story.witness.hides
    return any(hides("historicalTrades", name, trade.id, time_us, story.start_us) for time_us in times)


def _feeds(story: Story, tape: Tape) -> None:
    """A subscriber that keeps up sees the trades of the tape, each once, in its order."""
    ends = [*story.first_sequences[1:], 1 << 60]
    for seen in story.seen:
        seen.watcher.frames[:] = seen.watcher.frames[: seen.frames]
        first, end = story.first_sequences[seen.run], ends[seen.run]
        inside = (tape.places >= first) & (tape.places < end) & (tape.rows["kind"] == TRADE)
        rows = tape.rows[inside]
        for name, entries in seen.watcher.by_symbol().items():
            mine = rows[rows["symbol_id"] == tape.symbols[name].id]
            truth = list(zip(mine["price"].tolist(), mine["quantity"].tolist(), strict=True))
            _must(
                window(truth, entries) is not None, "a subscriber sees every trade of the tape once",
                symbol=name, run=seen.run, seen=len(entries), on_tape=len(truth),
                first=_differs(truth, entries),
            )  # fmt: skip


def _differs(truth: list[tuple[float, float]], seen: list[tuple[float, float]]) -> Any:
    """Where a subscriber's trades leave the tape's, counted from the end of both."""
    for back, (ours, theirs) in enumerate(zip(reversed(truth), reversed(seen), strict=False), 1):
        if ours != theirs:
            return f"{back} from the end: tape {ours}, subscriber {theirs}"
    return "the subscriber has more than the tape"


def _bars(story: Story, tape: Tape) -> None:
    """Bars are what the tape's trades make, in a replay and in the engine's store."""
    try:
        # The store has nothing of a symbol that never traded, the replay an empty bar.
        if all(len(tape.of(name, TRADE)) for name in tape.symbols):
            compare_with_replay(story.folder)
    except AssertionError as error:
        raise Broken(f"the store holds what a replay makes\n  {error}") from error
    if story.plan.history:
        return  # Seeds of the exchange's klines are in the bars.
    derived, drained = replay(story.folder)
    for name, symbol in tape.symbols.items():
        told = story.told.get(name, Told())
        for index, size_us in RESOLUTIONS:
            made = replayed_bars(derived, drained, symbol, index)
            expected = _aggregate(tape, name, told, size_us)
            _must(made.keys() == expected.keys(), "bars are where trades are", symbol=name,
                  differ=sorted(made.keys() ^ expected.keys())[:3])  # fmt: skip
            for slot, (low, high, volume, count) in expected.items():
                bar = made[slot]
                same = (bar.low, bar.high, bar.trade_count) == (float(low), float(high), count)
                same = same and bar.volume == float(volume)
                _must(
                    same, "bars add up", symbol=name, slot=slot, bar=bar, expected=(low, high, volume, count)
                )


def _aggregate(
    tape: Tape, name: str, told: Told, size_us: int
) -> dict[int, tuple[Decimal, Decimal, Decimal, int]]:
    """(low, high, volume, count) by start in seconds, of what is on the tape."""
    slots: dict[int, list[tuple[Decimal, Decimal, int]]] = defaultdict(list)
    for start_us, entry in _entries(tape, name, told):
        slots[start_us // size_us * size_us // 1_000_000].append(entry)
    return {
        slot: (
            min(price for price, _, _ in entries),
            max(price for price, _, _ in entries),
            sum((quantity for _, quantity, _ in entries), Decimal()),
            sum(count for _, _, count in entries),
        )
        for slot, entries in slots.items()
    }


def _entries(tape: Tape, name: str, told: Told) -> Iterator[tuple[int, tuple[Decimal, Decimal, int]]]:
    for row in tape.singles(name):
        true = told.trades[int(row["id"])]
        yield int(row["exchange_us"]), (Decimal(true.price), Decimal(true.quantity), 1)
    trades = tape.of(name, TRADE)
    for index, numbers in tape.covered(name).items():
        missed = [told.trades[number] for number in numbers]
        worth = total(one.quantity for one in missed)
        yield int(trades[index]["exchange_us"]), (Decimal(missed[0].price), worth, len(missed))


def lines_of(rows: Iterable[Any]) -> list[int]:
    """Which line brought each record, for whoever looks into a broken world."""
    return [int(row["flags"]) >> LINE_SHIFT for row in rows]
