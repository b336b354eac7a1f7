"""UDF's /history: bars of [from, to), of which `countback` outranks `from` (udf.md 5).

Beside the columns that charts read, `incomplete` lists the times of bars of which it is not proved that
they lack no trade: the running one, and those that a gap touches until it is repaired.
"""

from aiohttp import web

from tradeback.api.bar_text import COLUMNS, Columns, Window, columns_text
from tradeback.api.bars import Ask, BarReader
from tradeback.api.context import ServingContext
from tradeback.api.describe import Answer, operation, ref, word
from tradeback.api.errors import json_response
from tradeback.api.packing import PACKER, unchanged
from tradeback.api.udf_shapes import BARS_MAX, ERRORS, Refusal, find, number, refusal, resolution_index
from tradeback.api.udf_symbols import SYMBOL

FINAL = "private, max-age=86400"
"""Bars that are closed and proved complete never change."""
LOADING = "older bars are being loaded from the exchange; ask again in a moment"

RESOLUTION = word("resolution", "1S, 1, 5, 15, 60, 240 or 1D; D is 1D", example="1", required=True)
FROM = number("from", "unix seconds, inclusive; not needed with countback")
TO = number("to", "unix seconds, exclusive", required=True)
COUNTBACK = number("countback", "at least so many bars before `to`, whatever `from` is", up=False)


class UdfHistory:
    """The handler, over one context and the reader of bars."""

    def __init__(self, context: ServingContext, bars: BarReader) -> None:
        self._context, self._bars = context, bars

    @operation(
        "Bars",
        tag="udf",
        takes=(SYMBOL, RESOLUTION, FROM, TO, COUNTBACK),
        answers={
            200: Answer("columns of bars; no_data; or s:error", ref("UdfHistory")),
            304: Answer("nothing has changed"),
            **ERRORS,
        },
    )
    async def history(self, request: web.Request) -> web.Response:
        """Columns t, o, h, l, c, v of equal length, ascending, the running bar included."""
        ask = self._ask(request)
        window = await self._bars.window(ask)
        if not window.count:
            return nothing(window, ask.countback)
        cache = FINAL if window.is_final else "no-store"
        tag = f"u-{window.tag()}"
        if unchanged(request, tag):
            return await request.app[PACKER].answer(request, b"", tag=tag, cache=cache)
        body = write(await self._bars.text(window, columns_text))
        return await request.app[PACKER].answer(request, body, tag=tag, cache=cache)

    def _ask(self, request: web.Request) -> Ask:
        query = request.query
        countback = COUNTBACK.read(query) or 0
        to_s, from_s = TO.read(query), FROM.read(query)
        if not self._context.config.feature.aggregation_enabled:
            raise Refusal("bars are switched off here (feature.aggregation_enabled)")
        symbol = find(self._context.symbols, SYMBOL.read(query))
        resolution = resolution_index(RESOLUTION.read(query))
        assert to_s is not None, "TO is required"
        if from_s is None:
            from_s = to_s
        return Ask(symbol, resolution, from_s, to_s, BARS_MAX, min(countback, BARS_MAX))


def write(columns: Columns) -> bytes:
    """The body, out of the texts of `columns_text`: one copy of them."""
    *values, doubtful = columns
    parts = [b'{"s":"ok"']
    for name, texts in zip(COLUMNS, values, strict=True):
        parts += (b',"%s":[' % name.encode(), b",".join(texts), b"]")
    parts += (b',"incomplete":[', b",".join(doubtful), b"]}")
    return b"".join(parts)


def nothing(window: Window, countback: int) -> web.Response:
    """No bar: there is nothing older (the chart stops asking), or older ones exist (`nextTime`, ms)."""
    if not window.settled:
        return refusal(LOADING, 503, {"Retry-After": "2"})
    answer: dict[str, object] = {"s": "no_data"}
    if not countback and window.previous_s is not None:
        answer["nextTime"] = window.previous_s * 1_000
    return json_response(answer)
