"""Request weight, 429 and the 418 ladder of one address. Pure; section 7.1 of the fact sheet."""

from dataclasses import dataclass

from tradeback.sim.config import SimConfig

MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """status 200, 429 or 418; seconds to wait; weight used in this minute; when a ban ends (ms)."""

    status: int
    retry_after_s: int
    used: int
    banned_until_ms: int = 0


class Weights:
    """One address. Minutes are calendar minutes of the wall clock."""

    def __init__(self, config: SimConfig) -> None:
        self._config = config
        self._minute = -1
        self._used = 0
        self._ignored = 0
        self._bans = 0
        self._banned_until_ms = 0

    def charge(self, weight: int, now_ms: int) -> Verdict:
        """Count a request and say whether it is served."""
        minute = now_ms // MINUTE_MS
        if minute != self._minute:
            self._minute, self._used, self._ignored = minute, 0, 0
        if now_ms < self._banned_until_ms:
            wait_s = -(-(self._banned_until_ms - now_ms) // 1_000)
            return Verdict(418, wait_s, self._used, self._banned_until_ms)
        self._used += weight
        if self._used <= self._config.weight_per_minute:
            return Verdict(200, 0, self._used)
        self._ignored += 1
        if self._ignored > self._config.ban_after_ignored:
            ban_s = min(self._config.ban_first_s * 2**self._bans, self._config.ban_max_s)
            self._bans += 1
            self._banned_until_ms = now_ms + int(ban_s * 1_000)
            return Verdict(418, -(-int(ban_s * 1_000) // 1_000), self._used, self._banned_until_ms)
        return Verdict(429, -(-((minute + 1) * MINUTE_MS - now_ms) // 1_000), self._used)
