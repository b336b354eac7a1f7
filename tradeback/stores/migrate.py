"""The registry's schema up and down with alembic, for SQLite and MySQL alike.

Only `tradeback migrate` imports this: alembic and SQLAlchemy cost 0.3 s and 32 MB.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy.pool import NullPool

from tradeback.model.config import Config, MysqlConfig
from tradeback.model.errors import StartupError, StoreError
from tradeback.stores.registry_schema import REVISIONS
from tradeback.stores.registry_sqlite import FILE_NAME

SCRIPTS = Path(__file__).parent / "migrations"
LOCK_TIMEOUT_S = 30
BASE = "base"
"""Before the first migration."""


@dataclass(frozen=True, slots=True)
class Status:
    """Where a registry stands."""

    where: str
    current: str
    """A revision, "base" for none, or one that this program does not know."""
    steps: tuple[tuple[str, str], ...]
    """Every revision with its title, oldest first."""

    @property
    def is_newest(self) -> bool:
        """Whether it is as this program needs it."""
        return self.current == REVISIONS[-1]


class Migration:
    """The registry that a configuration names. Raises StartupError when it cannot be reached."""

    def __init__(self, config: Config) -> None:
        self._mysql = config.mysql if config.mysql.host else None
        self._file = Path(config.data_dir) / FILE_NAME
        mysql = self._mysql
        self.where = f"MySQL {mysql.host}:{mysql.port}/{mysql.database}" if mysql else str(self._file)

    def status(self) -> Status:
        """Where it stands. Changes nothing."""
        titles = tuple((revision, _title(revision)) for revision in REVISIONS)
        if self._mysql is None and not self._file.exists():
            return Status(self.where, BASE, titles)
        try:
            with self._connected() as connection:
                return Status(self.where, _current(connection), titles)
        except _NoDatabase:
            return Status(self.where, BASE, titles)

    def up(self, to: str | None = None) -> tuple[str, str]:
        """Migrate to a revision, to the newest by default; (before, after). Makes file or database."""
        if self._mysql is None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        return self._migrate(to or REVISIONS[-1], upwards=True)

    def down(self, to: str | None = None) -> tuple[str, str]:
        """Migrate back to a revision, one step by default; (before, after)."""
        if self._mysql is None and not self._file.exists():
            raise StartupError(f"{self.where} does not exist: there is nothing to take back")
        return self._migrate(to or self.before(), upwards=False)

    def before(self) -> str:
        """The revision one step down."""
        current = self.status().current
        place = REVISIONS.index(current) if current in REVISIONS else 0
        return REVISIONS[place - 1] if place else BASE

    def _migrate(self, to: str, *, upwards: bool) -> tuple[str, str]:
        order = (BASE, *REVISIONS)
        if to not in order:
            raise StartupError(f"there is no revision {to}: use one of {', '.join(order)}")
        with self._connected(make=True) as connection, self._alone(connection):
            current = _current(connection)
            if current not in order:
                raise StartupError(
                    f"{self.where} has revision {current}, which this program does not know: "
                    "install the newer tradeback"
                )
            moving = order.index(to) - order.index(current)
            if moving and (moving > 0) != upwards:
                way = "down" if upwards else "up"
                raise StartupError(
                    f"{self.where} has revision {current}: `tradeback migrate {way} --to {to}` leads to {to}"
                )
            config = AlembicConfig()
            config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
            config.set_main_option("path_separator", "os")
            config.attributes["connection"] = connection
            try:
                self._adopt(connection, config)
                (command.upgrade if upwards else command.downgrade)(config, to)
            except (sa.exc.SQLAlchemyError, CommandError) as error:
                raise StoreError(f"{self.where}: {_plain(error)}") from None
            return current, to

    def _adopt(self, connection: sa.Connection, config: AlembicConfig) -> None:
        """A file from before there were migrations has the first one's table: it is said so, once."""
        current = _current(connection)
        if current != BASE and MigrationContext.configure(connection).get_current_revision() is None:
            command.stamp(config, current)

    @contextlib.contextmanager
    def _connected(self, make: bool = False) -> Iterator[sa.Connection]:
        engine = self._engine(self._mysql.database if self._mysql else None)
        try:
            if self._mysql is not None and make:
                self._make_database(self._mysql)
            try:
                connection = engine.connect()
            except sa.exc.SQLAlchemyError as error:
                if _code(error) == 1049:
                    raise _NoDatabase(str(error)) from None
                raise StartupError(f"{self.where}: {_plain(error)}") from None
            with connection:
                yield connection
                connection.commit()
        finally:
            engine.dispose()

    def _engine(self, database: str | None) -> sa.Engine:
        mysql = self._mysql
        if mysql is None:
            return sa.create_engine(f"sqlite:///{self._file}", poolclass=NullPool)
        url = sa.URL.create("mysql+pymysql", mysql.user, mysql.password, mysql.host, mysql.port, database)
        limits = {"connect_timeout": 5, "read_timeout": 120, "charset": "utf8mb4"}
        return sa.create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=limits)

    def _make_database(self, mysql: MysqlConfig) -> None:
        """The database, if it is not there. A user without the right to make one may still have it."""
        engine = self._engine(None)
        name = mysql.database.replace("`", "``").replace("%", "%%")
        try:
            with engine.connect() as connection:
                found = connection.execute(
                    sa.text("SELECT 1 FROM information_schema.schemata WHERE schema_name = :name"),
                    {"name": mysql.database},
                ).first()
                if found is None:
                    connection.exec_driver_sql(
                        f"CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
                    )
        except sa.exc.SQLAlchemyError as error:
            raise StartupError(f"{self.where}: {_plain(error)}") from None
        finally:
            engine.dispose()

    @contextlib.contextmanager
    def _alone(self, connection: sa.Connection) -> Iterator[None]:
        """One migration at a time. SQLite's own lock does it there; MySQL commits with every table."""
        if self._mysql is None:
            yield
            return
        lock = f"tradeback.migrate.{self._mysql.database}"[:64]
        got = connection.execute(sa.text("SELECT GET_LOCK(:name, :s)"), {"name": lock, "s": LOCK_TIMEOUT_S})
        if got.scalar() != 1:
            raise StartupError(f"{self.where}: another migration is at work; try again when it has ended")
        try:
            yield
        finally:
            connection.execute(sa.text("SELECT RELEASE_LOCK(:name)"), {"name": lock})


