"""Why an edge has to open its tape anew, and where it goes on."""

from pathlib import Path

from tradeback.model.errors import TradebackError
from tradeback.tape import follow
from tradeback.tape.follow import Place


class Turn(TradebackError):
    """The hub's tape goes on elsewhere than this edge's: end the engine, `apply`, start it again."""

    def __init__(self, place: Place, why: str, lost: str = "") -> None:
        """`lost`: which records nobody has any more; "" when none are lost: what is cut was never true."""
        super().__init__(f"{why}: going on at record {place.sequence} of epoch {place.epoch:08x}")
        self.place, self.lost = place, lost

    def apply(self, folder: Path) -> None:
        """Bring the tape's folder to where it goes on; nobody may have it open."""
        try:
            if not self.lost:
                follow.turn(folder, self.place)
                return
        except ValueError:
            pass  # the tape does not reach there: it begins anew
        follow.begin(folder, self.place)
