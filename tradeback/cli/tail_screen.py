"""How `tradeback tail` looks: the facts as lines of text for any width, the names those of the page."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from rich.text import Text

from tradeback.cli.numbers import UNKNOWN, clock, compact, duration, fixed, percent, whole
from tradeback.cli.tail_facts import LINES, Facts, SymbolFacts
from tradeback.client.stats import Between, Hop, first_share, line_state

BETWEEN: Final = "   "
"""Between two cells of a line."""
STATE_STYLES: Final = {
    "ok": "green",
    "degraded": "yellow",
    "starting": "yellow",
    "down": "red",
    "none": "dim",
}
DIRECTION_STYLES: Final = {1: "green", -1: "red"}
MORE: Final = "{} more, quieter"
ALL_LEVELS_MAX: Final = 3
"""Below the table of at most so many symbols stand all seven levels of each."""


def screen(facts: Facts, width: int, height: int, now_ms: float) -> list[Text]:
    """The status: at most `height` lines of at most `width` cells; what is cut says so."""
    lines = [head(facts, now_ms), *flow(strip(facts, now_ms), width)]
    left = max(1, height - len(lines))
    stale = facts.is_stale(now_ms)
    rows = facts.busiest(max(1, left))
    drawn = table(rows, width, stale) if len(rows) > 1 else None
    if drawn is None:
        lines += _stacked(facts, rows, width, left, stale)
    else:
        lines += _tabled(facts, rows, drawn, width, left)
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines[:height]


def _stacked(facts: Facts, rows: Sequence[SymbolFacts], width: int, left: int, stale: bool) -> list[Text]:
    """Each symbol in lines of its own; all that fit, and all seven levels of each where there is room."""
    blocks = [flow([*symbol_cells(row, stale), *beside_cells(row)], width, "  ") for row in rows]
    shown = next((count for count in range(len(rows), 0, -1) if _fits(blocks[:count], facts, left)), 1)
    blocks = blocks[:shown]
    for place, row in enumerate(rows[:shown]):
        whole_of = [*flow(symbol_cells(row, stale), width, "  "), *flow(level_cells(row), width, "  ")]
        grown = [*blocks[:place], whole_of, *blocks[place + 1 :]]
        if row.fib and _fits(grown, facts, left):
            blocks = grown
    return [line for block in blocks for line in block] + _more(len(facts.rows) - shown)


def _fits(blocks: Sequence[Sequence[Text]], facts: Facts, left: int) -> bool:
    return sum(map(len, blocks)) + (len(blocks) < len(facts.rows)) <= left


def _tabled(
    facts: Facts, rows: Sequence[SymbolFacts], drawn: list[Text], width: int, left: int
) -> list[Text]:
    """A table, its head first; all rows that fit."""
    room = left - 1
    shown = len(rows) if len(facts.rows) <= room else max(1, room - 1)
    found = drawn[: 1 + shown] + _more(len(facts.rows) - shown)
    if len(facts.rows) <= ALL_LEVELS_MAX:
        for row in rows:
            name = Text(row.symbol.symbol, style="bold")
            levels = flow([name, *level_cells(row)], width, indent="  ")
            if row.fib and len(found) + len(levels) <= left:
                found += levels
    return found


def _more(count: int) -> list[Text]:
    return [Text(MORE.format(count), style="dim")] if count > 0 else []


def flow(cells: Iterable[Text], width: int, indent: str = "") -> list[Text]:
    """Cells one after the other, a new line where the next one would not fit; none is broken. `indent`: of
    all lines but the first."""
    found: list[Text] = []
    line: Text | None = None
    for cell in cells:
        if line is not None and line.cell_len + len(BETWEEN) + cell.cell_len <= width:
            line.append(BETWEEN).append_text(cell)
            continue
        line = Text(indent if found else "").append_text(cell)
        found.append(line)
    return found


def cell(name: str, value: str, below: str = "", style: str = "bold") -> Text:
    """One fact: its name, its value, and what is to be said of it."""
    found = Text().append(f"{name} ", style="dim").append(value, style=style)
    return found.append(f", {below}", style="dim") if below else found


# The health of the feed.


def head(facts: Facts, now_ms: float) -> Text:
    """Whether the feed is there, where it comes from, and how the engine is."""
    found = Text()
    if not facts.is_connected:
        since = duration(1e3 * max(1.0, now_ms - facts.lost_ms))
        found.append("● lost", style="bold red").append(f" {since}: {plain(facts.reason)}; connecting again")
    else:
        found.append("● live", style="bold green")
    found.append(f"{BETWEEN}{plain(facts.url)}", style="dim")
    if facts.stats is None or facts.is_stale(now_ms):
        words = plain(facts.trouble) or "asking"
        return found.append(f"{BETWEEN}engine: {words}", style="yellow" if facts.trouble else "dim")
    stats = facts.stats
    found.append(f"{BETWEEN}engine ", style="dim").append(
        stats["status"], style=STATE_STYLES.get(stats["status"], "")
    )
    troubles = [f"{each['name']} {each['state']}" for each in stats["troubles"]] or list(stats["waiting_for"])
    if troubles:
        found.append(f" ({plain(', '.join(troubles))})", style="yellow")
    return found


def strip(facts: Facts, now_ms: float) -> list[Text]:
    """The page's strip: rate, three latencies, lines, gaps. Old figures are not shown as new ones."""
    stale = facts.is_stale(now_ms)
    stats, told = (None, None) if stale else (facts.stats, facts.told)
    here = Hop(None, None) if stale or not facts.is_connected else facts.engine_to_here(now_ms)
    return [
        _rate(told),
        hop_cell("Exchange → engine", told.exchange_to_engine if told else Hop(None, None)),
        _inside(told.inside_engine if told else Hop(None, None)),
        hop_cell("Engine → here", here),
        _lines(stats["lines"] if stats is not None else None),
        gap_cell(stats["gaps"] if stats is not None else None),
    ]


