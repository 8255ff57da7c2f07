"""`croissant.json` of a data set: Croissant 1.0 metadata (JSON-LD), by which other tools find and read the shards.

Made from the manifest's counts and shards; no clock goes into it. `datePublished` is left out, as a data set has no
date of its own before it is published somewhere; `temporalCoverage` tells the years of its articles.
The format: docs.mlcommons.org/croissant/docs/croissant-spec.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from medvlm.data.schema import SCHEMA
from medvlm.data.splits import SPLITS
from medvlm.data.write import NOT_STATED
from medvlm.io import sha256_file, write_json
from medvlm.licenses import expressions

NAME = "croissant.json"
CONFORMS_TO = "http://mlcommons.org/croissant/1.0"

_TERMS = """
citeAs column equivalentProperty extract field fileObject fileProperty fileSet format includes isLiveDataset jsonPath
key md5 parentField path recordSet references regex repeated replace samplingRate separator source subField transform
"""
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    **{term: f"cr:{term}" for term in _TERMS.split()},
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
}
"""The names that the format's own documents use, and what they stand for."""

_BESIDE = {
    "attribution.tsv": ("text/tab-separated-values", "Whom to name for the samples of each article or group."),
    "articles.jsonl": ("application/jsonlines", "What became of each unit of input."),
    "rejects.jsonl": ("application/jsonlines", "Records that were left out, each with its reason."),
    "contact_sheet.png": ("image/png", "24 of the samples on one page."),
}
_FILE_SET = {
    "@type": "cr:FileSet",
    "@id": "shards",
    "name": "shards",
    "description": "The parquet files of all splits, in the folder of this file.",
    "encodingFormat": "application/x-parquet",
    "includes": "data/*.parquet",
}
_TYPES = {pa.string(): "sc:Text", pa.bool_(): "sc:Boolean", pa.int32(): "sc:Integer"}

DESCRIPTIONS = {
    "id": "Unique and stable name: group/figure/panel/task/ordinal.",
    "image": "The picture.",
    "task": "caption, vqa or report.",
    "prompt": "The question; empty for caption and report.",
    "target": "The text to learn: caption, answer or report.",
    "mentions": "Paragraphs of the article that cite the figure.",
    "language": "ISO 639-1 code.",
    "modality": "What made the picture.",
    "modality_evidence": "What told the modality.",
    "more_images": "Further views of the same study.",
    "views": "Projection of each image, the first one's first: PA, AP, LATERAL, or the data set's own words.",
    "panel": "Panel of a compound figure.",
    "kind": "figure, supplementary, table, graphic or equation.",
    "compound": "Whether the figure has several panels.",
    "organ": "Organ shown.",
    "finding": "Known findings, comma-separated.",
    "question_type": "What is asked about.",
    "answer_type": "open, closed or choice.",
    "choices": "Answers to choose from.",
    "concepts": "Concepts of the text as UMLS identifiers.",
    "indication": "Why the study was made.",
    "journal": "Journal of the article.",
    "year": "Year of publication.",
    "article_type": "JATS article-type.",
    "duplicate_of": "Id of the sample whose image this one repeats.",
    "original_text": "The text before it was changed.",
    "identifiers": "Kinds of identifiers that a scan found in the texts; none where it found none.",
    "source": "Name of the source.",
    "group": "Article, patient or image: what splits go by.",
    "official_split": "The side of the published split, where there is one.",
    "pmcid": "PubMed Central id.",
    "doi": "DOI of the article.",
    "figure_id": "The figure's id in its article.",
    "label": "The figure's label, as printed.",
    "file_name": "Name of the image file.",
    "sha256": "SHA-256 of the image's bytes.",
    "license": "SPDX expression or LicenseRef; none where none is stated.",
    "license_scope": "Where the license was stated: figure, article or dataset.",
    "license_evidence": "The words or the address that state the license.",
    "third_party": "Whether the image or a part of it belongs to a third party.",
    "commercial_use": "yes, no, conditional or unknown.",
}


def write(path: Path | str, folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the Croissant metadata of the data set in `folder`.

    Args:
        path: the JSON file, usually `NAME` in the data set's folder; written atomically.
        folder: the data set; files beside the shards are described where they lie there.
        manifest: of the data set; its own hash is not needed.

    Raises:
        ResourceError: the disk is full.
    """
    write_json(path, describe(manifest, _beside(folder)))


def describe(manifest: Mapping[str, Any], beside: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Return the metadata; `beside` are descriptions of further files."""
    card, counts = manifest["card"], manifest["counts"]
    shards = [_shard(shard) for shard in manifest["shards"]]
    title = str(card.get("title") or manifest["source"])
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": title,
        "description": _description(manifest),
        "license": licenses(manifest["licenses"]),
        "version": f"{manifest['schema']}.0.0+{manifest['fingerprint'][:12]}",
        "citeAs": _citation(manifest, title),
        "inLanguage": sorted(code for code in counts["language"] if code != NOT_STATED),
        "keywords": ["medical images", "captions", *sorted(counts["task"]), "medvlm"],
        **_optional(manifest),
        "distribution": [*shards, _FILE_SET, *(beside or [])],
        "recordSet": [_splits(counts), _records(counts)],
    }


