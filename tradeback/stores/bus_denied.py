"""What a NATS server refuses: it says so beside the calls, not as their answer, or while it closes."""

import asyncio
import re
from typing import Final
from urllib.parse import urlsplit

ASK_S: Final = 1.0
KEPT_MAX: Final = 4_096
ALWAYS: Final = 1 << 62
_VIOLATION = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"', re.IGNORECASE)


class Denials:
    """Subjects that were denied, in words. Whoever publishes notes `count` before, asks `since` behind it.

    A denied subscription holds as long as its connection: nobody asks for it a second time.
    """

    def __init__(self) -> None:
        self.count = 0
        """Denials so far."""
        self._held: dict[str, tuple[int, str]] = {}

    def note(self, said: str, words: str) -> None:
        """Take what the server has said, and how it is told."""
        found = _VIOLATION.search(said)
        self.count += 1
        if found is None:
            return
        kind, subject = found[1].lower(), found[2].lower()
        if len(self._held) >= KEPT_MAX:
            del self._held[next(iter(self._held))]
        self._held[subject] = (ALWAYS if kind == "subscription" else self.count), words

    def since(self, count: int, *prefixes: str) -> str | None:
        """Words for a subject that begins like this and was denied after `count`; None: none was.

        In any case: the library tells the server's words in small letters.
        """
        small = tuple(prefix.lower() for prefix in prefixes)
        for subject, (number, words) in self._held.items():
            if number > count and subject.startswith(small):
                return words
        return None

    def any(self) -> str | None:
        """Words for whatever is denied on this connection."""
        return next((words for _, words in self._held.values()), None)

    def clear(self) -> None:
        """Another connection: what it may do is not known."""
        self._held.clear()


async def last_words(url: str, error: Exception) -> Exception:
    """Why a server ended a connection before it stood; `error` where it does not say.

    A server that takes no more connections says so and closes, and what the client sends meanwhile makes the
    system throw away what it said. Who sends nothing can read it.
    """
    if isinstance(error, TimeoutError) or "connection lost" not in str(error).lower() + repr(error).lower():
        return error
    parts = urlsplit(url.strip() if "//" in url else f"nats://{url.strip()}")
    try:
        async with asyncio.timeout(ASK_S):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 4222)
            try:
                while line := await reader.readline():
                    if line.startswith(b"-ERR"):
                        return ConnectionError(line[4:].decode("utf-8", "replace").strip(" '\r\n"))
            finally:
                writer.close()
    except (OSError, ValueError):  # TimeoutError is an OSError
        pass
    return error
