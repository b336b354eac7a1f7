"""Users, sessions, market watches and settings in SQL that SQLite and MySQL both understand.

What differs is below: how a statement is run, how a time is written. Values are always bound; the texts
here hold `?` only as the place of a value.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from tradeback.model.errors import StoreError
from tradeback.stores.ports import SessionRecord, UserRecord

Statement = tuple[str, Sequence[Any]]

_USER = "SELECT id, username, password_hash, is_active, created_at, symbols FROM users"
_ADD_USER = (
    "INSERT INTO users(username, password_hash, is_active, created_at, updated_at) VALUES (?, ?, 1, ?, ?)"
)
_SESSION_LIVES = (
    "FROM user_sessions s LEFT JOIN users u ON u.id = s.user_id "
    "WHERE s.is_active = 1 AND s.expires_at > ? AND (s.user_id IS NULL OR u.is_active = 1)"
)
_SESSION = (
    "SELECT s.session_token, s.user_id, u.username, s.ip_address, s.user_agent, s.created_at, "
    f"s.last_activity, s.expires_at, s.symbols {_SESSION_LIVES} AND s.session_token"
)
_ADD_SESSION = (
    "INSERT INTO user_sessions(session_token, user_id, ip_address, user_agent, is_active, created_at, "
    "last_activity, expires_at, symbols) VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?)"
)
MANY = 500
"""Keys in one question; more are asked for in several."""
_WATCH = (
    "INSERT INTO market_watch(session_id, symbol, display_order, created_at) "
    "SELECT ?, ?, held.top + 1, ? FROM (SELECT COALESCE(MAX(display_order), 0) AS top, COUNT(*) AS many "
    "FROM market_watch WHERE session_id = ?) held WHERE held.many < ?"
)
_IS_WATCHED = "SELECT 1 FROM market_watch WHERE session_id = ? AND symbol = ?"
_PURGE_WATCHES = (
    "DELETE FROM market_watch WHERE session_id NOT LIKE ? "
    "AND session_id NOT IN (SELECT session_token FROM user_sessions)"
)


class Duplicate(StoreError):
    """A row with this key is there already."""


class SqlAccounts(ABC):
    """`ports.Accounts` on top of four ways to run SQL and two to write a time."""

    owner_text: str
    """SQL for the watch id of the user `s.user_id`."""
    lock_watches: tuple[Statement, ...] = ()
    """What makes transactions that add to watches follow each other, where they do not anyway."""

    @abstractmethod
    async def _read(self, text: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a SELECT."""

    @abstractmethod
    async def _write(self, *statements: Statement) -> list[int]:
        """One transaction; how many rows each statement matched. Raises Duplicate."""

    @abstractmethod
    def _time(self, ns: int) -> Any:
        """A time as its columns take it."""

    @abstractmethod
    def _ns(self, value: Any) -> int:
        """A time as its columns give it."""

    # Users.

    async def add_user(self, username: str, password_hash: str, now_ns: int) -> UserRecord | None:
        """See `ports.Accounts`. A user with this very hash was added by a call whose answer got lost."""
        now = self._time(now_ns)
        try:
            await self._write((_ADD_USER, (username, password_hash, now, now)))
        except Duplicate:
            held = await self.user(username)
            return held if held is not None and held.password_hash == password_hash else None
        return await self.user(username)

    async def user(self, username: str) -> UserRecord | None:
        """See `ports.Accounts`."""
        rows = await self._read(f"{_USER} WHERE username = ?", (username,))
        return self._user(rows[0]) if rows else None

    async def users(self) -> list[UserRecord]:
        """See `ports.Accounts`."""
        return [self._user(row) for row in await self._read(f"{_USER} ORDER BY username")]

    async def set_password(self, user_id: int, password_hash: str, now_ns: int) -> bool:
        """See `ports.Accounts`."""
        text = "UPDATE users SET password_hash = ?, updated_at = ? WHERE id = ?"
        (matched,) = await self._write((text, (password_hash, self._time(now_ns), user_id)))
        return matched > 0

    async def set_active(self, user_id: int, active: bool, now_ns: int) -> bool:
        """See `ports.Accounts`."""
        text = "UPDATE users SET is_active = ?, updated_at = ? WHERE id = ?"
        ending = [] if active else [("UPDATE user_sessions SET is_active = 0 WHERE user_id = ?", (user_id,))]
        matched = await self._write((text, (int(active), self._time(now_ns), user_id)), *ending)
        return matched[0] > 0

    async def remove_user(self, user_id: int) -> bool:
        """See `ports.Accounts`."""
        *_, removed = await self._write(
            ("DELETE FROM user_sessions WHERE user_id = ?", (user_id,)),
            ("DELETE FROM market_watch WHERE session_id = ?", (f"user:{user_id}",)),
            ("DELETE FROM users WHERE id = ?", (user_id,)),
        )
        return removed > 0

    async def set_symbols(self, user_id: int, symbols: frozenset[str] | None, now_ns: int) -> bool:
        """See `ports.Accounts`."""
        text = "UPDATE users SET symbols = ?, updated_at = ? WHERE id = ?"
        (matched,) = await self._write((text, (symbols_text(symbols), self._time(now_ns), user_id)))
        return matched > 0

    def _user(self, row: tuple[Any, ...]) -> UserRecord:
        user_id, username, password_hash, active, created, symbols = row
        seen = symbols_of(symbols)
        return UserRecord(user_id, username, password_hash, bool(active), self._ns(created), seen)

    # Sessions.

    async def add_session(self, session: SessionRecord) -> None:
        """See `ports.Accounts`."""
        held = session
        times = map(self._time, (held.created_ns, held.last_activity_ns, held.expires_ns))
        who = (held.token_hash, held.user_id, held.ip_address, held.user_agent)
        values = (*who, *times, symbols_text(held.symbols))
        try:
            await self._write((_ADD_SESSION, values))
        except Duplicate:
            # 256 random bits do not repeat: the row came in by a call whose answer got lost.
            return

    async def session(self, token_hash: str, now_ns: int) -> SessionRecord | None:
        """See `ports.Accounts`."""
        rows = await self._read(f"{_SESSION} = ?", (self._time(now_ns), token_hash))
        return self._session(rows[0]) if rows else None

    async def sessions_alive(self, token_hashes: Sequence[str], now_ns: int) -> list[SessionRecord]:
        """See `ports.Accounts`."""
        found = []
        for part in _parts(token_hashes):
            rows = await self._read(f"{_SESSION} IN ({_marks(part)})", (self._time(now_ns), *part))
            found += [self._session(row) for row in rows]
        return found

    def _session(self, row: tuple[Any, ...]) -> SessionRecord:
        held_hash, user_id, username, address, agent, *times, symbols = row
        created, last, expires = map(self._ns, times)
        who = (held_hash, user_id, username, address, agent)
        return SessionRecord(*who, created, last, expires, symbols_of(symbols))

    async def touch_session(self, token_hash: str, last_activity_ns: int, expires_ns: int) -> bool:
        """See `ports.Accounts`."""
        text = (
            "UPDATE user_sessions SET last_activity = ?, expires_at = ? "
            "WHERE session_token = ? AND is_active = 1"
        )
        values = (self._time(last_activity_ns), self._time(expires_ns), token_hash)
        (matched,) = await self._write((text, values))
        return matched > 0

    async def end_session(self, token_hash: str) -> bool:
        """See `ports.Accounts`."""
        text = "UPDATE user_sessions SET is_active = 0 WHERE session_token = ? AND is_active = 1"
        (matched,) = await self._write((text, (token_hash,)))
        return matched > 0

    async def end_sessions(self, user_id: int) -> list[str]:
        """See `ports.Accounts`."""
        rows = await self._read(
            "SELECT session_token FROM user_sessions WHERE user_id = ? AND is_active = 1", (user_id,)
        )
        await self._write(("UPDATE user_sessions SET is_active = 0 WHERE user_id = ?", (user_id,)))
        return [token_hash for (token_hash,) in rows]

    async def purge_sessions(self, now_ns: int) -> int:
        """See `ports.Accounts`."""
        purged, _ = await self._write(
            ("DELETE FROM user_sessions WHERE is_active = 0 OR expires_at <= ?", (self._time(now_ns),)),
            (_PURGE_WATCHES, ("user:%",)),
        )
        return purged

    async def live_sessions(self, now_ns: int, after: str, count: int) -> list[SessionRecord]:
        """See `ports.Accounts`."""
        text = f"{_SESSION} > ? ORDER BY s.session_token LIMIT ?"
        return [self._session(row) for row in await self._read(text, (self._time(now_ns), after, count))]

    async def count_sessions(self, now_ns: int) -> int:
        """See `ports.Accounts`."""
        ((count,),) = await self._read(f"SELECT COUNT(*) {_SESSION_LIVES}", (self._time(now_ns),))
        return int(count)

    # Market watches.

    async def watch(self, watch_id: str, symbol: str, symbols_max: int, now_ns: int) -> bool | None:
        """See `ports.Accounts`."""
        values = (watch_id, symbol, self._time(now_ns), watch_id, symbols_max)
        try:
            *_, added = await self._write(*self.lock_watches, (_WATCH, values))
        except Duplicate:
            return False
        if added:
            return True
        return False if await self._read(_IS_WATCHED, (watch_id, symbol)) else None

    async def unwatch(self, watch_id: str, symbol: str) -> bool:
        """See `ports.Accounts`."""
        text = "DELETE FROM market_watch WHERE session_id = ? AND symbol = ?"
        (matched,) = await self._write((text, (watch_id, symbol)))
        return matched > 0

    async def arrange_watch(self, watch_id: str, symbols: Sequence[str]) -> None:
        """See `ports.Accounts`."""
        text = "UPDATE market_watch SET display_order = ? WHERE session_id = ? AND symbol = ?"
        placed = [(text, (place, watch_id, symbol)) for place, symbol in enumerate(symbols, 1)]
        if placed:
            await self._write(*self.lock_watches, *placed)

    async def watched(self, watch_id: str) -> list[str]:
        """See `ports.Accounts`."""
        text = "SELECT symbol FROM market_watch WHERE session_id = ? ORDER BY display_order, id"
        return [symbol for (symbol,) in await self._read(text, (watch_id,))]

    async def watched_by(self, watch_ids: Sequence[str]) -> dict[str, list[str]]:
        """See `ports.Accounts`."""
        found: dict[str, list[str]] = {}
        for part in _parts(watch_ids):
            text = (
                f"SELECT session_id, symbol FROM market_watch WHERE session_id IN ({_marks(part)}) "  # noqa: S608
                "ORDER BY display_order, id"
            )
            for watch_id, symbol in await self._read(text, part):
                found.setdefault(watch_id, []).append(symbol)
        return found

    async def watched_by_all(self, now_ns: int) -> list[str]:
        """See `ports.Accounts`."""
        text = f"SELECT DISTINCT symbol FROM market_watch WHERE session_id IN ({self._owners})"  # noqa: S608
        now = self._time(now_ns)
        return sorted(symbol for (symbol,) in await self._read(text, (now, now)))

    async def live_watches(self, now_ns: int) -> dict[str, list[str]]:
        """See `ports.Accounts`."""
        text = (
            f"SELECT session_id, symbol FROM market_watch WHERE session_id IN ({self._owners}) "  # noqa: S608
            "ORDER BY session_id, display_order, id"
        )
        now = self._time(now_ns)
        found: dict[str, list[str]] = {}
        for watch_id, symbol in await self._read(text, (now, now)):
            found.setdefault(watch_id, []).append(symbol)
        return found

    @property
    def _owners(self) -> str:
        """SQL for the watch ids of whoever has a live session; wants the time twice."""
        return (
            f"SELECT s.session_token {_SESSION_LIVES} UNION "
            f"SELECT {self.owner_text} {_SESSION_LIVES} AND s.user_id IS NOT NULL"
        )

    # Settings.

    async def setting(self, name: str) -> str | None:
        """See `ports.Accounts`."""
        rows = await self._read("SELECT value FROM settings WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else None

    async def put_setting(self, name: str, value: str, now_ns: int) -> None:
        """See `ports.Accounts`."""
        now = self._time(now_ns)
        text = "UPDATE settings SET value = ?, updated_at = ? WHERE name = ?"
        update: Statement = (text, (value, now, name))
        (matched,) = await self._write(update)
        if not matched:
            try:
                insert = "INSERT INTO settings(name, value, updated_at) VALUES (?, ?, ?)"
                await self._write((insert, (name, value, now)))
            except Duplicate:  # another engine was quicker
                await self._write(update)


def _parts(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[start : start + MANY] for start in range(0, len(keys), MANY))


def _marks(keys: Sequence[str]) -> str:
    return ", ".join("?" * len(keys))


def symbols_text(symbols: frozenset[str] | None) -> str | None:
    """An allow-list as its column holds it."""
    return None if symbols is None else ",".join(sorted(symbols))


def symbols_of(text: str | None) -> frozenset[str] | None:
    """The inverse of `symbols_text`. An empty list allows nothing."""
    return None if text is None else frozenset(name for name in text.split(",") if name)
