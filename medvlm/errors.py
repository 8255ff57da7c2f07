"""Every exception that medvlm raises on purpose, and the exit code each one becomes.

    MedvlmError                1   a defect in medvlm itself, or anything unforeseen
    ├── UsageError             2   the command line is wrong: unknown metric, source, flag
    ├── InputError             3   a data set, file or run folder is wrong
    │   └── RecipeError        3   a recipe is wrong; carries every problem at once
    ├── AccessError            4   gated, missing or unreachable weights, network failures
    ├── MissingExtraError      5   an optional dependency is not installed; names the pip line
    ├── LicenseError           6   a license forbids what was asked
    └── ResourceError          7   disk full, out of memory

    130 is an interrupt (Ctrl-C), 0 is success.

An error's text is one line: what is wrong, where, and how to mend it.
"""

from __future__ import annotations


class MedvlmError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 1


class UsageError(MedvlmError):
    """The command line asks for something that does not exist."""

    exit_code = 2


class InputError(MedvlmError):
    """A data set, file or run folder cannot be used as it is."""

    exit_code = 3


class RecipeError(InputError):
    """A recipe is wrong; `problems` holds one line for each thing to mend."""

    def __init__(self, where: str, problems: list[str]) -> None:
        self.where = where
        self.problems = problems
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"{where}: {count}: " + "; ".join(problems))


class AccessError(MedvlmError):
    """Weights or data cannot be reached, or need an agreement first."""

    exit_code = 4


class MissingExtraError(MedvlmError):
    """An optional dependency is absent."""

    exit_code = 5

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional package: pip install 'medvlm[{extra}]'")


class LicenseError(MedvlmError):
    """A license forbids what was asked."""

    exit_code = 6


class ResourceError(MedvlmError):
    """The disk is full or memory ran out."""

    exit_code = 7
