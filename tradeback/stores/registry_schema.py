"""The embedded registry's tables in SQLite, step by step, without alembic.

Each step has a migration of the same number in `migrations/versions`, which does the same for MySQL; a test
compares what both leave behind. The file says twice where it stands: PRAGMA user_version, which the engine
reads, and alembic's own table, which `tradeback migrate` reads.
"""

from tradeback.stores.registry_rows import EPOCH_TEXT

REVISIONS = ("0001", "0002", "0003")
"""Names of the steps; the last is what this program needs."""
_NOW = "(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))"

SYMBOLS = f"""
CREATE TABLE symbolsmap(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    symbol VARCHAR(50) NOT NULL UNIQUE,
    base_currency VARCHAR(20) NOT NULL,
    quote_currency VARCHAR(20) NOT NULL,
    is_active BOOLEAN NOT NULL,
    price_precision INTEGER NOT NULL,
    quantity_precision INTEGER NOT NULL,
    tick_size TEXT NOT NULL,
    min_quantity TEXT NOT NULL,
    max_quantity TEXT NOT NULL,
    step_size TEXT NOT NULL,
    min_notional TEXT NOT NULL,
    created_at TEXT NOT NULL DEFAULT {_NOW},
    updated_at TEXT NOT NULL DEFAULT {_NOW}
)
"""
"""The columns of the MySQL table, with grids as decimal strings; SQLite has no DECIMAL."""

ACCOUNTS = """
CREATE TABLE users(
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    username VARCHAR(64) NOT NULL UNIQUE,
    password_hash VARCHAR(255) NOT NULL,
    is_active BOOLEAN NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
);
CREATE TABLE user_sessions(
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    session_token VARCHAR(255) NOT NULL UNIQUE,
    user_id INTEGER,
    ip_address VARCHAR(45) NOT NULL,
    user_agent TEXT NOT NULL,
    is_active BOOLEAN NOT NULL,
    last_activity TEXT NOT NULL,
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL
);
CREATE INDEX user_sessions_by_user ON user_sessions(user_id);
CREATE INDEX user_sessions_by_expiry ON user_sessions(expires_at);
CREATE TABLE market_watch(
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    session_id VARCHAR(255) NOT NULL,
    symbol VARCHAR(50) NOT NULL,
    display_order INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    CONSTRAINT market_watch_once UNIQUE(session_id, symbol)
);
CREATE TABLE settings(
    name VARCHAR(100) NOT NULL PRIMARY KEY,
    value TEXT NOT NULL,
    updated_at TEXT NOT NULL
);
"""
"""`user_sessions.session_token` holds the token's SHA-256 in hexadecimal; the token is stored nowhere."""

LOCK = "lock.symbols"
"""A setting whose row engines on one MySQL lock while they give out ids. In SQLite it only stands."""
WATCH_LOCK = "lock.watches"
"""The same for adding to market watches, whose limit counts rows that others may be adding."""

_STAMP = f"""
CREATE TABLE IF NOT EXISTS alembic_version(
    version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
DELETE FROM alembic_version;
INSERT INTO alembic_version VALUES ('0002');
INSERT OR REPLACE INTO settings VALUES ('{LOCK}', '', '{EPOCH_TEXT}'), ('{WATCH_LOCK}', '', '{EPOCH_TEXT}')
"""  # noqa: S608

ALLOW_LISTS = """
ALTER TABLE users ADD COLUMN symbols TEXT;
ALTER TABLE user_sessions ADD COLUMN symbols TEXT;
UPDATE alembic_version SET version_num = '0003'
"""
"""What a user or a session may see: names with commas between; NULL is everything."""

STEPS = (SYMBOLS, f"{ACCOUNTS}{_STAMP}", ALLOW_LISTS)
