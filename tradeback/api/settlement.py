"""Settlement: the price of a symbol at a time, fixed once it is proved, kept, and told to whoever asked.

A settlement waits until a later trade of its symbol has come, and until the completeness ledger knows of
the trade right before and the one right behind the time: then it is `settled`, and its proof names both.
Where trades are missing for good it becomes `incomplete`, with the reason; what is missing for now is
waited for. A market in which nothing trades after the time is waited for WAIT_S. No price comes from an
incomplete range without saying so.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson

from tradeback.api.context import ServingContext
from tradeback.api.errors import ApiError
from tradeback.api.price_at import PriceAt, next_trade_us, price_at
from tradeback.model.errors import StoreError, TapeError, TradebackError
from tradeback.model.symbols import Symbol
from tradeback.ops.health import ComponentHealth, State
from tradeback.ops.metrics import Family, unlabelled
from tradeback.stores.settlements_sqlite import INCOMPLETE, SETTLED, Settlement, SettlementsSqlite

STEP_S = 0.2
LOOKED_AT_PER_STEP = 8
"""Each reads the tape in a thread, for a few ms."""
AGAIN_S = 1.0
"""How long after a look that proved nothing the same is looked at again."""
WAIT_S = 3_600.0
"""How long after its time (by this machine's clock) a settlement waits for a proof."""
WAITING_MAX = 10_000
PER_OWNER_MAX = 1_000
RETRY_AFTER_S = 60
KEPT_MAX = 100_000
AHEAD_MS_MAX = 366 * 86_400_000
ID_BYTES = 16

Json = dict[str, Any]
Push = Callable[[str, Json], int]
"""(owner, message) to its open sockets; how many there are."""

_log = logging.getLogger("tradeback.api")


def nobody(owner: str, message: Json) -> int:
    """There are no sockets."""
    return 0


class SettlementDesk:
    """Takes requests, waits, settles, tells. Loop thread; `restore` before `start`, then `stop`."""

    def __init__(self, context: ServingContext, store: SettlementsSqlite, push: Push = nobody) -> None:
        self._context, self._store, self.push = context, store, push
        self._waiting: dict[str, Settlement] = {}
        self._of_owner: dict[str, int] = {}
        self._not_before_s: dict[tuple[int, int], float] = {}
        """When to look again, by symbol and time."""
        self._asked_for = asyncio.Event()
        """Something waits; without it the desk sleeps."""
        self._task: asyncio.Task[None] | None = None
        self._since_ns = context.clock.wall_ns()
        self._unsaved: dict[str, Settlement] = {}
        self.last_error: str | None = None
        self.taken = self.settled = self.incomplete = self.pushed = 0

    # Life.

    async def restore(self) -> None:
        """Those that waited when the last run ended."""
        for settlement in await asyncio.to_thread(self._store.waiting):
            self._wait_for(settlement)

    def start(self) -> None:
        """Begin to settle. Needs the running loop."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End; what waits is gone on with after the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._save()

    # Requests.

    async def take(self, owner: str, symbol: Symbol, at_ms: int) -> tuple[Settlement, bool]:
        """A new settlement, or the owner's own of the same symbol and time: (it, whether it is new).

        ApiError 400 for a time too far ahead, 429 when too many wait.
        """
        now_ms = self._context.clock.wall_ns() // 1_000_000
        if at_ms > now_ms + AHEAD_MS_MAX:
            raise ApiError(400, "bad_request", "time is more than a year ahead; it is in unix milliseconds")
        if owner:
            same = await self._asked(self._store.same, owner, symbol.id, at_ms)
            if same is not None:
                return self._unsaved.get(same.id, same), False
        if len(self._waiting) >= WAITING_MAX or self._of_owner.get(owner, 0) >= PER_OWNER_MAX:
            raise ApiError(
                429,
                "too_many_settlements",
                "too many settlements wait; come again when some are settled",
                {"Retry-After": str(RETRY_AFTER_S)},
            )
        settlement = Settlement(
            secrets.token_urlsafe(ID_BYTES),
            owner,
            symbol.id,
            symbol.symbol,
            at_ms,
            self._context.clock.wall_ns(),
        )
        self.taken += 1
        self._wait_for(settlement)
        try:
            await self._asked(self._store.put, [settlement], KEPT_MAX)
        except ApiError:
            self._forget(settlement)
            raise
        if at_ms < now_ms:
            self._not_before_s[symbol.id, at_ms] = asyncio.get_running_loop().time() + AGAIN_S
            try:
                await self._look_at([settlement], tell=False)
            except TradebackError as error:  # it is kept, and looked at again and again
                self._note(error)
        return self._unsaved.get(settlement.id) or await self.find(settlement.id) or settlement, True

    async def find(self, identifier: str) -> Settlement | None:
        """The one with this id."""
        waiting = self._waiting.get(identifier) or self._unsaved.get(identifier)
        found: Settlement | None = waiting or await self._asked(self._store.find, identifier)
        return found

    async def listed(self, owner: str, limit: int) -> list[Settlement]:
        """An owner's, the newest first."""
        found: list[Settlement] = await self._asked(self._store.of_owner, owner, limit)
        return [self._unsaved.get(one.id, one) for one in found]

    async def adopt(self, from_owner: str, into_owner: str) -> None:
        """After a log-in: what the session asked for without a user is the user's."""
        for held in (self._waiting, self._unsaved):
            for identifier, settlement in held.items():
                if settlement.owner == from_owner:
                    held[identifier] = replace(settlement, owner=into_owner)
        count = self._of_owner.pop(from_owner, 0)
        if count:
            self._of_owner[into_owner] = self._of_owner.get(into_owner, 0) + count
        with suppress(ApiError):  # which is in the log; nobody is kept from logging in
            await self._asked(self._store.give, from_owner, into_owner)

    async def _asked(self, ask: Callable[..., Any], *values: Any) -> Any:
        try:
            return await asyncio.to_thread(ask, *values)
        except Exception as error:  # the boundary to a store
            self.last_error = str(error) or type(error).__name__
            _log.warning("the store of settlements cannot be used: %s", error)
            raise ApiError(
                503, "not_ready", "settlements cannot be kept now; try again in a moment"
            ) from error

    # Settling.

    async def _run(self) -> None:
        while True:
            await self._asked_for.wait()
            try:
                if self._waiting or self._unsaved:
                    await self._step()
                else:
                    self._asked_for.clear()
                    continue
            except TradebackError as error:
                self._note(error)
            except Exception as error:
                # A bug in one must not leave all others waiting; health and the log show it.
                self.last_error = str(error) or type(error).__name__
                _log.exception("settling failed")
            await asyncio.sleep(STEP_S)

    def _note(self, error: TradebackError) -> None:
        self.last_error = str(error)
        _log.warning("settlements wait: %s", error)

    async def _step(self) -> None:
        """Look at what may be ready, a few at a time; then save what has changed."""
        now_s = asyncio.get_running_loop().time()
        groups: dict[tuple[int, int], list[Settlement]] = {}
        for settlement in self._waiting.values():
            key = settlement.symbol_id, settlement.at_ms
            if key in groups or (
                self._not_before_s.get(key, 0.0) <= now_s and self._may_be_ready(settlement)
            ):
                groups.setdefault(key, []).append(settlement)
        # Those that were looked at in vain stand behind those that never were: many that wait for a repair
        # keep nobody else waiting.
        turns = sorted(groups, key=lambda key: self._not_before_s.get(key, 0.0))
        for key in turns[:LOOKED_AT_PER_STEP]:
            self._not_before_s[key] = now_s + AGAIN_S
            try:
                await self._look_at(groups[key])
            except TradebackError as error:
                self._note(error)
        await self._save()

    def _may_be_ready(self, settlement: Settlement) -> bool:
        """A later trade has come, or it has waited too long."""
        derived = self._context.derived
        state = derived.latest(settlement.symbol_id) if derived is not None else None
        if state is not None and int(state["exchange_us"]) // 1_000 > settlement.at_ms:
            return True
        return self._is_overdue(settlement)

    def _is_overdue(self, settlement: Settlement) -> bool:
        begun_ms = max(settlement.at_ms, settlement.created_ns // 1_000_000)
        return self._context.clock.wall_ns() // 1_000_000 > begun_ms + WAIT_S * 1_000

    async def _look_at(self, group: list[Settlement], *, tell: bool = True) -> None:
        """Settle all of one symbol and time, if it can be."""
        first = group[0]
        symbol = self._context.symbols.by_id(first.symbol_id)
        assert symbol is not None, "symbols are never forgotten"
        made = await self._judge(symbol, first)
        if made is None:
            return
        for settlement in group:
            held = self._waiting.get(settlement.id)  # it may be somebody else's by now
            if held is not None:
                self._settle(held, made, tell)

    async def _judge(self, symbol: Symbol, asked: Settlement) -> Settlement | None:
        """How it ends, or None while it must wait."""
        try:
            found = await price_at(self._context, symbol, asked.at_ms)
        except ApiError as error:
            if error.code != "no_trade":
                return None
            if self._may_be_ready(asked):
                return replace(
                    asked, status=INCOMPLETE, reason="the tape holds no trade at or before that time"
                )
            return None
        except TapeError:
            if not self._is_overdue(asked):
                raise
            return replace(asked, status=INCOMPLETE, reason="the tape cannot be read there")
        if found.complete:
            after_us = await asyncio.to_thread(next_trade_us, self._context, symbol, found.trade)
            if after_us is not None and after_us // 1_000 > asked.at_ms:
                return proved(asked, found, after_us)
            return None
        if found.final:
            return unproved(asked, found, self._reason(symbol, found))
        if self._is_overdue(asked):
            return unproved(asked, found, f"no proof has come within {WAIT_S:.0f} s after that time")
        return None

    def _reason(self, symbol: Symbol, found: PriceAt) -> str:
        gaps = self._context.gaps
        span = gaps.ledger.span(symbol.id) if gaps is not None else None
        if span is not None and found.trade_id < span[0]:
            return "the time lies before what the tape can prove"
        return f"trades beside {found.trade_id} are missing for good, see /api/v1/gaps"

    def _settle(self, settlement: Settlement, made: Settlement, tell: bool) -> None:
        ended = replace(
            made,
            id=settlement.id,
            owner=settlement.owner,
            created_ns=settlement.created_ns,
            settled_ns=self._context.clock.wall_ns(),
        )
        self._forget(settlement)
        self._unsaved[ended.id] = ended
        self.settled += ended.status == SETTLED
        self.incomplete += ended.status == INCOMPLETE
        if tell and ended.owner:
            self.pushed += self.push(ended.owner, message(ended))

    async def _save(self) -> None:
        """Write what has changed. What the store refuses is written with the next."""
        changed = list(self._unsaved.values())
        if not changed:
            return
        try:
            await asyncio.to_thread(self._store.put, changed, KEPT_MAX)
        except Exception as error:  # the boundary to a store: whatever it raises, nothing is lost here
            self.last_error = str(error) or type(error).__name__
            raise StoreError(f"the store of settlements refuses a write: {error}") from error
        self.last_error = None
        for settlement in changed:
            if self._unsaved.get(settlement.id) is settlement:
                del self._unsaved[settlement.id]

    def _wait_for(self, settlement: Settlement) -> None:
        self._waiting[settlement.id] = settlement
        self._asked_for.set()
        self._of_owner[settlement.owner] = self._of_owner.get(settlement.owner, 0) + 1

    def _forget(self, settlement: Settlement) -> None:
        held = self._waiting.pop(settlement.id, None)
        if held is None:
            return
        left = self._of_owner[held.owner] - 1
        self._of_owner[held.owner] = left
        if not left:
            del self._of_owner[held.owner]
        self._not_before_s.pop((settlement.symbol_id, settlement.at_ms), None)

    # Telling.

    def health(self) -> ComponentHealth:
        """Degraded while the store refuses."""
        state: State = "ok" if self.last_error is None else "degraded"
        details = {"waiting": len(self._waiting), "unsaved": len(self._unsaved)}
        return ComponentHealth("settlements", state, self._since_ns, self.last_error, details=details)

    def collect(self) -> Iterator[Family]:
        """How many wait, and what became of the others."""
        yield Family("tradeback_settlements_waiting", "gauge", "Settlements that wait.").add(
            len(self._waiting)
        )
        counts = (
            ("taken", self.taken, "Settlements asked for."),
            ("settled", self.settled, "Settlements with a proof."),
            ("incomplete", self.incomplete, "Settlements that could not be proved."),
            ("pushed", self.pushed, "Sockets that were told of one."),
        )
        yield from unlabelled("tradeback_settlements_", "counter", counts)


def proved(asked: Settlement, found: PriceAt, after_us: int) -> Settlement:
    """Settled: the trade, and the next one by id came later."""
    proof = {
        "trade_id": found.trade_id,
        "trade_time": int(found.trade["exchange_us"]) // 1_000,
        "next_trade_id": found.trade_id + 1,
        "next_trade_time": after_us // 1_000,
    }
    priced = _priced(asked, found)
    return replace(priced, status=SETTLED, proof=orjson.dumps(proof).decode())


def unproved(asked: Settlement, found: PriceAt, reason: str) -> Settlement:
    """What the tape has, and why that may not be all."""
    return replace(_priced(asked, found), status=INCOMPLETE, reason=reason)


def _priced(asked: Settlement, found: PriceAt) -> Settlement:
    return replace(
        asked,
        price=float(found.trade["price"]),
        trade_id=found.trade_id,
        trade_ms=int(found.trade["exchange_us"]) // 1_000,
    )


def settlement_json(settlement: Settlement) -> Json:
    """As HTTP answers it. Times in unix ms; `time` is the one that was asked for."""
    return {
        "id": settlement.id,
        "symbol": settlement.symbol,
        "time": settlement.at_ms,
        "status": settlement.status,
        "price": settlement.price,
        "trade_id": settlement.trade_id,
        "trade_time": settlement.trade_ms,
        "complete": settlement.status == SETTLED,
        "reason": settlement.reason,
        "proof": orjson.loads(settlement.proof) if settlement.proof else None,
        "created_at": settlement.created_ns // 1_000_000,
        "settled_at": settlement.settled_ns // 1_000_000 or None,
    }


def message(settlement: Settlement) -> Json:
    """As a WebSocket hears of it."""
    return {"type": "settlement", "data": settlement_json(settlement)}
