"""A team's own conversations about images: every turn is a sample, or a counted reason.

A turn's sample has the pictures that were shown up to it. Its prompt is the turn's own question; with `context`
"before" the turns before it stand above it as lines "Question: ..." and "Answer: ...". System messages are left out.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm.data.look import PictureError
from medvlm.data.sample import Reject, Sample
from medvlm.data.sources import records
from medvlm.data.sources.base import Unit
from medvlm.data.sources.facts import Facts
from medvlm.data.sources.files import Place, one_of, relative
from medvlm.data.sources.folder import columns as meaning_of
from medvlm.data.sources.folder import looking, tables
from medvlm.data.sources.folder.columns import Columns
from medvlm.data.sources.jsonl import formats
from medvlm.data.sources.jsonl.formats import FormatError, Talk, Turn
from medvlm.data.sources.own import MAX_PICTURES, MISSING_TEXT, OwnSource, Shown
from medvlm.data.sources.own_fields import held, is_missing, listed, number_of, patient_in, split_of_path, split_word
from medvlm.data.sources.records import Bad, Record
from medvlm.errors import InputError

if TYPE_CHECKING:
    from medvlm.data.phi import Scanner
    from medvlm.data.pseudonyms import Key

FIRST_RECORDS = 50
"""So many records are looked at for the guess."""
CONTEXTS = ("none", "before")
_KEYS = ("group", "split", "license", "id", *meaning_of.DESCRIBED)
"""What a record may say besides its conversation."""


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """What the files seem to hold."""

    files: int
    first: Path
    format: str
    others: int
    """First records of the first file that are in another format."""
    columns: Columns
    talk: Talk | None
    """The first one that can be read."""
    turns: float
    """Turns a record, of the first ones."""
    pictures: tuple[int, int]
    """Names of pictures in the first records, and how many of them lead to a file."""
    root: Path
    rows: list[Record]


class JsonlSource(OwnSource):
    """Conversations and prompt-answer pairs.

    Args:
        inputs: .jsonl or .json files, or folders of them.
        scanner: looks for identifiers in the texts.
        only: column of `Sample` -> the values that are asked for.
        format: of `formats.READERS`; None tells it by the first records.
        task: of all turns; None makes it vqa where there is a question, else caption.
        context: none, or before: the turns before go into the prompt.
        columns: keys of a record with patient, split, license, id and modality; the rest is guessed.
        images: where names of images lead; None looks around the file.
        data_license: of all records that state none.
        key: replaces patients, ids and file names by stand-ins.
    """

    facts = Facts(
        name="jsonl",
        title="Own conversations about images",
        summary="Your own conversations or prompt-answer pairs: LLaVA, ShareGPT, OpenAI chat, PaliGemma, M3IT.",
        tasks=("vqa", "caption", "report"),
        size="yours",
        license="by row",
        gate="none; say whose the data are: --data-license",
        download="nothing",
        layout="a .jsonl or .json file of records (or a folder of them) with the images beside it or in a folder there",
        known_problems=(
            "Images are copied byte for byte: names of patients in pixels or in EXIF stay in them.",
            "System messages are left out, and a turn's question stands alone unless --context before is given.",
        ),
    )

    def __init__(
        self,
        inputs: Sequence[Path | str],
        scanner: Scanner | None = None,
        only: Mapping[str, Collection[str]] | None = None,
        *,
        format: str | None = None,
        task: str | None = None,
        context: str = "none",
        columns: Columns | None = None,
        images: Path | None = None,
        data_license: str | None = None,
        key: Key | None = None,
    ) -> None:
        super().__init__(inputs, scanner, only, images=images, data_license=data_license, key=key)
        self.given_format, self.task, self.context, self.given = format, task, context, columns or Columns()
        self._view: View | None = None
        self._tokens: dict[Path, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        # The first records may hold pictures, and would travel to worker processes.
        view = self._view and dataclasses.replace(self._view, rows=[], talk=None)
        return {**self.__dict__, "_view": view}

    def tables(self, folder: Path) -> list[Path]:
        """Return the files of records of an input: its .jsonl files, without any its .json files."""
        if folder.is_file():
            if records.kind_of(folder) not in ("json", "jsonl"):
                raise InputError(f"{folder}: no .jsonl or .json file; for tables: medvlm prepare folder")
            return [folder]
        found = one_of(folder, "*.jsonl", "*.ndjson") or one_of(folder, "*.json")
        tables.check_links(folder, found)
        if not found:
            raise InputError(f"{folder}: holds no .jsonl or .json file; --input takes {self.facts.layout}")
        return found

    def look(self) -> View:
        """Return what the files seem to hold, with format and keys settled.

        Raises:
            InputError: no record can be read, or the format cannot be told.
            UsageError: a given key is in no record.
        """
        if self._view is None:
            self._view = self._looked()
        return self._view

    def _looked(self) -> View:
        found = [(folder, table) for folder in self.inputs for table in self._tables(folder)]
        first = found[0][1]
        rows = _head(first)
        if not rows:
            raise InputError(f"{first}: none of its first {FIRST_RECORDS} records can be read, or it has none")
        counted = Counter(formats.detect(row) for row in rows)
        format = self.given_format or _commonest(first, counted, rows)
        names = list(dict.fromkeys(str(name) for row in rows for name in row))
        columns = looking.settle([table for _, table in found], names, rows, self.given, _KEYS)
        talks = [talk for row in rows if (talk := _read(format, row))]
        roots = []
        for folder, table in found:
            shown = talks if table == first else [talk for row in _head(table) if (talk := _read(format, row))]
            roots.append(self.find_root(folder, table, [talk.pictures for talk in shown]))
        turns = sum(len(talk.turns) for talk in talks) / len(talks) if talks else 0.0
        others = sum(counted.values()) - counted[format]
        talk = talks[0] if talks else None
        return View(
            len(found),
            first,
            format,
            others,
            columns,
            talk,
            turns,
            (roots[0].names, roots[0].files),
            roots[0].folder,
            rows,
        )

    def picture_places(self, folder: Path) -> list[Path]:
        """Return the folders that names of images lead to, if there are names."""
        if not self.look().pictures[0]:
            return []
        return list(dict.fromkeys(self.roots[str(table)] for table in self.tables(folder)))

    def units(self) -> list[Unit]:
        """Return one unit for each slice of a file."""
        # Before the source travels to worker processes, which must all see the same.
        self.look()
        return super().units()

    def samples(self, record: Record, place: Place) -> Iterator[Sample | Reject]:
        """Yield a sample for each turn of a record, or why there is none."""
        try:
            talk = formats.READERS[self.look().format](record)
        except FormatError as error:
            yield self._malformed(record, place, str(error))
            return
        group = self.look().columns.group
        patient = patient_in(held(record, group), group)
        if isinstance(patient, Bad):
            yield self.reject(place, patient.reason, patient.detail)
            return
        if not talk.turns:
            yield self.reject(place, "conversation without turns")
        before: list[Turn] = []
        for number, turn in enumerate(talk.turns):
            yield self._turn(record, place, talk, number, before)
            before.append(turn)

    def _malformed(self, record: Record, place: Place, detail: str) -> Reject:
        other, format = formats.detect(record), self.look().format
        if other and other != format and formats.READERS[other] is not formats.READERS[format]:
            return self.reject(place, "record of another format", f"{other}, not {format}")
        return self.reject(place, "malformed conversation", detail)

    def _turn(self, record: Record, place: Place, talk: Talk, number: int, before: Sequence[Turn]) -> Sample | Reject:
        turn = talk.turns[number]
        if turn.question is None or not turn.answer:
            reason = "answer without a question" if turn.answer else "question without an answer"
            return self.reject(place, reason, f"turn {number}")
        if is_missing(turn.answer, asked=bool(turn.question)):
            return self.reject(place, MISSING_TEXT, f"turn {number}: {turn.answer}")
        # A turn of too many pictures is refused whatever their number is.
        shown = self.load(talk.pictures[: min(turn.pictures, MAX_PICTURES + 1)], place)
        if isinstance(shown, PictureError):
            return self.without_picture(place, shown)
        return self._sample(record, place, talk, shown, (number, _above(before) if self.context == "before" else ""))

    def _sample(self, record: Record, place: Place, talk: Talk, shown: Shown, at: tuple[int, str]) -> Sample:
        columns = self.look().columns
        number, above = at
        turn = talk.turns[number]

        told = columns.described(record)
        assert turn.question is not None
        assert turn.answer is not None
        task = self.task or ("vqa" if turn.question or above else "caption")
        prompt = f"{above}Question: {turn.question}" if above and turn.question else above or turn.question
        if place.table not in self._tokens:
            self._tokens[place.table] = self.token(place)
        own = number_of(held(record, columns.id))
        name = self.stand_in("id", own) if own else shown.key
        # Such files repeat their ids (LLaVA's are those of the images), so the place goes into the id.
        token = self._tokens[place.table]
        panel = str(place.number) if token == "-" else f"{token}-{place.number}"
        return self.own_sample(
            shown,
            (name, panel, task, str(number)),
            number_of(held(record, columns.group)),
            task=task,
            prompt=prompt if task == "vqa" else "",
            target=turn.answer,
            **{**told, "language": talk.language or told["language"]},
            official_split=self._split(held(record, columns.split), place, shown),
            **self.rights(held(record, columns.license), columns.license or ""),
        )

    def _split(self, stated: Any, place: Place, shown: Shown) -> str | None:
        if self.look().columns.split:
            return split_word(stated)
        return split_of_path(relative(self.base(place.folder), place.table), *shown.folders)

    def options(self) -> dict[str, Any]:
        """Return the settings that decide the result."""
        view = self.look()
        chosen = {"format": view.format, "columns": view.columns.meanings(), "task": self.task}
        context = {"context": self.context} if self.context != "none" else {}
        return {**super().options(), **{name: value for name, value in chosen.items() if value}, **context}

    def card(self) -> dict[str, Any]:
        """Return the facts for the dataset card."""
        return {**super().card(), "pictures_from": "--input, and --images where it is given"}


def _head(table: Path) -> list[Record]:
    return list(itertools.islice(records.everything(table), FIRST_RECORDS))


def _commonest(path: Path, counted: Counter[str | None], rows: Sequence[Record]) -> str:
    known = [(count, name) for name, count in counted.items() if name]
    if not known:
        keys = listed(sorted({str(key) for row in rows for key in row}))
        raise InputError(
            f"{path}: cannot tell the format by the keys of its records ({keys}); say which: --format "
            f"{'|'.join(formats.READERS)}"
        )
    return max(known)[1]


def _read(format: str, row: Record) -> Talk | None:
    try:
        return formats.READERS[format](row)
    except FormatError:
        return None


def _above(before: Sequence[Turn]) -> str:
    """Return the turns before a turn as they stand above its question."""
    lines = []
    for turn in before:
        lines += [f"Question: {turn.question}\n"] if turn.question else []
        lines += [f"Answer: {turn.answer}\n"] if turn.answer else []
    return "".join(lines)
