"""feed.announce: whoever wants every symbol is told of one that comes later, before its first record."""

from pathlib import Path

from tests.feed.harness import subscribe, text, world
from tests.feed.v2_peer import Market, expected, peer, tape_rows, taped
from tradeback.feed.announce import announce
from tradeback.feed.client import Client
from tradeback.model.symbols import Symbol
from tradeback.wire import v2_layout as at

NEW = Symbol(9, "NEWUSDT", "NEW", "USDT", tick_size="0.01000000", step_size="0.00100000")
DESCRIBED = {"NEWUSDT": {"id": 9, "price_precision": 2, "quantity_precision": 3}}


async def test_version_1() -> None:
    async with world() as running, running.connect() as everything, running.connect() as some:
        await subscribe(everything, "*")
        await subscribe(some, "BTCUSDT")
        running.symbols.put(NEW)
        announce(running.feed, [NEW])
        running.trade((9, 5.25, 0.5), (1, 64_000.0, 1.0))
        told = await text(everything)
        assert told == {"type": "subscribed", "symbols": DESCRIBED}
        assert isinstance(await everything.recv(), bytes)
        assert isinstance(await some.recv(), bytes), "this one asked for something else"
        assert (await subscribe(some, "NEWUSDT"))["symbols"] == DESCRIBED


async def test_version_2_gets_it_on_its_grid(tmp_path: Path) -> None:
    market = Market(3, (1, 9))
    async with taped(tmp_path) as running, peer(running.ws) as everything, peer(running.ws) as some:
        await everything.subscribe("*")
        await some.subscribe("BTCUSDT")
        running.symbols.put(NEW)
        announce(running.feed, [NEW])
        running.publish(market.rows(300))
        end = running.tape.next_sequence
        await everything.reach(end)
        assert everything.texts[-1] == {"type": "subscribed", "symbols": DESCRIBED}
        order = [kind for kind in everything.order if kind != "beat"]
        assert order[:3] == ["subscribed", "subscribed", "frame"]
        assert everything.entries() == expected(tape_rows(running))
        await some.reach(end)
        assert some.entries() == expected(tape_rows(running), ids=(1,))
        assert len(some.texts) == 1
        scales = running.feed.v2._scratch.states[9].view("f8")
        assert (scales[at.STATE_PRICE_SCALE], scales[at.STATE_QUANTITY_SCALE]) == (100.0, 1_000.0)


async def test_who_holds_a_symbol_is_told_when_it_is_described_anew(tmp_path: Path) -> None:
    finer = Symbol(1, "BTCUSDT", "BTC", "USDT", tick_size="0.00100000", step_size="0.00001000")
    async with taped(tmp_path) as running, peer(running.ws) as holder, peer(running.ws) as other:
        await holder.subscribe("BTCUSDT", "SOLUSDT")
        await other.subscribe("ETHUSDT")
        running.symbols.put(finer)
        announce(running.feed, [finer])
        running.publish(Market(4, (1, 2)).rows(200))
        await holder.reach(running.tape.next_sequence)
        await other.reach(running.tape.next_sequence)
        assert holder.texts[-1]["symbols"] == {
            "BTCUSDT": {"id": 1, "price_precision": 3, "quantity_precision": 5}
        }
        assert holder.entries() == expected(tape_rows(running), ids=(1, 3))
        assert len(other.texts) == 1


async def test_the_enigma_channel_counts_as_wanting() -> None:
    async with world() as running, running.connect() as client:
        assert (await subscribe(client, "*", channels=["enigma"]))["type"] == "subscribed"
        running.symbols.put(NEW)
        announce(running.feed, [NEW])
        assert (await text(client))["symbols"] == DESCRIBED


async def test_watches_are_read_again() -> None:
    """Somebody may have watched the symbol before it was known here."""

    class Attends:
        """Counts how often it was told."""

        told = 0

        def arrived(self, client: Client) -> None: ...

        def left(self, client: Client) -> None: ...

        def symbols_came(self) -> None:
            self.told += 1

    async with world() as running:
        running.feed.attendance = attends = Attends()
        announce(running.feed, [])
        assert attends.told == 0
        announce(running.feed, [NEW])
        assert attends.told == 1


async def test_nobody_is_there() -> None:
    async with world() as running:
        announce(running.feed, [NEW])
        announce(running.feed, [])
