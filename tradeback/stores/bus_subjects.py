"""Subjects of the bus: what may be one, and which patterns they match. Pure."""

import re
from typing import Final

PAYLOAD_BYTES_MAX: Final = 1_000_000
"""nats-server takes 1 MiB by default, headers included."""
_WORD: Final = re.compile(r"[^\s.*>]+")


def check_subject(subject: str, *, pattern: bool = False) -> None:
    """ValueError unless this is a subject; with `pattern` also `*` for a word and `>` at the end."""
    words = subject.split(".")
    for place, word in enumerate(words):
        last = place == len(words) - 1
        if not (_WORD.fullmatch(word) or (pattern and (word == "*" or (word == ">" and last)))):
            raise ValueError(f"{subject!r} is no subject of the bus: dotted words without blanks, * and >")


def check_payload(payload: bytes) -> None:
    """ValueError when it is too long."""
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise ValueError(f"a message has at most {PAYLOAD_BYTES_MAX} bytes, not {len(payload)}")


def matches(pattern: str, subject: str) -> bool:
    """Whether a subscription to `pattern` gets what is published to `subject`."""
    wanted, words = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        if len(words) <= len(wanted):
            return False
        words = words[: len(wanted)]
    return len(wanted) == len(words) and all(
        want in ("*", word) for want, word in zip(wanted, words, strict=True)
    )
