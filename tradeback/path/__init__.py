"""The hot path in one call: bytes of an exchange in, records on the tape, frames at subscribers' sockets."""