def _optional(manifest: Mapping[str, Any]) -> dict[str, Any]:
    years = sorted(int(year) for year in manifest["counts"].get("year", ()) if year.isdecimal())
    told = {"isBasedOn": manifest["card"].get("homepage")}
    if years:
        told["temporalCoverage"] = f"{years[0]}/{years[-1]}"
    return {key: value for key, value in told.items() if value}


def _description(manifest: Mapping[str, Any]) -> str:
    counts = manifest["counts"]
    parts = (
        manifest["card"].get("description"),
        "Synthetic: no patient is shown or described." if manifest["synthetic"] else "",
        f"{counts['samples']:,} samples in {counts['groups']:,} groups, each with its own license.",
        "Not for clinical use.",
    )
    return " ".join(str(part) for part in parts if part)


def _citation(manifest: Mapping[str, Any], title: str) -> str:
    cited = manifest["card"].get("citation") or ()
    told = cited if isinstance(cited, str) else " ".join(str(line) for line in cited)
    return told or f"{title}, made with medvlm {manifest['medvlm']}; data {manifest['fingerprint'][:16]}."


def licenses(counts: Mapping[str, int]) -> list[str]:
    """Return every license that samples carry: the address of what SPDX lists, else its name."""
    keys = [key for name in counts for key in (expressions.symbols(name) if name != NOT_STATED else [name])]
    return [_address(key) for key in dict.fromkeys(keys)]


def _address(key: str) -> str:
    listed = expressions.is_license_id(key) and not key.lower().startswith("licenseref-")
    return f"https://spdx.org/licenses/{key}.html" if listed else key


def _shard(shard: Mapping[str, Any]) -> dict[str, Any]:
    return _file(shard["name"], "application/x-parquet", shard["sha256"], shard["bytes"], f"{shard['rows']} samples.")


def _beside(folder: Path) -> list[dict[str, Any]]:
    """Describe the files beside the shards that are there."""
    found = ((folder / name, name, *about) for name, about in _BESIDE.items())
    return [
        _file(name, form, sha256_file(path), path.stat().st_size, words)
        for path, name, form, words in found
        if path.is_file()
    ]


def _file(name: str, form: str, sha256: str, size: int, description: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "description": description,
        "contentUrl": name,
        "contentSize": f"{size} B",
        "encodingFormat": form,
        "sha256": sha256,
    }


def _splits(counts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "description": "Names of the splits that hold samples.",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": "splits/name",
                "name": "name",
                "description": "Name of the split.",
                "dataType": "sc:Text",
            }
        ],
        "data": [{"splits/name": split} for split in SPLITS if counts["split"].get(split)],
    }


def _records(counts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "samples",
        "name": "samples",
        "description": f"{counts['samples']:,} samples, one a row.",
        "key": {"@id": "samples/id"},
        "field": [_split_field(), *(_field(field) for field in SCHEMA)],
    }


def _split_field() -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": "samples/split",
        "name": "split",
        "description": "Split that the sample belongs to.",
        "dataType": "sc:Text",
        "references": {"field": {"@id": "splits/name"}},
        "source": {
            "fileSet": {"@id": "shards"},
            "extract": {"fileProperty": "fullpath"},
            # It matches its own result too: mlcroissant applies it twice to a field that refers to another.
            "transform": {"regex": r"(?:.*/)?([a-z]+)(?:-\d+-of-\d+\.parquet)?$"},
        },
    }


def _field(column: pa.Field) -> dict[str, Any]:
    repeated = pa.types.is_list(column.type)
    kind = column.type.value_type if repeated else column.type
    source: dict[str, Any] = {"fileSet": {"@id": "shards"}, "extract": {"column": column.name}}
    if kind not in _TYPES:
        source["transform"] = {"jsonPath": "bytes"}
    return {
        "@type": "cr:Field",
        "@id": f"samples/{column.name}",
        "name": column.name,
        "description": DESCRIPTIONS[column.name],
        "dataType": _TYPES.get(kind, "sc:ImageObject"),
        **({"repeated": True} if repeated else {}),
        "source": source,
    }
