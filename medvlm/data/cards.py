"""`README.md` of a prepared data set: a dataset card with Hugging Face metadata; and what goes with it.

`finish` writes the card, the contact sheet and the Croissant metadata into a folder that holds the shards. What the
card counts comes from the manifest, but for what told the modality, which is read from the shards.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from medvlm.data import contact_sheet, credits, croissant
from medvlm.data.splits import OF_PARTS, SPLITS
from medvlm.data.write import NOT_STATED
from medvlm.io import write_text
from medvlm.licenses import policy

NAME = "README.md"
FILES = {
    "data/": "the samples: parquet files of each split, as `datasets.load_dataset` reads them",
    credits.NAME: "whom to name for the samples of each group",
    "articles.jsonl": "what became of each unit of input",
    "rejects.jsonl": "every record that was left out, with its reason",
    contact_sheet.NAME: "the picture above",
    croissant.NAME: "this data set in Croissant's format",
}
"""What may lie beside the card and the manifest."""

TOP = 20
"""So many journals are named; of the others their number."""
YEARS = 15
"""Years in more than so many rows are counted by decade."""
_TOLD = (
    ("modality", "modality", ""),
    ("kind", "kind of picture", ""),
    ("compound", "compound figure", ""),
    ("journal", "journal", "journals"),
    ("year", "year of publication", ""),
    ("article_type", "article type", "article types"),
    ("language", "language of the text", ""),
    ("task", "task", ""),
)
"""Columns that the card counts: name, heading, plural."""


@dataclasses.dataclass(frozen=True, slots=True)
class Extras:
    """What the card tells besides the manifest."""

    sheet: contact_sheet.Sheet | None = None
    evidence: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Samples with a modality by what told it: caption, keyword, picture, ..."""
    files: frozenset[str] = frozenset()
    """Names of `FILES` that are there."""


def finish(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write `contact_sheet.png`, `croissant.json` and `README.md` into the folder of a data set, in this order.

    Call it when the shards, `rejects.jsonl`, `articles.jsonl` and `attribution.tsv` lie there, before the manifest is
    written and the plain files are hashed: none of the three needs the manifest's hash, or those of each other but for
    the picture's in `croissant.json`. The same data set gives the same bytes.

    Args:
        folder: holds `data/*.parquet`; files of `FILES` that lie there are described.
        manifest: all of it but hashes of plain files: counts, card, shards, licenses, drops, settings, fingerprint.

    Raises:
        ResourceError: the disk is full.
    """
    title = str(manifest["card"].get("title") or manifest["source"])
    sheet = contact_sheet.write(folder / contact_sheet.NAME, folder, title)
    croissant.write(folder / croissant.NAME, folder, manifest)
    files = frozenset(name for name in FILES if (folder / name).exists())
    write_text(folder / NAME, render(manifest, Extras(sheet, evidence(folder), files)))


def evidence(folder: Path) -> Counter[str]:
    """Return the samples of a data set by what told their modality: the word before the colon of the evidence."""
    found: Counter[str] = Counter()
    for path in sorted((folder / "data").glob("*.parquet")):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(8192, columns=["modality_evidence"]):
                told = (value for value in batch.column(0).to_pylist() if value)
                found.update(value.partition(":")[0].strip() for value in told)
    return found


_HUB_LICENSES = """
cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0
cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 apache-2.0 mit
"""
HUB_LICENSES = frozenset(_HUB_LICENSES.split())
"""Values that the Hub knows in a card's `license` (huggingface.co/docs/hub/repositories-licenses)."""

TASK_CATEGORIES = {"caption": "image-to-text", "report": "image-to-text", "vqa": "visual-question-answering"}
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))


def size_category(rows: int) -> str:
    """Return the Hub's name for a number of rows."""
    return next((name for limit, name in _SIZES if rows < limit), "n>10M")


