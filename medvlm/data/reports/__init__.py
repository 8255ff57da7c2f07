"""Reports as radiologists write them: split by their headings, one or two sections chosen, cleaned of what is no text.

    sections(text) -> Sections          what is said under which heading
    chosen(sections, "findings")        what to learn, as written; None where the report lacks it (`lacking` says what)
    clean(text)                         one line without marks of the page; `clean` lists every rule
    target(sections, "findings")        the text to learn: what was chosen, cleaned section by section

Nothing is thrown away for good: whoever keeps a cleaned text keeps the original beside it (`Sample.original_text`).
"""

from __future__ import annotations

from medvlm.data.reports.cleaning import MARK, clean, says_something
from medvlm.data.reports.sectioning import CHOICES, Choice, Sections, check_choice, chosen, lacking, sections, target

__all__ = [
    "CHOICES",
    "MARK",
    "Choice",
    "Sections",
    "check_choice",
    "chosen",
    "clean",
    "lacking",
    "says_something",
    "sections",
    "target",
]
