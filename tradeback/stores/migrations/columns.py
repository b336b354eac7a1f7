"""Column types as both servers have them: SQLite has neither DECIMAL nor times."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

MYSQL_OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
"""Compared byte by byte: to MySQL's default collation two tokens that differ in case are the same."""


def is_mysql() -> bool:
    """Whether the script runs on MySQL or MariaDB."""
    return op.get_bind().dialect.name == "mysql"


def number() -> sa.Integer:
    """An id: INTEGER in SQLite, where only that makes a row id, INT in MySQL."""
    return sa.Integer()


def grid() -> Any:
    """A price or quantity grid: text in SQLite, DECIMAL(20,8) in MySQL."""
    return sa.Text().with_variant(sa.Numeric(20, 8), "mysql")


def moment() -> Any:
    """A time in UTC to the microsecond: text in SQLite."""
    return sa.Text().with_variant(mysql.DATETIME(fsp=6), "mysql")


def now() -> sa.TextClause:
    """The default of a time."""
    if is_mysql():
        return sa.text("CURRENT_TIMESTAMP(6)")
    return sa.text(r"(strftime('%Y-%m-%dT%H\:%M\:%fZ', 'now'))")


def index_once(name: str, table: str, column: str) -> None:
    """Make an index unless it is there; MySQL has no IF NOT EXISTS for one."""
    held = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}
    if name not in held:
        op.create_index(name, table, [column])


def has_column(table: str, name: str) -> bool:
    """Whether a table has this column; MySQL has no ADD COLUMN IF NOT EXISTS."""
    return any(column["name"] == name for column in sa.inspect(op.get_bind()).get_columns(table))
