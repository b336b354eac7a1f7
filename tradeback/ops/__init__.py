"""Log, metrics, clock: what operators look at, and what bumps it."""
