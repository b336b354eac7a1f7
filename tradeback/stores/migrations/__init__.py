"""The registry's tables for alembic: one script per version, the same for SQLite and MySQL.

Read by alembic, by path, and by nobody else: no module of the engine imports alembic or SQLAlchemy.
"""
