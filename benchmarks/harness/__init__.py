"""What the path benchmarks share: ends in C, a fake exchange, engine processes, statistics, reports."""
