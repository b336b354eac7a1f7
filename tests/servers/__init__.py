"""Real servers for tests: each a child process on a free port in a temporary folder (docs/stores.md)."""
