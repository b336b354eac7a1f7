"""`tradeback doctor`: the registry (SQLite or MySQL), and whether who may log in fits `auth.mode`."""

import ipaddress
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tradeback.cli.doctor import Finding
from tradeback.model.errors import StartupError, StoreError

if TYPE_CHECKING:
    from tradeback.model.config import Config

FILE_NAME: Final = "registry.sqlite"
USERS: Final = "SELECT COUNT(*), COALESCE(SUM(is_active), 0), COUNT(symbols) FROM users"
TABLES: Final = {
    "symbolsmap": "symbol",
    "users": "username",
    "user_sessions": "ip_address",
    "market_watch": "symbol",
    "settings": "value",
}
"""Every table with a column of it."""
SLOW_MS: Final = 100.0
"""A session is looked up for each request that shows one."""


@dataclass(frozen=True, slots=True)
class Users:
    """How many there are, how many of them may log in, and how many see some symbols only."""

    all: int
    active: int
    restricted: int


async def check_registry(config: "Config") -> list[Finding]:
    """The registry that is configured, then `check_access` with the users in it."""
    found, users = await _check_mysql(config) if config.mysql.host else _check_file(config)
    return [found, check_access(config, users)]


# The file.


def _check_file(config: "Config") -> tuple[Finding, Users | None]:
    """Whether it can be read, and is of this version. Never makes or changes it."""
    from tradeback.stores.registry_schema import REVISIONS

    path = Path(config.data_dir) / FILE_NAME
    if not path.exists():
        return Finding("registry", "ok", f"{path}: none yet, the engine makes it"), Users(0, 0, 0)
    try:
        with closing(_read_only(path)) as connection:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            damage = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            users = Users(0, 0, 0)
            if version == len(REVISIONS):
                users = Users(*connection.execute(USERS).fetchone())
    except sqlite3.Error as error:
        remedy = "put a copy of it back, or choose another folder with DATA_DIR"
        return Finding("registry", "fail", f"{path}: {error}", remedy), None
    if damage != "ok":
        remedy = "put a copy of it back; the tape is not concerned"
        return Finding("registry", "fail", f"{path} is damaged: {damage}", remedy), None
    if version > len(REVISIONS):
        found = f"{path} has schema version {version}, this program knows {len(REVISIONS)}"
        return Finding("registry", "fail", found, "install the newer tradeback"), None
    if version < len(REVISIONS):
        found = f"{path} has schema version {version} of {len(REVISIONS)}: the engine brings it up"
        return Finding("registry", "ok", found), None
    return Finding("registry", "ok", f"{path}, revision {REVISIONS[-1]}, {_counted(users)}"), users


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2.0)


def _counted(users: Users) -> str:
    return f"{users.all} user{'' if users.all == 1 else 's'}"


# MySQL.


async def _check_mysql(config: "Config") -> tuple[Finding, Users | None]:
    """Reachability, version, credentials, database, migrations, rights, ids. Changes nothing there."""
    from tradeback.stores.registry import mysql_registry

    try:
        remote = mysql_registry(config)
    except StartupError as error:
        return Finding("MySQL", "fail", *_split(str(error), "install it")), None
    try:
        begin = time.perf_counter()
        version = await remote.server.run(_version)
        begin, connected_s = time.perf_counter(), time.perf_counter() - begin
        await remote.check()
        answer_ms = 1e3 * (time.perf_counter() - begin)
        await remote.server.run(_try_rights)
        users = Users(*await remote.server.run(_users))
        apart = _other_ids(config, await remote.all_symbols())
    except StoreError as error:
        return Finding("MySQL", "fail", *_split(str(error), "start it, or correct MYSQL_HOST")), None
    finally:
        await remote.close()
    found = f"{remote.server.name}, {version}, revision current, {_counted(users)}, {answer_ms:.1f} ms"
    if apart:
        remedy = "set MYSQL_DATABASE to the one this DATA_DIR belongs to, or use another DATA_DIR"
        return Finding("MySQL", "fail", f"{found}; {apart}", remedy), users
    if answer_ms > SLOW_MS:
        words = f"{found} for an answer, {1e3 * connected_s:.0f} ms to connect"
        return Finding("MySQL", "warn", words, "put it nearer: each request with a session asks it"), users
    return Finding("MySQL", "ok", found), users


def _split(words: str, otherwise: str) -> tuple[str, str]:
    """A store's sentence into what is wrong and the remedy, which stands behind the last colon."""
    found, colon, remedy = words.rpartition(": ")
    return (found, remedy) if colon else (words, otherwise)


async def _version(cursor: Any) -> str:
    await cursor.execute("SELECT VERSION()")
    (text,) = await cursor.fetchone()
    return str(text) if "MariaDB" in str(text) else f"MySQL {text}"


async def _try_rights(cursor: Any) -> None:
    """Whether this user may read and write every table: statements that find no row to change."""
    for table, column in TABLES.items():
        # Names of ours, no values.
        await cursor.execute(f"INSERT INTO {table} SELECT * FROM {table} WHERE 1 = 0")  # noqa: S608
        await cursor.execute(f"UPDATE {table} SET {column} = {column} WHERE 1 = 0")  # noqa: S608
        await cursor.execute(f"DELETE FROM {table} WHERE 1 = 0")  # noqa: S608


async def _users(cursor: Any) -> tuple[int, int, int]:
    await cursor.execute(USERS)
    counted, active, restricted = await cursor.fetchone()
    return int(counted), int(active), int(restricted)


def _other_ids(config: "Config", remote: list[Any]) -> str:
    """What the ids in the data folder, which stand in its tape, mean otherwise there; "" if nothing."""
    path = Path(config.data_dir) / FILE_NAME
    if not path.exists():
        return ""
    try:
        with closing(_read_only(path)) as connection:
            local = dict(connection.execute("SELECT id, symbol FROM symbolsmap"))
    except sqlite3.Error:
        return ""
    by_id = {symbol.id: symbol.symbol for symbol in remote}
    by_name = {symbol.symbol: symbol.id for symbol in remote}
    for number, name in local.items():
        if by_id.get(number, name) != name or by_name.get(name, number) != number:
            return f"id {number} is {name} in {path}, not there"
    return ""


# Who may read.


def check_access(config: "Config", users: Users | None) -> Finding:
    """Whether `auth.mode` fits the users and the address. `users`: None when they are not known."""
    mode, host = config.auth.mode, config.server.host
    elsewhere = not is_loopback(host)
    found = f"auth.mode {mode}, on {host}"
    if mode == "required":
        if users is not None and not users.active:
            words = f"{found}, {'all users are disabled' if users.all else 'no users'}: nobody can log in"
            return Finding("access", "fail", words, "`tradeback user add NAME`, or AUTH_MODE=open")
        if elsewhere and not config.server.proxies:
            words = f"{found}: passwords cross the network in clear text"
            remedy = "put a proxy with TLS before it and name it in SERVER_PROXIES (docs/security.md)"
            return Finding("access", "warn", words, remedy)
        return Finding("access", "ok", found)
    if users is not None and users.restricted:
        words = f"{found}: lists of symbols ({users.restricted}) protect nothing, who logs out sees all"
        return Finding("access", "warn", words, "set AUTH_MODE=required, or `tradeback user allow NAME '*'`")
    if elsewhere:
        words = f"{found}: whoever reaches the port may read, without a log-in"
        return Finding("access", "warn", words, "set AUTH_MODE=required, if that is not what you want")
    return Finding("access", "ok", f"{found}: programs of this machine, without a log-in")


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
