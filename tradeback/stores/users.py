"""Users and their passwords, without HTTP. argon2 is imported when the first password is made or checked."""

import asyncio
import unicodedata
from typing import TYPE_CHECKING

from tradeback.model.clock import Clock
from tradeback.model.errors import TradebackError
from tradeback.stores.ports import Accounts, UserRecord

if TYPE_CHECKING:
    from argon2 import PasswordHasher

NAME_CHARACTERS_MAX = 64
NAME_SIGNS = "._@+-"
PASSWORD_CHARACTERS_MIN = 8
PASSWORD_BYTES_MAX = 1_024
"""Hashing takes the same time for all of them; a megabyte of password would not."""
ITERATIONS, MEMORY_KIB, LANES = 2, 19 * 1_024, 1
"""argon2id as OWASP's password storage cheat sheet has it: 19 MiB, two passes, one lane. 25 ms."""
HASHES_AT_ONCE = 2
"""Each takes 19 MiB and most of a core; more wait."""


class BadUser(TradebackError):
    """A name or password that is refused, or a user who is there already or is not there."""


def user_name(text: str) -> str:
    """A name as it is kept and compared: compatibility forms and case made equal. Raises BadUser.

    Letters and digits of any script and . _ @ + - : nothing that could look like two words, or like markup,
    in a log line.
    """
    try:
        name = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text.strip()).casefold())
    except UnicodeError:
        raise BadUser("a user name is text") from None
    good = all(sign in NAME_SIGNS or unicodedata.category(sign)[0] in "LMN" for sign in name)
    if not name or not good or len(name) > NAME_CHARACTERS_MAX:
        raise BadUser(f"a user name is 1 to {NAME_CHARACTERS_MAX} letters, digits and {' '.join(NAME_SIGNS)}")
    return name


def password_bytes(text: str) -> bytes:
    """A password as it is hashed: typed on one system it must work from another. Raises BadUser."""
    try:
        return unicodedata.normalize("NFKC", text).encode()
    except UnicodeError:
        raise BadUser("a password is text in UTF-8") from None


class Passwords:
    """Makes and checks hashes in threads, a few at a time. Loop thread only."""

    def __init__(self, *, memory_kib: int = MEMORY_KIB) -> None:
        """`memory_kib`: less makes tests quick."""
        self._memory_kib = memory_kib
        self._permits = asyncio.Semaphore(HASHES_AT_ONCE)
        self._hasher: PasswordHasher | None = None
        self._nobody = ""
        """The hash of a password that nobody has: checked when there is no user."""

    async def make(self, password: str) -> str:
        """The hash with its parameters. Raises BadUser for a password that is too short or too long."""
        plain = password_bytes(password)
        if len(password) < PASSWORD_CHARACTERS_MIN or len(plain) > PASSWORD_BYTES_MAX:
            raise BadUser(
                f"a password has {PASSWORD_CHARACTERS_MIN} characters to {PASSWORD_BYTES_MAX} bytes"
            )
        async with self._permits:
            return await asyncio.to_thread(self._get().hash, plain)

    async def check(self, held: str | None, password: str) -> bool:
        """Whether it is this password. None, for no such user, is False and takes the same time."""
        if (
            len(password) > PASSWORD_BYTES_MAX
        ):  # of no user, whatever the name: nothing is told by being quick
            return False
        try:
            plain = password_bytes(password)
        except BadUser:
            return False
        async with self._permits:
            return await asyncio.to_thread(self._check, held, plain)

    def is_outdated(self, held: str) -> bool:
        """Whether the hash was made with other parameters than today's: make it anew at the next log-in."""
        return self._get().check_needs_rehash(held)

    def _check(self, held: str | None, plain: bytes) -> bool:
        from argon2.exceptions import InvalidHashError, VerificationError

        hasher = self._get()
        try:
            right = hasher.verify(self._nobody if held is None else held, plain)
        except (VerificationError, InvalidHashError):
            return False
        return right and held is not None

    def _get(self) -> "PasswordHasher":
        if self._hasher is None:
            from argon2 import PasswordHasher

            hasher = PasswordHasher(ITERATIONS, self._memory_kib, LANES)
            self._nobody = hasher.hash(b"nobody's")  # by the first call, whoever it asks for
            self._hasher = hasher
        return self._hasher


class Users:
    """The service behind `tradeback user` and log-in. Loop thread only. Calls may raise StoreError."""

    def __init__(self, accounts: Accounts, clock: Clock, passwords: Passwords | None = None) -> None:
        self._accounts, self._clock = accounts, clock
        self._passwords = passwords or Passwords()

    async def add(self, name: str, password: str) -> UserRecord:
        """A new user. Raises BadUser."""
        name = user_name(name)
        hashed = await self._passwords.make(password)
        user = await self._accounts.add_user(name, hashed, self._clock.wall_ns())
        if user is None:
            raise BadUser(
                f"there is a user {name} already: choose another name, or `tradeback user passwd {name}`"
            )
        return user

    async def all(self) -> list[UserRecord]:
        """All users by name."""
        return await self._accounts.users()

    async def find(self, name: str) -> UserRecord:
        """A user, disabled or not. Raises BadUser."""
        user = await self._accounts.user(user_name(name))
        if user is None:
            raise BadUser(f"there is no user {user_name(name)}: `tradeback user list` shows all")
        return user

    async def log_in(self, name: str, password: str) -> UserRecord | None:
        """The user whose name and password these are. None for a wrong name, a wrong password and a disabled
        user alike, after the same work."""
        try:
            user = await self._accounts.user(user_name(name))
        except BadUser:
            user = None
        right = await self._passwords.check(user.password_hash if user else None, password)
        if user is None or not right or not user.is_active:
            return None
        if self._passwords.is_outdated(user.password_hash):
            hashed = await self._passwords.make(password)
            await self._accounts.set_password(user.id, hashed, self._clock.wall_ns())
        return user

    async def set_password(self, name: str, password: str) -> UserRecord:
        """Another password; all sessions of the user end. Raises BadUser."""
        user = await self.find(name)
        hashed = await self._passwords.make(password)
        await self._accounts.set_password(user.id, hashed, self._clock.wall_ns())
        await self._accounts.end_sessions(user.id)
        return user

    async def set_active(self, name: str, active: bool) -> UserRecord:
        """Enable or disable; disabling ends all sessions of the user. Raises BadUser."""
        user = await self.find(name)
        await self._accounts.set_active(user.id, active, self._clock.wall_ns())
        return user

    async def allow(self, name: str, symbols: frozenset[str] | None) -> UserRecord:
        """Let the user see these symbols and no others; None: everything. All sessions of the user end.

        Raises BadUser.
        """
        user = await self.find(name)
        await self._accounts.set_symbols(user.id, symbols, self._clock.wall_ns())
        await self._accounts.end_sessions(user.id)
        return user

    async def remove(self, name: str) -> UserRecord:
        """Remove with sessions and market watch. Raises BadUser."""
        user = await self.find(name)
        await self._accounts.remove_user(user.id)
        return user
