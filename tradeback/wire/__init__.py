"""The client protocol, bytes <-> messages, both directions, versioned. Pure."""
