"""How a part of the engine says how it is: one shape for lines, tape, stores and feed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

State = Literal["ok", "starting", "degraded", "down"]


@dataclass(frozen=True, slots=True)
class ComponentHealth:
    """The health of one component at one moment.

    `name` is unique and starts with the kind: "line:a:trade:0", "tape", "store:series", "feed".
    `since_ns`: wall clock, when the state began. `lag`: seconds behind, where that means something.
    `details`: whatever else an operator of this kind of component wants to see, as JSON.
    """

    name: str
    state: State
    since_ns: int
    last_error: str | None = None
    lag: float | None = None
    details: Mapping[str, Any] | None = None


class HasHealth(Protocol):
    """Whoever can say how it is."""

    def health(self) -> ComponentHealth:
        """The current state. Runs on the loop thread, so it must be quick."""
