"""NegEx (Chapman et al. 2001, J Biomed Inform 34:301) through negspacy, the other engine of negation."""

from __future__ import annotations

from collections.abc import Sequence

from medvlm.errors import MissingExtraError
from medvlm.evaluate.findings.sentences import Cue

_KEY = "findings"


class Negex:
    """negspacy's terms and reach on a blank English pipeline; nothing is downloaded.

    Raises:
        MissingExtraError: negspacy is not installed.
    """

    name = "negspacy"

    def __init__(self) -> None:
        try:
            import negspacy.negation  # noqa: F401 - registers the pipe
            import spacy
        except ImportError:
            raise MissingExtraError("negation by negspacy", "clinical") from None
        self._language = spacy.blank("en")
        self._sentences = self._language.add_pipe("sentencizer")
        self._negex = self._language.add_pipe("negex", config={"span_keys": [_KEY]})

    def negated(self, text: str, spans: Sequence[tuple[int, int]], cues: Sequence[Cue]) -> list[bool]:
        """Return for each of `spans` whether NegEx takes it back; `cues`, of the built-in rules, are not read."""
        document = self._sentences(self._language.make_doc(text))
        mentions = [document.char_span(start, end, alignment_mode="expand") for start, end in spans]
        document.spans[_KEY] = mentions
        self._negex(document)
        return [bool(mention._.negex) for mention in mentions]
