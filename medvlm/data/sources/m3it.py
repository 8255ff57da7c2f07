"""M3IT: forty public sets of pictures and texts, rewritten as instructions with the pictures inside.

Li et al. 2023, arXiv:2306.04387. MMInstruction/M3IT on the Hugging Face Hub: `data/<task>/<set>/{train,val,test}.jsonl`
and `instructions.json` (`instruction.json` in some sets), the wordings of the set's instruction. A record holds
`image_base64_str` (a text or a list of texts), `inputs`, `outputs`, and where it has one its own `instruction`; to the
others goes one of the wordings, which the record's place decides, so that it is the same each time.

None of the sets is medical; they serve to keep general skills while training on medical ones.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from medvlm.data.look import PictureError
from medvlm.data.sample import Image, Reject, Sample
from medvlm.data.sources import records
from medvlm.data.sources.facts import Facts
from medvlm.data.sources.files import FileSource, Place, one_of
from medvlm.data.sources.pictures import NO_FILE, from_base64
from medvlm.data.sources.records import Record
from medvlm.errors import InputError
from medvlm.io import sha256_bytes

TASKS = {"captioning": "caption", "report": "report"}
"""Task of the samples by M3IT's folder; all others are questions with answers."""
SPLITS = {"train": "train", "val": "validation", "test": "test"}
CHINESE = ("fm-iqa", "coco-cn", "flickr8k-cn", "chinese-food", "mmchat")
WORDINGS = ("instructions.json", "instruction.json")
IMAGES = 64
"""More pictures to one record are no study and no video clip."""

_IMAGE = "image_base64_str|image_str|image"


class M3itSource(FileSource):
    """M3IT on disk, whole or some of its sets; see `FileSource`."""

    facts: ClassVar[Facts] = Facts(
        name="m3it",
        title="M3IT",
        summary="Instructions made of forty general sets of pictures and texts; none of them is medical.",
        tasks=("caption", "vqa"),
        size="1,592,320 / 307,190 / 105,754 instructions in train, validation and test, 76 GB",
        license="by row",
        gate="none",
        download="the folders data/<task>/<set> that are wanted of the dataset MMInstruction/M3IT of the Hugging Face "
        'Hub (huggingface-cli download MMInstruction/M3IT --repo-type dataset --include "data/vqa/okvqa/*"); it is '
        "never fetched unasked, since the whole has 76 GB",
        layout="a folder with data/<task>/<set>/{train,val,test}.jsonl and instructions.json, or one of those sets",
        homepage="https://huggingface.co/datasets/MMInstruction/M3IT",
        citation="Li L, Yin Y, Li S, et al. M3IT: a large-scale dataset towards multi-modal multilingual instruction "
        "tuning (2023). arXiv:2306.04387",
        known_problems=(
            "None of the sets is medical.",
            "No set's license is stated in the files; the card leaves each its own. Only --license any admits them.",
            "Pictures have no names: they are told apart by their bytes, and a video is a few frames of it.",
            "The same pictures (COCO above all) stand in several sets under different splits.",
        ),
    )

    def tables(self, folder: Path) -> list[Path]:
        """Return the files of records below a copy of M3IT, of a task, or of a set."""
        for pattern in ("data/*/*/*.jsonl", "*/*/*.jsonl", "*/*.jsonl", "*.jsonl"):
            found = one_of(folder, pattern)
            if found:
                for table in found:
                    _wordings(table.parent)
                return found
        raise InputError(f"{folder}: no data/<task>/<set>/train.jsonl nor its like; --input takes {self.facts.layout}")

    def picture_places(self, folder: Path) -> list[Path]:
        """Return the files of wordings, which belong to the input."""
        places = dict.fromkeys(table.parent for table in self.tables(folder))
        return [path for place in places for path in one_of(place, *WORDINGS)]

    def samples(self, record: Record, place: Place) -> Iterator[Sample | Reject]:
        """Yield the instruction's sample, or why there is none."""
        table = place.table.absolute()
        kind, name, split = table.parent.parent.name, table.parent.name, table.stem
        prompt, problem = _prompt(record, place, f"{kind}/{name}/{split}")
        target = _block(record.get("outputs"))
        if not problem and not target:
            problem = "no outputs" if target == "" else "outputs is no text"
        if problem:
            yield self.reject(place, "malformed record", problem)
            return
        images = _images(record, f"{name}_{split}_{place.number}")
        if isinstance(images, PictureError):
            yield self.without_picture(place, images)
            return
        # Records of one picture, and so no other name than its bytes, belong together.
        group = sha256_bytes(images[0].data)[:16]
        task = TASKS.get(kind, "vqa")
        yield self.sample(
            images[0],
            id=(group, f"{kind}-{name}-{split}-{place.number}", "-", task, "0"),
            group=group,
            figure_id=group,
            task=task,
            prompt=prompt,
            target=target,
            more_images=images[1:],
            language="zh" if name in CHINESE else None if name == "multi30k" else "en",
            question_type=f"{kind}/{name}",
            official_split=next((SPLITS[start] for start in SPLITS if split.startswith(start)), None),
            license=None,
            license_scope=None,
            license_evidence=f"card of MMInstruction/M3IT: license other; {name} keeps its own, which is not stated",
        )


