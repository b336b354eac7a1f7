"""Users, sessions, market watches and settings in SQL that SQLite and MySQL both understand.

What differs is below: how a statement is run, how a time is written. Values are always bound; the texts
here hold `?` only as the place of a value.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from tradeback.model.errors import StoreError
from tradeback.stores.ports import SessionRecord, UserRecord

Statement = tuple[str, Sequence[Any]]

_USER = "SELECT id, username, password_hash, is_active, created_at FROM users"
_ADD_USER = (
    "INSERT INTO users(username, password_hash, is_active, created_at, updated_at) VALUES (?, ?, 1, ?, ?)"
)
_SESSION_LIVES = (
    "FROM user_sessions s LEFT JOIN users u ON u.id = s.user_id "
    "WHERE s.is_active = 1 AND s.expires_at > ? AND (s.user_id IS NULL OR u.is_active = 1)"
)
_SESSION = (
    "SELECT s.session_token, s.user_id, u.username, s.ip_address, s.user_agent, s.created_at, "
    f"s.last_activity, s.expires_at {_SESSION_LIVES} AND s.session_token = ?"
)
_ADD_SESSION = (
    "INSERT INTO user_sessions(session_token, user_id, ip_address, user_agent, is_active, created_at, "
    "last_activity, expires_at) VALUES (?, ?, ?, ?, 1, ?, ?, ?)"
)
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

    def _user(self, row: tuple[Any, ...]) -> UserRecord:
        user_id, username, password_hash, active, created = row
        return UserRecord(user_id, username, password_hash, bool(active), self._ns(created))

    # Sessions.

    async def add_session(self, session: SessionRecord) -> None:
        """See `ports.Accounts`."""
        token_hash, user_id, _, ip_address, user_agent, *times = astuple(session)
        values = (token_hash, user_id, ip_address, user_agent, *map(self._time, times))
        try:
            await self._write((_ADD_SESSION, values))
        except Duplicate:
            # 256 random bits do not repeat: the row came in by a call whose answer got lost.
            return

    async def session(self, token_hash: str, now_ns: int) -> SessionRecord | None:
        """See `ports.Accounts`."""
        rows = await self._read(_SESSION, (self._time(now_ns), token_hash))
        if not rows:
            return None
        held_hash, user_id, username, address, agent, *times = rows[0]
        created, last, expires = map(self._ns, times)
        return SessionRecord(held_hash, user_id, username, address, agent, created, last, expires)

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

    async def watched(self, watch_id: str) -> list[str]:
        """See `ports.Accounts`."""
        text = "SELECT symbol FROM market_watch WHERE session_id = ? ORDER BY display_order, id"
        return [symbol for (symbol,) in await self._read(text, (watch_id,))]

    async def watched_by_all(self, now_ns: int) -> list[str]:
        """See `ports.Accounts`."""
        owners = (
            f"SELECT s.session_token {_SESSION_LIVES} UNION "
            f"SELECT {self.owner_text} {_SESSION_LIVES} AND s.user_id IS NOT NULL"
        )
        text = f"SELECT DISTINCT symbol FROM market_watch WHERE session_id IN ({owners})"  # noqa: S608
        now = self._time(now_ns)
        return sorted(symbol for (symbol,) in await self._read(text, (now, now)))

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
