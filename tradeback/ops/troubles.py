"""What is wrong with a server, said once: however many parts notice it, and however often."""

import re

from tradeback.model.clock import Clock

QUIET_S = 60.0
"""Words that were not noticed for so long are news again."""
KEPT_MAX = 64
_DETAILS = re.compile(r"\s*\([^()]*\)")


class Troubles:
    """One per server and process; whoever talks to the server asks it before a line goes to the log.

    Words that differ in what stands in parentheses only (an error's name or number) are the same trouble.
    A trouble is news when it was not noticed for a minute, so a server that fails all the time is
    told of once, and one that comes and goes once a minute at the most; health always tells how it is now.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._noticed_ns: dict[str, int] = {}
        """When each was noticed last; the one that was noticed longest ago comes first."""

    def is_news(self, words: str) -> bool:
        """Note the trouble; True when it is to be logged."""
        now_ns, key = self._clock.steady_ns(), _DETAILS.sub("", words)
        before_ns = self._noticed_ns.pop(key, None)
        self._noticed_ns[key] = now_ns
        if len(self._noticed_ns) > KEPT_MAX:
            del self._noticed_ns[next(iter(self._noticed_ns))]
        return before_ns is None or now_ns - before_ns > QUIET_S * 1e9
