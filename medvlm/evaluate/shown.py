"""Which picture a row is shown: its own, an even gray, or another row's, to see whether answers depend on it."""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from medvlm.data.mixture import Mixture

Picture = Literal["own", "blank", "shuffled"]

GRAY = (127, 127, 127)
"""The blank picture: no structure, and about the mean of the value range [-1, 1] that the tower sees."""


def blank() -> Any:
    """Return the blank picture."""
    from PIL import Image

    # Every size ends as the same square, so a small one does.
    return Image.new("RGB", (28, 28), GRAY)


@dataclasses.dataclass(frozen=True, slots=True)
class Shown:
    """A picture, and the id of the row that it belongs to (None for the blank one)."""

    image: Any
    of: str | None


class Pictures:
    """Gives each row the picture that it is shown.

    With `shuffled` the rows of the whole split stand in a ring whose order the seed decides, and each is shown the
    picture of the next row of another group with other pixels; where all rows are of one group, of the next with other
    pixels. So a row's picture changes neither with how many rows are asked for nor with which were done before.

    Args:
        mixture: the rows.
        picture: own, blank or shuffled.
        seed: of the ring.
    """

    def __init__(self, mixture: Mixture, picture: Picture, seed: int) -> None:
        self.mixture, self.picture = mixture, picture
        self.alone: list[str] = []
        """Ids of rows that were shown their own picture since the split has no other."""
        self._ring = [place for place, _ in enumerate(mixture.texts())] if picture == "shuffled" else []
        random.Random(seed).shuffle(self._ring)
        self._at = {place: index for index, place in enumerate(self._ring)}

    def of(self, place: int) -> Shown:
        """Return the picture that the row at `place` is shown."""
        name = str(self.mixture.text(place)["id"])
        if self.picture == "blank":
            return Shown(blank(), None)
        own = self.mixture.image(place)
        if self.picture == "own":
            return Shown(own, name)
        found = self._other(place, own)
        if found is None:
            self.alone.append(name)
            return Shown(own, name)
        return found

    def _other(self, place: int, own: Any) -> Shown | None:
        """Return the next picture in the ring that is another group's, or else just another."""
        start, count = self._at[place], len(self._ring)
        group = self.mixture.text(place).get("group")
        akin = []
        for step in range(1, count):
            one = self._ring[(start + step) % count]
            text = self.mixture.text(one)
            if group is not None and text.get("group") == group:
                akin.append(one)
            elif (image := self.mixture.image(one)) != own:
                return Shown(image, str(text["id"]))
        for one in akin:
            if (image := self.mixture.image(one)) != own:
                return Shown(image, str(self.mixture.text(one)["id"]))
        return None
