"""Where the tape's head stands, in memory that the path's kernel and Python share: int64 word offsets."""

from typing import Final

NEXT_SEQUENCE: Final = 0
"""Sequence of the record to come."""
EPOCH: Final = 1
LIMIT: Final = 2
"""A batch that ends at or before this sequence is one write; 0 while a failed write is unsettled."""
DESCRIPTOR: Final = 3
"""The newest segment's file; -1 when the tape is closed."""
TAPE_WORDS: Final = 4
