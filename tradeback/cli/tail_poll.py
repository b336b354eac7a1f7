"""Asks a running engine for its own words once a second, beside the feed."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from tradeback.cli import login
from tradeback.cli.tail_facts import Facts
from tradeback.model.errors import TradebackError

if TYPE_CHECKING:
    import aiohttp

EVERY_S: Final = 1.0
ANSWER_S: Final = 5.0
AT_ONCE: Final = 4
"""Symbols asked about in one round; more take their turns."""
ENDED: Final = "the session has ended: log in again, or give another token"


def now_ms() -> float:
    """Wall clock, ms since 1970."""
    return time.time_ns() / 1e6


class Poll:
    """`/api/v1/stats` of one engine, into `facts`."""

    def __init__(self, http: "aiohttp.ClientSession", base: str, facts: Facts) -> None:
        self._http, self._base, self._facts = http, base, facts

    async def run(self) -> None:
        """Ask for ever. Raises TradebackError when the session has ended; all else is told to the facts."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            await asyncio.gather(*map(self._ask, self._facts.ask_next(AT_ONCE)))
            due_s = max(due_s + EVERY_S, loop.time())
            await asyncio.sleep(due_s - loop.time())

    async def _ask(self, symbol: str) -> None:
        import aiohttp

        try:
            refusal = await self._read(symbol)
            if refusal and symbol:  # of this one nothing is told; the rest still is
                refusal = await self._read("")
        except TimeoutError:
            refusal = f"no answer within {ANSWER_S:.0f} s"
        except (aiohttp.ClientConnectionError, OSError):
            refusal = "does not answer"
        except (aiohttp.ClientError, ValueError, KeyError, TypeError):
            refusal = "answers, but not like an engine of this version"
        if refusal:
            self._facts.stats_failed(refusal)

    async def _read(self, symbol: str) -> str:
        """One question; why the engine refuses to answer, or ""."""
        sent_ms = now_ms()
        query = {"symbol": symbol} if symbol else {}
        async with self._http.get(f"{self._base}/api/v1/stats", params=query) as answer:
            received_ms = now_ms()
            if answer.status == 401:
                raise TradebackError(ENDED)
            if answer.status != 200:
                return await login.error_words(answer)
            self._facts.take_stats(await answer.json(), sent_ms, received_ms)
            return ""


@asynccontextmanager
async def polling(url: str, token: str, facts: Facts) -> AsyncIterator[Poll]:
    """A Poll with a connection of its own."""
    import aiohttp

    limit = aiohttp.ClientTimeout(total=ANSWER_S)
    async with aiohttp.ClientSession(timeout=limit, headers=login.bearer(token)) as http:
        yield Poll(http, login.http_url(url), facts)
