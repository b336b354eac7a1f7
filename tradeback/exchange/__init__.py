"""Sockets towards the exchange: lines, pool, REST."""