def _prompt(record: Record, place: Place, table: str) -> tuple[str, str]:
    """Return (instruction and inputs with a line break between, what is wrong)."""
    instruction, inputs = _block(record.get("instruction")), _block(record.get("inputs"))
    if instruction is None or inputs is None:
        return "", f"{'inputs' if inputs is None else 'instruction'} is no text"
    if not instruction:
        wordings = _wordings(place.table.parent)
        choice = int.from_bytes(hashlib.sha256(f"{table} {place.number}".encode()).digest()[:8], "big")
        instruction = wordings[choice % len(wordings)] if wordings else ""
    prompt = "\n".join(part for part in (instruction, inputs) if part)
    return prompt, "" if prompt else "neither instruction nor inputs"


def _block(value: Any) -> str | None:
    """Return a text with its line breaks, which dialogs need; "" for none, None for what is no text."""
    if records.text_of(value) is None:
        return None
    return "" if value is None else str(value).replace("\0", " ").strip()


def _images(record: Record, name: str) -> list[Image] | PictureError:
    """Return the pictures of a record, named by its place and their kind of file; one that is bad spoils all."""
    field = records.field(record, _IMAGE)
    texts = field if isinstance(field, list) else [field]
    if field is None or not texts or texts == [""]:
        return PictureError(NO_FILE, "the record holds no picture")
    if len(texts) > IMAGES:
        return PictureError("too many images", f"{len(texts)} in one record")
    images: list[Image] = []
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            return PictureError("image cannot be read", f"picture {number} is no text of base64")
        image = from_base64(text, f"picture {number}")
        if isinstance(image, PictureError):
            return image
        kind = image.look.format.lower() if image.look else "bin"
        images.append(Image(image.data, f"{name}_{number}.{kind}", image.look))
    return images


def _wordings(folder: Path) -> list[str]:
    """Return the wordings of a set's instruction, none where it has no such file.

    Raises:
        InputError: the file is no list of texts.
    """
    path = next((folder / name for name in WORDINGS if (folder / name).exists()), None)
    return [] if path is None else _read_wordings(str(path), *records.state(path))


@functools.lru_cache(maxsize=64)
def _read_wordings(path: str, size: int, changed: int) -> list[str]:
    if size > records.FIELD_CHARS:
        raise InputError(f"{path}: {size / 1e6:,.0f} MB are no list of instructions; fetch it again")
    try:
        value = json.loads(records.decode(Path(path).read_bytes(), path))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; fetch it again, or make it readable") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); fetch the file again") from error
    # A list of texts, or such lists by name.
    lists = list(value.values()) if isinstance(value, dict) else [value]
    texts = [text for part in lists for text in (part if isinstance(part, list) else [part])]
    if not texts or not all(_block(text) and isinstance(text, str) for text in texts):
        raise InputError(f"{path}: not a list of instructions; fetch the file again")
    return [text.replace("\0", " ").strip() for text in texts]
