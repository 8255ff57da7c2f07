"""Which pictures a row is shown: its own, an even gray, or another row's, to see whether answers depend on them.

Of a row with several pictures all are replaced: by as many gray ones, or by those of one other row.
"""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from medvlm.data.mixture import Mixture

Picture = Literal["own", "blank", "shuffled"]

GRAY = (127, 127, 127)
"""The blank picture: no structure, and about the mean of the value range [-1, 1] that the tower sees."""


def blank(size: tuple[int, int] = (28, 28)) -> Any:
    """Return the blank picture.

    Args:
        size: width and height. Most models see every size as the same square, so a small one does; one that keeps a
            picture's shape (Qwen) sees as many patches as in another picture only where the size is that one's.
    """
    from PIL import Image

    return Image.new("RGB", size, GRAY)


@dataclasses.dataclass(frozen=True, slots=True)
class Shown:
    """A picture, and the id of the row that it belongs to (None for the blank one)."""

    image: Any
    of: str | None
    more: tuple[Any, ...] = ()
    """Further pictures of the same row."""

    @property
    def images(self) -> tuple[Any, ...]:
        """Return all pictures in order."""
        return (self.image, *self.more)


class Pictures:
    """Gives each row the picture that it is shown.

    With `shuffled` the rows of the whole split stand in a ring whose order the seed decides, and each is shown the
    picture of the next row of another group with other pixels; where all rows are of one group, of the next with other
    pixels. So a row's picture changes neither with how many rows are asked for nor with which were done before. Of
    several pictures the row is shown all of that other row's, none of which is one of its own.

    Args:
        mixture: the rows.
        picture: own, blank or shuffled.
        seed: of the ring.
        most: at most so many pictures of a row.
    """

    def __init__(self, mixture: Mixture, picture: Picture, seed: int, most: int = 1) -> None:
        self.mixture, self.picture, self.most = mixture, picture, most
        self.alone: list[str] = []
        """Ids of rows that were shown their own picture since the split has no other."""
        self._ring = [place for place, _ in enumerate(mixture.texts())] if picture == "shuffled" else []
        random.Random(seed).shuffle(self._ring)
        self._at = {place: index for index, place in enumerate(self._ring)}

    def of(self, place: int) -> Shown:
        """Return the picture that the row at `place` is shown."""
        name = str(self.mixture.text(place)["id"])
        if self.picture == "blank":
            gray = blank()
            count = 1 if self.most == 1 else len(self.mixture.encoded(place, self.most))
            return Shown(gray, None, (gray,) * (count - 1))
        own = self._pictures(place)
        if self.picture == "own":
            return Shown(own[0], name, own[1:])
        found = self._other(place, own)
        if found is None:
            self.alone.append(name)
            return Shown(own[0], name, own[1:])
        return found

    def _pictures(self, place: int) -> tuple[Any, ...]:
        return (self.mixture.image(place),) if self.most == 1 else self.mixture.pictures(place, self.most)

    def _other(self, place: int, own: tuple[Any, ...]) -> Shown | None:
        """Return the next pictures in the ring that are another group's, or else just others."""
        start, count = self._at[place], len(self._ring)
        group = self.mixture.text(place).get("group")
        akin = []
        for step in range(1, count):
            one = self._ring[(start + step) % count]
            if group is not None and self.mixture.text(one).get("group") == group:
                akin.append(one)
            elif found := self._unlike(one, own):
                return found
        return next((found for one in akin if (found := self._unlike(one, own))), None)

    def _unlike(self, place: int, own: tuple[Any, ...]) -> Shown | None:
        """Return a row's pictures where none of them is one of `own`."""
        first, *more = found = self._pictures(place)
        if any(image == mine for image in found for mine in own):
            return None
        return Shown(first, str(self.mixture.text(place)["id"]), tuple(more))