class _NoDatabase(StartupError):
    """The server has no such database."""


def _current(connection: sa.Connection) -> str:
    held = MigrationContext.configure(connection).get_current_revision()
    if held is None and connection.dialect.name == "sqlite":
        number = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        held = REVISIONS[number - 1] if 0 < number <= len(REVISIONS) else None
    connection.commit()
    return held or BASE


def _title(revision: str) -> str:
    (path,) = (SCRIPTS / "versions").glob(f"r{revision}_*.py")
    module = import_module(f"tradeback.stores.migrations.versions.{path.stem}")
    return (module.__doc__ or "").partition("\n")[0]


def _code(error: BaseException) -> int:
    arguments = getattr(getattr(error, "orig", None), "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else 0


def _plain(error: BaseException) -> str:
    """One line with the remedy, without the statement."""
    remedies = {
        1044: "this user has no right to the database: GRANT ALL ON it",
        1045: "user or password is refused: correct MYSQL_USER and MYSQL_PASSWORD",
        1142: "this user may not change tables: GRANT ALL ON the database",
        2003: "it cannot be reached: correct MYSQL_HOST and MYSQL_PORT, or start it",
    }
    code = _code(error)
    reason = remedies.get(code) or str(getattr(error, "orig", None) or error).splitlines()[0]
    return f"{reason} (error {code})" if code else reason