def _rate(told: Between | None) -> Text:
    if told is None or told.messages is None:
        return cell("Rate", f"{UNKNOWN} msg/s")
    copies = f"{compact(told.duplicates)} of them copies"
    return cell("Rate", f"{whole(told.messages)} msg/s", copies)


def hop_cell(name: str, hop: Hop) -> Text:
    """A latency that two clocks told: it is not below zero, and not known better than the bound."""
    if hop.p50_us is None:
        return cell(name, UNKNOWN, "" if hop.error_us is None else bound(hop.error_us))
    if hop.hidden and hop.error_us is None:
        return cell(name, UNKNOWN, "the exchange's clock is ahead of the engine's")
    error_us = hop.error_us or 0.0
    unsure = hop.hidden or hop.p50_us < error_us
    value = duration(max(0.0, hop.p50_us) + error_us if unsure else hop.p50_us)
    below = f"p99 {duration(max(0.0, hop.p99_us or 0.0))}, {bound(hop.error_us)}"
    return cell(name, f"{'< ' if unsure else ''}{value}", below)


def bound(error_us: float | None) -> str:
    """How wrong a difference of two clocks can be, or that they were not compared yet."""
    return "clocks not compared" if error_us is None else f"± {duration(max(1.0, error_us))}"


def _inside(hop: Hop) -> Text:
    below = "" if hop.p99_us is None else f"p99 {duration(hop.p99_us)}, one clock"
    return cell("Inside the engine", duration(hop.p50_us), below)


def _lines(lines: Mapping[str, Sequence[Mapping[str, Any]]] | None) -> Text:
    if lines is None:
        return cell("Lines", UNKNOWN)
    found = Text().append("Lines", style="dim")
    for name in LINES:
        state = line_state(lines.get(name, ()))
        found.append(f" {name.upper()} ", style="bold").append(state, style=STATE_STYLES.get(state, ""))
    share = first_share(lines)
    return found if share is None else found.append(f", A first {100 * share:.0f} %", style="dim")


def gap_cell(gaps: Mapping[str, int] | None) -> Text:
    """Ranges of ids that are missing now; and that were fetched by REST since the engine's start."""
    if gaps is None:
        return cell("Gaps", f"{UNKNOWN} open")
    lost = f", {whole(gaps['unrepairable'])} lost" if gaps["unrepairable"] else ""
    missing = f"{whole(gaps['missing'])} ids missing, " if gaps["open"] else ""
    below = f"{missing}{whole(gaps['repaired'])} repaired{lost}"
    return cell("Gaps", f"{whole(gaps['open'])} open", below, "bold red" if gaps["open"] else "bold")


# One symbol.


def symbol_cells(row: SymbolFacts, stale: bool) -> list[Text]:
    """Everything of a symbol but its levels."""
    digits = row.symbol.price_precision
    name = Text().append(plain(row.symbol.symbol), style="bold").append(" ").append_text(price_text(row))
    found = [name]
    if row.bid is not None:
        found += [
            cell("bid", fixed(row.bid, digits), style=""),
            cell("ask", fixed(row.ask, digits), style=""),
        ]
    found.append(cell("trades/s", f"{row.rate:,.1f}", style=""))
    value, words, style = complete_words(row, stale)
    found.append(cell("Complete through", value, style=style))
    if words:
        found.append(Text(words, style="yellow" if "yellow" in style else "dim"))
    ends = "" if row.ath is None else f"low {fixed(row.atl, digits)}, high {fixed(row.ath, digits)}"
    found.append(cell("Enigma", UNKNOWN if row.level is None else f"{row.level:.2f}", ends))
    return found


