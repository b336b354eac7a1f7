"""Which symbols a user or a session may see."""

import sqlalchemy as sa
from alembic import op

from tradeback.stores.migrations.columns import has_column

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = ("users", "user_sessions")


def upgrade() -> None:
    """Add the column, NULL: everything. Where it is there already this script was killed half-way."""
    for table in TABLES:
        if not has_column(table, "symbols"):
            op.add_column(table, sa.Column("symbols", sa.Text(), nullable=True))


def downgrade() -> None:
    """Remove the column. Who was restricted sees everything then, so all restricted sessions end first."""
    for table in TABLES:
        if has_column(table, "symbols"):
            if table == "user_sessions":
                op.execute("DELETE FROM user_sessions WHERE symbols IS NOT NULL")
            op.drop_column(table, "symbols")
