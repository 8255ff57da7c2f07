"""`README.md` of a prepared data set: a dataset card with Hugging Face metadata, made from the manifest alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from medvlm.data.splits import SPLITS
from medvlm.data.write import NOT_STATED

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
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


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
    shares = " / ".join(f"{share:g}" for share in settings["split_ratio"])
    return (
        _table(("split", "samples", "groups"), rows) + f"\n\nBy a hash of `group` (article, patient or image; shares "
        f"{shares}, seed {settings['seed']}): a group is never on two sides. Groups that share an image, byte for "
        f"byte, or a DOI go together; {counts['duplicate_images']:,} samples repeat an image of another group "
        "(`duplicate_of`)."
    )


def _licenses(manifest: Mapping[str, Any]) -> str:
    counts = manifest["counts"]
    total = max(1, counts["samples"])
    licenses = [(name, f"{rows:,}", f"{rows / total:.1%}") for name, rows in manifest["licenses"].items()]
    uses = [(name, f"{rows:,}", f"{rows / total:.1%}") for name, rows in counts["commercial_use"].items()]
    return (
        f"Policy: `--license {manifest['settings']['license']}`. Every sample carries its own license, where it was "
        "stated (`license_scope`) and the words that say so (`license_evidence`).\n\n"
        + _table(("license", "samples", "share"), licenses)
        + "\n\n"
        + _table(("commercial use", "samples", "share"), uses)
    )


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
        f"`{manifest['split_hash']}`. Pictures are the original bytes, never re-encoded."
    )


def render(manifest: Mapping[str, Any]) -> str:
    """Return the whole card as Markdown with its YAML block."""
    card = manifest["card"]
    head = yaml.safe_dump(metadata(manifest), sort_keys=False, allow_unicode=True, width=120)
    limits = _bullets(
        [
            *known_problems(card),
            "Near duplicates (the same picture in another size or format) are not looked for.",
            "Licenses are as the source states them; a wrong statement there is wrong here.",
        ]
    )
    citation = card.get("citation") or ""
    sections = (
        _section("Splits", _splits(manifest)),
        _section("Licenses", _licenses(manifest)),
        _section("Left out", _drops(manifest)),
        _section("How it was made", _made(manifest)),
        _section("Known limits", limits),
        _section("Citation", _bullets(citation)),
    )
    title = card.get("title") or manifest["source"]
    return f"---\n{head}---\n\n# {title}\n\n{_summary(manifest)}\n\n" + "\n".join(part for part in sections if part)


def summary(manifest: Mapping[str, Any], out: str) -> list[str]:
    """Return the few lines that end `prepare`: samples, splits, licenses, what was left out, where it lies."""
    counts = manifest["counts"]
    kind = "synthetic samples" if manifest["synthetic"] else "samples"
    lines = [f"{counts['samples']} {kind} in {counts['groups']} groups from {counts['units']} units -> {out}"]
    tables = (("split", counts["split"]), ("license", manifest["licenses"]), ("left out", manifest["drops"]))
    for title, rows in tables:
        lines += [f"  {title:<9} {name:<34} {rows[name]:>9}" for name in rows]
    return lines