def price_text(row: SymbolFacts) -> Text:
    """The last price, coloured by where it went."""
    price = fixed(row.price or None, row.symbol.price_precision)
    return Text(price, style=f"bold {DIRECTION_STYLES.get(row.direction, '')}".rstrip())


def complete_words(row: SymbolFacts, stale: bool) -> tuple[str, str, str]:
    """The trade id up to which nothing is missing, what is to be said of it, and its style."""
    if stale or row.complete_id is None or row.waiting is None:
        return UNKNOWN, "" if stale else "not known yet", "bold"
    words = f"{whole(row.waiting)} newer wait" if row.waiting else "every trade so far"
    at = f"{clock(row.complete_ms)} UTC, " if row.complete_ms else ""
    return whole(row.complete_id), at + words, "bold yellow" if row.waiting else "bold"


def level_cells(row: SymbolFacts) -> list[Text]:
    """All Fibonacci levels with their prices and how far away they are; none before the first Enigma."""
    digits = row.symbol.price_precision
    found = []
    for name, price in row.fib.items():
        away = f" {percent(price / row.price - 1, 1)}" if row.price else ""
        level = Text().append(f"{name} % ", style="dim").append(fixed(price, digits))
        found.append(level.append(away, style="dim"))
    if found:
        found[0] = Text().append("Fibonacci ", style="dim").append_text(found[0])
    return found


def beside_cells(row: SymbolFacts) -> list[Text]:
    """The two levels that the price is between; none before the first Enigma."""
    below, above = beside(row)
    return [cell("Fibonacci", f"{below} to {above}", style="")] if row.fib else []


def beside(row: SymbolFacts) -> tuple[str, str]:
    """The Fibonacci levels next below and next above the price."""
    digits = row.symbol.price_precision
    levels = [(price, f"{name} % {fixed(price, digits)}") for name, price in row.fib.items()]
    below = next((text for price, text in levels if price <= row.price), UNKNOWN)
    above = next((text for price, text in reversed(levels) if price > row.price), UNKNOWN)
    return below, above


# Many symbols.


def table(rows: Sequence[SymbolFacts], width: int, stale: bool) -> list[Text] | None:
    """A table with its head; without bid and ask where they are not known or do not fit, None where the rest
    does not."""
    columns = [_column(row, stale) for row in rows]
    quoted = any(row.bid is not None for row in rows)
    titles = [title for title in columns[0] if quoted or title not in ("bid", "ask")]
    for left_out in ((), ("bid", "ask")):
        shown = [title for title in titles if title not in left_out]
        widths = [max(Text(title).cell_len, *(each[title].cell_len for each in columns)) for title in shown]
        if sum(widths) + 2 * (len(shown) - 1) <= width:
            heads = {title: Text(title, style="dim") for title in shown}
            return [_aligned(each, shown, widths) for each in (heads, *columns)]
    return None


def _column(row: SymbolFacts, stale: bool) -> dict[str, Text]:
    digits = row.symbol.price_precision
    below, above = beside(row)
    value, _, style = complete_words(row, stale)
    wait = f" +{whole(row.waiting)}" if row.waiting and not stale else ""
    return {
        "symbol": Text(plain(row.symbol.symbol), style="bold"),
        "price": price_text(row),
        "bid": Text(fixed(row.bid, digits)),
        "ask": Text(fixed(row.ask, digits)),
        "trades/s": Text(f"{row.rate:,.1f}"),
        "Enigma": Text(UNKNOWN if row.level is None else f"{row.level:.2f}"),
        "Fib below": Text(below),
        "Fib above": Text(above),
        "complete through": Text(f"{value}{wait}", style=style.removeprefix("bold").strip()),
    }


def _aligned(cells: Mapping[str, Text], shown: Sequence[str], widths: Sequence[int]) -> Text:
    """One row: the first column to the left, numbers to the right."""
    line = Text()
    for place, (title, width) in enumerate(zip(shown, widths, strict=True)):
        padding = " " * (width - cells[title].cell_len)
        if place:
            line.append(f"  {padding}").append_text(cells[title])
        else:
            line.append_text(cells[title]).append(padding)
    return line


def plain(text: str) -> str:
    """Without what a terminal would take for a command, whoever has sent it."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
