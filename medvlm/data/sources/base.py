"""What a source is: it names its inputs, and turns each of them into samples and rejects."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from medvlm.data.sample import Credit, Reject, Sample


@dataclasses.dataclass(frozen=True, slots=True)
class Unit:
    """The smallest piece of input that is prepared as a whole: an article, or one file of a public set.

    Units are pickled to worker processes, so they name things (paths, indices) rather than hold them.
    """

    name: str
    """Shown in progress and in rejects; units are prepared in the order of their names."""
    locator: tuple[str, ...]
    """Whatever the source needs to find it again: a path, an archive and its member."""
    version: str = ""
    """Changes when the unit's content does (an ETag, a hash); "" where the source cannot tell cheaply."""


class Source(Protocol):
    """One kind of input. Constructed with the paths of `--input` and the source's own settings.

    A source whose answers change with time has two attributes more. `lineage: str | None`, a hash of what is asked for
    without the state of the server: a data set of the same lineage gives way to a newer one unasked. `traffic`, a
    mapping of names to totals ("requests", "bytes", ...) that this object has counted so far, for the log.

    A source whose pictures are made to differ in little (phantoms) has `distinct = True`: pictures of it that are not
    the same byte for byte are never taken for duplicates. `distinct` may be a function of the unit.

    A source whose units have a split of their own, whatever the published one of their samples, tells it with
    `side_of(unit)`.
    """

    name: str

    def describe(self) -> list[dict[str, Any]]:
        """Return the inputs with their hashes ({"path", "sha256", "bytes"}), for the manifest and for "up to date".

        A further "name" tells what of an input's name decides the result; where an input lies does not.

        Raises:
            InputError: an input is missing or of an unknown kind.
        """
        ...

    def units(self) -> Sequence[Unit]:
        """Return all units, sorted by name; a lazy sequence where there are millions."""
        ...

    def prefetch(self, units: Sequence[Unit]) -> None:
        """Make the units of one chunk ready to be read, all at once: a source on the network fetches them here.

        Raises:
            AccessError: the network fails for good; the chunk is left undone, and the next run goes on with it.
        """
        ...

    def read(self, unit: Unit) -> Iterator[Sample | Reject | Credit]:
        """Yield what one unit holds. A damaged unit yields a `Reject`, never an exception."""
        ...

    def card(self) -> dict[str, Any]:
        """Return facts for the dataset card: title, description, homepage, citation, known problems, synthetic."""
        ...
