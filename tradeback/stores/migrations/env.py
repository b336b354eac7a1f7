"""What alembic runs around the scripts: a transaction on the connection that `stores.migrate` made."""

from alembic import context

from tradeback.stores.registry_schema import REVISIONS

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=None, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
    if connection.dialect.name == "sqlite":
        # The embedded registry reads its version here, without alembic.
        current = context.get_context().get_current_heads()
        number = REVISIONS.index(current[0]) + 1 if current else 0
        connection.exec_driver_sql(f"PRAGMA user_version={number}")
