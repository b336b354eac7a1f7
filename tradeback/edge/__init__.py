"""An engine whose exchange is NATS: it copies the tape of another one, and serves feed and API from that."""
