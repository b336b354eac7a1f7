"""The tree of errors. Each says what is wrong, where, and the remedy; none carries a secret.

TradebackError
+- StartupError          refused at start: exit code 2
|  +- ConfigError        an unknown key, a bad value, a missing server
+- TapeError             the tape cannot be opened, read or written
+- StoreError           a store refuses to read or write
+- ExchangeError         the exchange answered with an error, or not at all
|  `- RateLimited        429 or 418: wait `retry_after_s`
`- DecodeError           a frame that neither the kernel nor the slow path understands
"""


class TradebackError(Exception):
    """Root of all errors that tradeback raises on purpose."""


class StartupError(TradebackError):
    """The engine cannot start like this: one line with the remedy, exit code 2."""

    exit_code = 2


class ConfigError(StartupError):
    """A configuration that is refused: names the key, the value and the remedy."""


class TapeError(TradebackError):
    """The tape cannot be opened, read or written."""


class StoreError(TradebackError):
    """A store refuses to read or write."""


class ExchangeError(TradebackError):
    """The exchange answered with an error, or not at all."""

    def __init__(self, message: str, *, status: int = 0, code: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class RateLimited(ExchangeError):
    """The exchange asks to wait: HTTP 429, or 418 when it has banned this address."""

    def __init__(self, message: str, *, status: int, retry_after_s: float) -> None:
        super().__init__(message, status=status, code=-1003)
        self.retry_after_s = retry_after_s


class DecodeError(TradebackError):
    """A frame that neither the kernel nor the slow path understands."""
