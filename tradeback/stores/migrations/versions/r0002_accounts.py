"""Users, hashed sessions, market watches and system settings."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from tradeback.stores.migrations.columns import MYSQL_OPTIONS, index_once, is_mysql, moment, number
from tradeback.stores.registry_rows import EPOCH_TEXT
from tradeback.stores.registry_schema import LOCK, WATCH_LOCK

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the four tables, and the rows that engines lock (`registry_schema`)."""
    options: dict[str, Any] = {"if_not_exists": True, "sqlite_autoincrement": True, **MYSQL_OPTIONS}
    op.create_table(
        "users",
        sa.Column("id", number(), primary_key=True, autoincrement=True),
        sa.Column("username", sa.String(64), nullable=False, unique=True),
        sa.Column("password_hash", sa.String(255), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("created_at", moment(), nullable=False),
        sa.Column("updated_at", moment(), nullable=False),
        **options,
    )
    op.create_table(
        "user_sessions",
        sa.Column("id", number(), primary_key=True, autoincrement=True),
        sa.Column("session_token", sa.String(255), nullable=False, unique=True),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("ip_address", sa.String(45), nullable=False),
        sa.Column("user_agent", sa.Text(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("last_activity", moment(), nullable=False),
        sa.Column("created_at", moment(), nullable=False),
        sa.Column("expires_at", moment(), nullable=False),
        **options,
    )
    index_once("user_sessions_by_user", "user_sessions", "user_id")
    index_once("user_sessions_by_expiry", "user_sessions", "expires_at")
    op.create_table(
        "market_watch",
        sa.Column("id", number(), primary_key=True, autoincrement=True),
        sa.Column("session_id", sa.String(255), nullable=False),
        sa.Column("symbol", sa.String(50), nullable=False),
        sa.Column("display_order", sa.Integer(), nullable=False),
        sa.Column("created_at", moment(), nullable=False),
        sa.UniqueConstraint("session_id", "symbol", name="market_watch_once"),
        **options,
    )
    op.create_table(
        "settings",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("updated_at", moment(), nullable=False),
        if_not_exists=True,
        **MYSQL_OPTIONS,
    )
    lock = sa.table("settings", sa.column("name"), sa.column("value"), sa.column("updated_at"))
    op.execute(lock.delete().where(lock.c.name.in_((LOCK, WATCH_LOCK))))
    since = EPOCH_TEXT.rstrip("Z").replace("T", " ") if is_mysql() else EPOCH_TEXT
    for name in (LOCK, WATCH_LOCK):
        op.execute(lock.insert().values(name=name, value="", updated_at=since))


def downgrade() -> None:
    """Remove users, sessions, watches and settings with all they hold."""
    for table in ("settings", "market_watch", "user_sessions", "users"):
        op.drop_table(table, if_exists=True)
