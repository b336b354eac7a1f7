"""Four store roles, each a small protocol (ports) with an embedded default and a server."""
