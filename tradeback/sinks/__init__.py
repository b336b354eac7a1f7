"""Readers of the tape that write into stores, each behind its own cursor."""