def metadata(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the YAML block of the card: license, tasks, languages, size, tags and one `configs` entry."""
    counts, card = manifest["counts"], manifest["card"]
    tags = ["medical", "radiology", *(["synthetic"] if manifest["synthetic"] else []), "medvlm"]
    block: dict[str, Any] = {
        "pretty_name": card.get("title") or manifest["source"],
        **_license_block(manifest["licenses"]),
        "task_categories": sorted({TASK_CATEGORIES[task] for task in counts["task"]}),
        "language": sorted(code for code in counts["language"] if code != NOT_STATED),
        "size_categories": [size_category(counts["samples"])],
        "tags": tags,
        "configs": [{"config_name": "default", "data_files": _data_files(manifest)}],
    }
    return {key: value for key, value in block.items() if value != []}


def _data_files(manifest: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return one entry for each split that has rows: the Hub's reader refuses a pattern that matches nothing."""
    filled = [split for split in SPLITS if manifest["counts"]["split"].get(split)]
    return [{"split": split, "path": f"data/{split}-*.parquet"} for split in filled]


def _license_block(licenses: Mapping[str, int]) -> dict[str, str]:
    names = list(licenses)
    if len(names) == 1 and names[0].lower() in HUB_LICENSES:
        return {"license": names[0].lower()}
    name = names[0] if len(names) == 1 else "several, stated for each sample"
    return {"license": "other", "license_name": name, "license_link": "README.md"}


def _table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    lines = [list(header), *([str(cell) for cell in row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    """Return a text, which may come from an article, so that it stays in its cell and is no markup."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")


def _bullets(value: Any) -> str:
    lines = [value] if isinstance(value, str) else list(value or ())
    return "\n".join(f"- {line}" for line in lines)


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}\n" if body else ""


def known_problems(card: Mapping[str, Any]) -> list[str]:
    """Return what a source says is wrong with its data, one line each."""
    value = card.get("known_problems") or card.get("known problems") or []
    return [value] if isinstance(value, str) else [str(line) for line in value]


def _summary(manifest: Mapping[str, Any]) -> str:
    counts, card = manifest["counts"], manifest["card"]
    lines = [str(card.get("description") or "")]
    if manifest["synthetic"]:
        lines.append("**Synthetic:** pictures and texts are made by a program. No patient is shown or described.")
    lines.append(
        f"{counts['samples']:,} samples in {counts['groups']:,} groups, from {counts['units']:,} units of input. "
        "**Not for clinical use:** made for research and for training, never as a basis for a diagnosis."
    )
    if card.get("homepage"):
        lines.append(f"Home of the source: {card['homepage']}")
    return "\n\n".join(line for line in lines if line)


def _splits(manifest: Mapping[str, Any]) -> str:
    counts, settings = manifest["counts"], manifest["settings"]
    rows = [
        (split, f"{counts['split'].get(split, 0):,}", f"{counts['groups_by_split'].get(split, 0):,}")
        for split in SPLITS
    ]
    parts = [_table(("split", "samples", "groups"), rows), _way(settings, "near_duplicates" in counts)]
    leakage = manifest.get("leakage", {})
    way = settings.get("split", "by-group")
    if way != "official":
        parts += _shared("The splits above", leakage.get("made", {}))
    before = "The splits of the parts, taken together," if way in OF_PARTS else "The official splits"
    return "\n\n".join([*parts, *_shared(before, leakage.get("official", {}))])


def _way(settings: Mapping[str, Any], near: bool) -> str:
    """Return how the samples were split."""
    if settings.get("split") in OF_PARTS:
        return _OF_PARTS[settings["split"]]
    shares = " / ".join(f"{share:g}" for share in settings["split_ratio"])
    way = settings.get("split", "by-group")
    if way == "official" and "parts" in settings:
        return "Every sample is in the split that it had in its part, with all that the sides share."
    if way == "official":
        return "As published (`--split official`; `official_split` in each sample), with all that the sides share."
    if way == "by-image":
        return (
            f"By a hash of the picture (shares {shares}, seed {settings['seed']}): samples with the same picture, or "
            "nearly, go together; a group (article, patient or study) may be on two sides."
        )
    also = ", and so do groups with near duplicates" if near else ""
    return (
        f"By a hash of `group` (article, patient or image; shares {shares}, seed {settings['seed']}): a group is never "
        f"on two sides. Groups that share an image, byte for byte, or a DOI go together{also}."
    )


def _shared(what: str, leakage: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return a line and a table of what sides share, nothing where they share nothing."""
    if not any(counts[key] for counts in leakage.values() for key in ("images", "near_images", "texts", "groups")):
        return [f"{what} share no picture, no text and no group."] if leakage else []
    header = ("both in", "images", "of", "nearly the same", "texts", "whole samples", "of", "groups")
    keys = ("images", "of_images", "near_images", "texts", "repeats", "of_samples", "groups")
    rows = [(pair.replace("/", " and "), *(f"{counts[key]:,}" for key in keys)) for pair, counts in leakage.items()]
    told = (
        f"{what} share (counted in the second of each pair; a text is a question with its answer, or a caption or "
        "report, regardless of case):"
    )
    return [told, _table(header, rows)]


_KEPT_APART = (
    "Every sample is in the split that it had in its part, and no group, article or picture, also nearly, is in two: "
)
_OF_PARTS = {
    "parts": _KEPT_APART + "samples of groups that share one with a later split (train, validation, test) were left "
    "out, so that every test set is whole.",
    "parts-move": "Every sample is in the split that it had in its part, but for groups that share a picture, also "
    "nearly, or an article with a later split (train, validation, test): they were moved there.",
    "parts-refuse": _KEPT_APART + "none of the parts shares one with another.",
}


def _duplicates(manifest: Mapping[str, Any]) -> str:
    counts = manifest["counts"]
    if not counts["duplicate_images"] and not counts.get("near_duplicates"):
        near = ", nor nearly" if "near_duplicates" in counts else ""
        return f"No sample repeats an image of another group, byte for byte{near}, nor of another figure of its own."
    elsewhere = "of another group, or of another figure of their own"
    lines = [f"{counts['duplicate_images']:,} samples repeat an image {elsewhere}, byte for byte."]
    if "near_duplicates" in counts:
        lines.append(
            f"{counts['near_duplicates']:,} show a picture of another group in another size, format or quality, or "
            "slightly cropped; found by a perceptual hash and confirmed by comparing the pictures. Drawings (plots, "
            "diagrams, tables) are not looked at for it: two that differ in a few numbers look the same."
        )
    if manifest["settings"].get("drop_duplicates"):
        lines.append('They were left out (`--drop-duplicates`); "Left out" counts them.')
    else:
        lines.append("They are kept; `duplicate_of` names the sample that has the picture first.")
    return _bullets(lines)


def _contents(manifest: Mapping[str, Any], extras: Extras) -> str:
    """Return a table for each column that tells samples apart, and one line for those that do not."""
    total = max(1, manifest["counts"]["samples"])
    alike, tables = [], []
    for name, heading, plural in _TOLD:
        counts = manifest["counts"].get(name, {})
        if not set(counts) - {NOT_STATED}:
            continue
        if len(counts) == 1:
            alike.append(f"{heading}: {_cell(next(iter(counts)))} (all samples)")
            continue
        rows = _by_year(counts) if name == "year" else list(counts.items())
        more = len(rows) - TOP if plural else 0
        if more > 0:
            rows = [*rows[:TOP], (f"{more:,} more {plural}", sum(count for _, count in rows[TOP:]))]
        tables.append(_table((heading, "samples", "share"), _shares(rows, total)))
        if name == "modality" and extras.evidence:
            told = ", ".join(f"{word} {count:,}" for word, count in sorted(extras.evidence.items(), key=_rank))
            tables.append(f"What told the modality (`modality_evidence` holds the words), in samples: {told}.")
    return "\n\n".join([*tables, *([_bullets(alike)] if alike else [])])


def _rank(item: tuple[str, int]) -> tuple[int, str]:
    """Order counts: the largest first, equal ones by name."""
    return -item[1], item[0]


def _by_year(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return counts in the order of time, by decade where there are many years; what is not stated comes last."""
    years = {name: count for name, count in counts.items() if name.isdecimal()}
    told: Counter[str] = Counter()
    for name, count in years.items():
        told[name if len(years) <= YEARS else f"{name[:-1]}0s"] += count
    return [*sorted(told.items()), *((name, count) for name, count in counts.items() if name not in years)]


def _shares(rows: Iterable[tuple[str, int]], total: int) -> list[tuple[str, str, str]]:
    return [(name, f"{count:,}", f"{count / total:.1%}") for name, count in rows]


def _changes(manifest: Mapping[str, Any]) -> str:
    """Return what was changed: CC BY 4.0, section 3(a)(1)(B), asks to say so."""
    if manifest["card"].get("changes"):
        return _bullets(manifest["card"]["changes"])
    settings, compound = manifest["settings"], manifest["counts"].get("compound", {})
    made = ["panels cut out of a figure were encoded anew"] if settings.get("panels") == "split" else []
    if settings.get("max_side"):
        made.append(
            f"pictures with a side of more than {settings['max_side']} pixels were shrunk to it and encoded anew"
        )
    told = "; ".join(made)
    lines = [f"{told[0].upper()}{told[1:]}; all others are the original bytes."] if made else [_ORIGINAL]
    if set(compound) - {NOT_STATED} or "panels" in settings:
        lines.append(_PANELS[settings.get("panels", "keep")])
    if settings.get("task") == "vqa":
        lines.append("Questions and answers were made from captions by templates; no person checked them.")
    if "caption" in manifest["counts"]["task"] and not manifest["synthetic"]:
        lines.append("Captions are the articles' words as plain text, without their markup.")
    return _bullets(lines)


_ORIGINAL = "Pictures are the original bytes, never re-encoded."
_PANELS = {
    "keep": "Compound figures are kept whole, each with its whole caption; `compound` marks them.",
    "split": "Compound figures were cut into their panels, each with its part of the caption, where the gutters of the "
    "picture and the letters of the caption agree; the others are kept whole, and `compound` marks them.",
    "drop": "Compound figures were left out.",
}


def _attribution(extras: Extras) -> str:
    if credits.NAME not in extras.files:
        return ""
    asked = (
        f"`{credits.NAME}` has one row for each group with samples (article, patient or image), and their number. Who "
        "passes samples on passes on these rows too. What CC BY 4.0 asks for in section 3(a)(1), and where it stands:"
    )
    form = (
        "`license` there is that of the whole article; a figure's own stands with its sample, whose `license_scope` is "
        "then `figure`. Tab-separated, UTF-8, first line the names of the columns. Tabs, line ends and control "
        "characters became blanks. A cell that begins with `=`, `+`, `-`, `@` or a quotation mark has an apostrophe "
        "before it, so that no spreadsheet runs it."
    )
    return f"{asked}\n\n{_table(('asked for', 'answered by'), credits.ANSWERS)}\n\n{form}"


def _picture(extras: Extras) -> str:
    if extras.sheet is None or not extras.sheet.samples:
        return ""
    shown = f"![{extras.sheet.samples} samples of the data set]({contact_sheet.NAME})\n\n"
    shown += f"{extras.sheet.samples} samples, chosen by a hash of their ids; each under the license beside it."
    if extras.sheet.withheld:
        shown += (
            f" Pictures not shown: {extras.sheet.withheld}, since their license does not allow changed copies, as "
            "shrunk ones are, to be passed on, or a third party has rights in them."
        )
    return shown


def _licenses(manifest: Mapping[str, Any]) -> str:
    counts = manifest["counts"]
    total = max(1, counts["samples"])
    licenses = _shares(manifest["licenses"].items(), total)
    uses = _shares(counts["commercial_use"].items(), total)
    third = counts["third_party"].get("yes", 0)
    others = (
        f"\n\nSamples with an image, or a part of it, of a third party (`third_party`): {third:,}." if third else ""
    )
    return (
        f"Policy: `--license {manifest['settings']['license']}`. Every sample carries its own license, where it was "
        "stated (`license_scope`) and the words that say so (`license_evidence`).\n\n"
        + _table(("license", "samples", "share"), licenses)
        + "\n\n"
        + _table(("commercial use", "samples", "share"), uses)
        + others
    )


def _models(manifest: Mapping[str, Any]) -> str:
    """Return what a model trained on all of it may, by the rules that a report and a model's card go by."""
    found = policy.verdict_of_parts({}, manifest["training_licenses"])
    open_questions = found.reasons if "unknown" in (found.commercial_use, found.may_share) else []
    follows = (
        f"As far as this data goes: commercial use **{found.commercial_use}**, passing the model on "
        f"**{found.may_share}**. The license of the base model counts too; `medvlm licenses check RECIPE` says what "
        "follows from both."
    )
    parts = [follows, _bullets([*found.forbids, *open_questions, *found.obligations]), found.notice]
    return "\n\n".join(part for part in parts if part)


def _drops(manifest: Mapping[str, Any]) -> str:
    drops = manifest["drops"]
    if not drops:
        return "Nothing that was read was left out."
    rows = [(reason, f"{count:,}") for reason, count in drops.items()]
    read = manifest["counts"]["read"]
    return f"Of {read:,} records read, {sum(drops.values()):,} were left out; each is in `rejects.jsonl`.\n\n" + _table(
        ("reason", "records"), rows
    )


def _made(manifest: Mapping[str, Any]) -> str:
    return (
        f"With medvlm {manifest['medvlm']}:\n\n```\n{manifest['command']}\n```\n\nInputs with their hashes, settings "
        f"and counts are in `manifest.json`. Fingerprint of the data: `{manifest['fingerprint']}`; of the split: "
        f"`{manifest['split_hash']}`."
    )


def _limits(manifest: Mapping[str, Any]) -> str:
    lines = known_problems(manifest["card"])
    if "near_duplicates" not in manifest["counts"]:
        lines.append("Near duplicates (the same picture in another size or format) are not looked for.")
    return _bullets([*lines, "Licenses are as the source states them; a wrong statement there is wrong here."])


def _files(extras: Extras) -> str:
    told = [f"`{name}`: {FILES[name]}" for name in FILES if name in extras.files]
    return _bullets([*told, "`manifest.json`: inputs, settings, counts and hashes"]) if told else ""


def render(manifest: Mapping[str, Any], extras: Extras | None = None) -> str:
    """Return the whole card as Markdown with its YAML block."""
    card, extras = manifest["card"], extras or Extras()
    head = yaml.safe_dump(metadata(manifest), sort_keys=False, allow_unicode=True, width=120)
    sections = (
        _section("Splits", _splits(manifest)),
        _section("Licenses", _licenses(manifest)),
        _section("Models trained on it", _models(manifest)),
        _section("Attribution", _attribution(extras)),
        _section("Contents", _contents(manifest, extras)),
        _section("Duplicates", _duplicates(manifest)),
        _section("Left out", _drops(manifest)),
        _section("Changes to the pictures and texts", _changes(manifest)),
        _section("How it was made", _made(manifest)),
        _section("Files", _files(extras)),
        _section("Known limits", _limits(manifest)),
        _section("Citation", _bullets(card.get("citation") or "")),
    )
    title = card.get("title") or manifest["source"]
    top = "\n\n".join(part for part in (f"# {title}", _picture(extras), _summary(manifest)) if part)
    return f"---\n{head}---\n\n{top}\n\n" + "\n".join(part for part in sections if part)


def summary(manifest: Mapping[str, Any], out: str) -> list[str]:
    """Return the few lines that end `prepare`: samples, splits, licenses, what was left out, where it lies."""
    counts = manifest["counts"]
    kind = "synthetic samples" if manifest["synthetic"] else "samples"
    lines = [f"{counts['samples']} {kind} in {counts['groups']} groups from {counts['units']} units -> {out}"]
    tables = (("split", counts["split"]), ("license", manifest["licenses"]), ("left out", manifest["drops"]))
    for title, rows in tables:
        lines += [f"  {title:<9} {name:<34} {rows[name]:>9}" for name in rows]
    return lines
