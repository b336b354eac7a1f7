"""Symbols and their wire ids. The table that the embedded registry has had from the beginning."""

import sqlalchemy as sa
from alembic import op

from tradeback.stores.migrations.columns import MYSQL_OPTIONS, grid, moment, now, number

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make symbolsmap, unless it is there: MySQL cannot undo half a script, so each may run again."""
    op.create_table(
        "symbolsmap",
        sa.Column("id", number(), primary_key=True, autoincrement=True),
        sa.Column("symbol", sa.String(50), nullable=False, unique=True),
        sa.Column("base_currency", sa.String(20).with_variant(sa.String(50), "mysql"), nullable=False),
        sa.Column("quote_currency", sa.String(20).with_variant(sa.String(50), "mysql"), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("price_precision", sa.Integer(), nullable=False),
        sa.Column("quantity_precision", sa.Integer(), nullable=False),
        sa.Column("tick_size", sa.Text().with_variant(sa.String(40), "mysql"), nullable=False),
        sa.Column("min_quantity", grid(), nullable=False),
        sa.Column("max_quantity", grid(), nullable=False),
        sa.Column("step_size", grid(), nullable=False),
        sa.Column("min_notional", grid(), nullable=False),
        sa.Column("created_at", moment(), nullable=False, server_default=now()),
        sa.Column("updated_at", moment(), nullable=False, server_default=now()),
        if_not_exists=True,
        sqlite_autoincrement=True,
        **MYSQL_OPTIONS,
    )


def downgrade() -> None:
    """Remove symbolsmap: with it goes what the ids on the tape mean."""
    op.drop_table("symbolsmap", if_exists=True)
