"""`attribution.tsv` of a data set: whom to name for its samples, one row an article (or patient, or image).

Creative Commons licenses ask whoever passes a work on to name its creator, its copyright and license notices, and where
it lies (CC BY 4.0, section 3(a)(1)). `ANSWERS` says which column answers what; the dataset card repeats it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medvlm.io import atomic_write

NAME = "attribution.tsv"

COLUMNS = (
    "group",
    "pmcid",
    "doi",
    "title",
    "authors",
    "journal",
    "year",
    "license",
    "license_url",
    "copyright",
    "samples",
)
"""Columns of the file, in order. All but the last are fields of `medvlm.data.sample.Credit`."""

ANSWERS = (
    ("identification of the creator (A i)", "`authors`, with `title`, `journal` and `year`"),
    ("a copyright notice (A ii)", "`copyright`, as the article prints it"),
    ("a notice that refers to the license (A iii, C)", "`license`, and `license_url` where the article gives one"),
    ("a notice that refers to the disclaimer of warranties (A iv)", "the text behind `license_url`"),
    ("a URI or hyperlink to the material (A v)", "`doi` (https://doi.org/...) and `pmcid`"),
    ("whether the material was modified (B)", '"Changes to the pictures and texts" in this card'),
)
"""What CC BY 4.0, section 3(a)(1), asks for, and what answers it."""

# A spreadsheet takes a cell that begins so for a formula, and one that begins with a quotation mark for a quoted one.
_RISKY = tuple('=+-@"＝＋－＠')
_SQUEEZED = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]+")


def cell(value: Any) -> str:
    """Return a value as one cell: no tab, line end or control character, and nothing that a spreadsheet would run.

    None is the empty cell. An apostrophe goes before a cell that begins with `=`, `+`, `-`, `@` or a quotation mark.
    """
    text = "" if value is None else str(value)
    text = _SQUEEZED.sub(" ", text.encode("utf-8", "backslashreplace").decode()).strip()
    return f"'{text}" if text.startswith(_RISKY) else text


def write(path: Path | str, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write the attribution file and return its number of rows.

    Args:
        path: usually `NAME` in the data set's folder; written atomically as UTF-8, lines ending with "\\n".
        rows: one for each group that has samples, in the order to be written: the values of `COLUMNS` by name. A row
            without credit names what is known; what is absent or None becomes an empty cell, other keys are left out.

    Raises:
        ResourceError: the disk is full.
    """
    count = 0
    with atomic_write(path) as file:
        file.write("\t".join(COLUMNS) + "\n")
        for row in rows:
            file.write("\t".join(cell(row.get(name)) for name in COLUMNS) + "\n")
            count += 1
    return count
