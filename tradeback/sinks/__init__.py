"""Readers of the tape that write elsewhere, each behind its own stored position."""
