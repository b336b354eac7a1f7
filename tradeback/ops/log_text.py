"""What a log line may hold: no secret, nothing that ends the line or steers a terminal, nothing without end.

Every field of every line goes through `clean`, so a line can always be written, whatever was given.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

SECRET_WORDS = ("token", "password", "secret", "authorization", "cookie", "api_key")
MASK = "***"
TEXT_MAX = 4_096
"""Characters of one value."""
TRACEBACK_MAX = 16_384
"""Of a traceback the end is kept: the error itself."""
ITEMS_MAX = 100
DEPTH_MAX = 6
SECRET_LENGTH_MIN = 6
"""Shorter ones would be found in words that are none."""

_CONTROLS = {
    **{code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))},
    # Line ends of Unicode, and marks that change the direction in which a terminal shows what follows.
    **{code: f"\\u{code:04x}" for code in (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))},
    **{code: f"\\u{code:04x}" for code in range(0xD800, 0xE000)},
    0x09: "\\t",
    0x0A: "\\n",
    0x0D: "\\r",
}
"""Characters that are written as escapes."""
_KEEPS_LINES = {code: text for code, text in _CONTROLS.items() if code not in (0x09, 0x0A)}

_NAMED = r"(?i)((?:token|password|passwd|secret|api_?key|cookie)['\"]?\s*[=:]\s*['\"]?)[^\s'\"&,;)}\]]+"
_HEADER = r"(?i)\b(authorization['\"]?\s*[:=]\s*['\"]?)(?:(?:basic|bearer)\s+)?[^\s'\",;]+"
_MAY_HOLD = re.compile(r"(?i)://|token|passw|secret|api_?key|cookie|authori|bearer")
"""Stands in every text in which one of these could find something; in most there is nothing of it."""
_IN_TEXT = tuple(
    re.compile(pattern)
    for pattern in (r"(://)[^/@\s'\"]+(?=@)", _HEADER, r"(?i)\b(bearer\s+)[\w.~+/=-]{8,}", _NAMED)
)
"""Credentials of an address, of a header, and `token=...` inside of a text."""


class Cleaner:
    """Cleans fields. `secrets`: texts that are hidden wherever they stand, as those of the configuration."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({text for text in secrets if len(text) >= SECRET_LENGTH_MIN}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def fields(self, held: Mapping[str, Any]) -> dict[str, Any]:
        """All fields of a line."""
        return {self._key(key): self._field(key, value) for key, value in held.items()}

    def text(self, text: str) -> str:
        """One line of text."""
        kept = self._masked(text[: 2 * TEXT_MAX], TEXT_MAX)
        return kept if kept.isprintable() else kept.translate(_CONTROLS)

    def traceback(self, text: str) -> str:
        """Several lines; none of them begins like a line of the log."""
        kept = self._masked(text[-TRACEBACK_MAX:], TRACEBACK_MAX).translate(_KEEPS_LINES)
        return kept.replace("\n", "\n  ")

    def _key(self, key: Any) -> str:
        return key if isinstance(key, str) and key.isidentifier() else self.text(str(key))

    def _field(self, key: Any, value: Any) -> Any:
        if is_secret(key):
            return MASK
        if key == "exception" and isinstance(value, str):
            return self.traceback(value)
        return self._value(value, 0)

    def _value(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, float):
            return float(value)  # numpy's are floats, too
        if isinstance(value, int):
            return int(value) if -(2**63) <= value < 2**64 else self.text(str(value))
        if depth >= DEPTH_MAX:
            return "..."
        if isinstance(value, Mapping):
            pairs = ((key, MASK if is_secret(key) else held) for key, held in list(value.items())[:ITEMS_MAX])
            return {self._key(key): self._value(held, depth + 1) for key, held in pairs}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._value(held, depth + 1) for held in list(value)[:ITEMS_MAX]]
        if type(value).__module__ == "numpy" and getattr(value, "size", ITEMS_MAX + 1) <= ITEMS_MAX:
            return self._value(value.tolist(), depth + 1)
        return self.text(_shown(value))

    def _masked(self, text: str, most: int) -> str:
        if self._known is not None:
            text = self._known.sub(MASK, text)
        if _MAY_HOLD.search(text):
            for pattern in _IN_TEXT:
                text = pattern.sub(rf"\1{MASK}", text)
        return text if len(text) <= most else f"{text[:most]}..."


def is_secret(key: Any) -> bool:
    """Whether a field of this name holds something that nobody may read."""
    return isinstance(key, str) and any(word in key.lower() for word in SECRET_WORDS)


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:  # of any type: the line is written all the same
        return f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"
