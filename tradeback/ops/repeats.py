"""Events that repeat are held back and counted. Pure: what is done with them is the caller's business.

Events of one kind (component, event, level) pass until BURST of them have come in INTERVAL_S; what follows is
held back, and its newest shown at the end of the interval with `suppressed`, the number of those before it
that are not shown. So every event is shown or counted, and the last of a kind is always shown: a log
never ends with a state that is over. What is held back of a component goes before its next line, so that
its lines come in the order in which they happened.
"""

from collections import OrderedDict
from typing import Any

BURST = 10
INTERVAL_S = 10.0
KINDS_MAX = 512
"""Kinds that are remembered; the one that was not heard of for longest goes."""
KIND = "_kind"
"""Field with the text by which an event is counted, where that is not the event's own: `%s failed`."""
SUPPRESSED = "suppressed"

Event = dict[str, Any]
Kind = tuple[str, str, str]


class _Held:
    """What is known of one kind."""

    __slots__ = ("count", "event", "order", "since_ns", "suppressed")

    def __init__(self, now_ns: int) -> None:
        self.since_ns, self.count = now_ns, 0
        self.event: Event | None = None
        """The newest that is held back."""
        self.suppressed, self.order = 0, 0

    def take(self) -> Event:
        """What was held back, to be shown."""
        assert self.event is not None
        event, self.event = self.event, None
        total = self.suppressed + _told(event)
        self.suppressed = 0
        return event | {SUPPRESSED: total} if total else event


def _told(event: Event) -> int:
    """What the event itself says of others like it that were not even tried to be logged."""
    told = event.get(SUPPRESSED)
    return told if isinstance(told, int) else 0


class Repeats:
    """Times are of any steady clock."""

    def __init__(
        self, burst: int = BURST, interval_s: float = INTERVAL_S, kinds_max: int = KINDS_MAX
    ) -> None:
        self._burst, self._interval_ns, self._kinds_max = burst, int(interval_s * 1e9), kinds_max
        self._kinds: OrderedDict[Kind, _Held] = OrderedDict()
        self._waiting: dict[Kind, _Held] = {}
        """Those of them that hold something back."""
        self._order = 0
        self.held_back = 0
        """Events that were not shown when they came."""

    def __len__(self) -> int:
        """Kinds that are remembered."""
        return len(self._kinds)

    def offer(self, event: Event, now_ns: int) -> list[Event]:
        """What is to be shown now, in this order."""
        words = event.pop(KIND, event.get("event"))
        kind = (str(event.get("component")), str(words), str(event.get("level")))
        shown: list[Event] = []
        held = self._kinds.get(kind)
        if held is None:
            if len(self._kinds) >= self._kinds_max:
                shown = self._forget()
            held = self._kinds[kind] = _Held(now_ns)
        else:
            self._kinds.move_to_end(kind)
        if held.event is None and now_ns - held.since_ns >= self._interval_ns:
            held.since_ns, held.count = now_ns, 0
        if held.event is None and held.count < self._burst:
            held.count += 1
            return [*shown, *self._take({kind[0]}), event]
        if held.event is not None:
            held.suppressed += 1 + _told(held.event)
        held.event, self._waiting[kind] = event, held
        self._order += 1
        held.order = self._order
        self.held_back += 1
        return shown

    def due(self, now_ns: int) -> list[Event]:
        """What has been held back for long enough, and whatever else of the same components is."""
        over = [
            (kind, held)
            for kind, held in self._waiting.items()
            if now_ns - held.since_ns >= self._interval_ns
        ]
        for _, held in over:
            held.since_ns, held.count = now_ns, self._burst
        return self._take({kind[0] for kind, _ in over})

    def rest(self) -> list[Event]:
        """Everything that is held back."""
        return self._take({kind[0] for kind in self._waiting})

    def next_due_ns(self) -> int | None:
        """When `due` has something; None while nothing is held back."""
        times = [held.since_ns for held in self._waiting.values()]
        return min(times) + self._interval_ns if times else None

    def _take(self, components: set[str]) -> list[Event]:
        """What is held back of these, in the order in which it happened."""
        if not self._waiting:
            return []
        found = [kind for kind in self._waiting if kind[0] in components]
        helds = sorted((self._waiting.pop(kind) for kind in found), key=lambda held: held.order)
        return [held.take() for held in helds]

    def _forget(self) -> list[Event]:
        """Drop the kind that was not heard of for longest; what it held back is shown."""
        kind, oldest = self._kinds.popitem(last=False)
        return [oldest.take()] if self._waiting.pop(kind, None) is not None else []
