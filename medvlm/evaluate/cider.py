"""CIDEr (Vedantam et al. 2015): CIDEr-D as everybody reports it, and CIDEr as first defined.

Both compare n-grams of orders 1 to 4, weighted by their inverse document frequency over the segments' references,
times 10. `cider` is CIDEr-D as coco-caption computes it (pycocoevalcap to 1e-9): counts clipped to the reference's and
a Gaussian penalty on the difference in length. `cider_unclipped` is the plain cosine, without either.

The corpus of the document frequencies is part of the score: a single segment scores 0 whatever it says, because the
logarithm of one document is 0, and the same texts score higher alone than among others. The frequencies can be fixed,
in a file of `save_idf`, or taken from more references than are scored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medvlm.errors import InputError
from medvlm.evaluate.metrics import Options, Segments, means
from medvlm.evaluate.ngrams import Corpus, Floats, Ints, NgramCounts
from medvlm.evaluate.signature import references_per_segment, signature
from medvlm.evaluate.tokenize import signed
from medvlm.io import stable_hash, write_json

_ORDERS = 4
_SCALE = 10.0
_FORMAT = "medvlm-cider-idf"
_VERSION = 1
_WRITER = "medvlm eval --save-idf"


class Cider:
    """CIDEr-D and unclipped CIDEr over the tokens of `tokenizer`."""

    name = "cider"
    keys = ("cider", "cider_unclipped")

    def __init__(self, options: Options | None = None, sigma: float = 6.0) -> None:
        self.options, self.sigma = options or Options(), sigma
        self._file = _read_idf(self.options) if self.options.idf else None
        self._hash = stable_hash(self._file)[:16] if self._file else ""

    def signature(self, segments: Segments) -> str:
        """Return the settings as one string, the corpus of the document frequencies among them."""
        options = self.options
        return signature(
            "cider-d",
            n=_ORDERS,
            sigma=f"{self.sigma:g}",
            unclipped="cosine,sigma=none",
            idf=self._idf_name(segments),
            tok=signed(options.tokenizer),
            case=options.case,
            refs=references_per_segment(map(len, segments.references)),
        )

    def _idf_name(self, segments: Segments) -> str:
        if self._file is not None:
            return f"file(n={self._file['n']},hash={self._hash})"
        if self.options.idf_references is not None:
            return f"references(n={len(self.options.idf_references)})"
        return f"references(n={len(segments.predictions)})"

    def statistics(self, segments: Segments) -> Floats:
        """Return [n, 3]: the CIDEr-D and the unclipped CIDEr of each segment, and 1.

        Raises:
            InputError: the file of document frequencies holds those of another tokenizer or case.
        """
        corpus, counted = self._corpus(segments)
        clipped, plain = np.zeros((2, len(corpus.length)))
        for order in range(1, _ORDERS + 1):
            counts = corpus.ngrams(order)
            one, other = _similarities(corpus, counts, self._idf(corpus, counts, order, counted))
            clipped += one
            plain += other
        # coco-caption measures length in bigrams.
        bigrams = np.maximum(corpus.length - 1, 0)
        delta = bigrams[corpus.own_hypothesis] - bigrams
        clipped *= np.exp(-(delta**2) / (2 * self.sigma**2))
        n = len(segments.predictions)
        scores = [_means_of_references(corpus, similarity)[:n] for similarity in (clipped, plain)]
        return np.stack([*scores, np.ones(n)], axis=1)

    def of_sums(self, sums: Floats) -> Floats:
        """Return the means [R, 2]; NaN of none."""
        return means(sums)

    def _corpus(self, segments: Segments) -> tuple[Corpus, int]:
        """Return the corpus to read, and from which of its segments on the document frequencies are counted."""
        others = self.options.idf_references
        if others is None or self._file is not None:
            return segments.corpus(self.options.tokenizer), 0
        both = Segments(
            [*segments.predictions, *("" for _ in others)], [*segments.references, *others], case=segments.case
        )
        return both.corpus(self.options.tokenizer), len(segments.predictions)

    def _idf(self, corpus: Corpus, counts: NgramCounts, order: int, counted: int) -> Floats:
        """Return the logarithm [grams] of how many documents there are for one that holds each n-gram."""
        if self._file is not None:
            known = self._file["frequencies"]
            frequency = np.fromiter((known.get(gram, 0) for gram in corpus.texts(order)), np.float64, counts.grams)
            return _log_idf(frequency, self._file["n"])
        return _log_idf(_frequencies(corpus, counts, counted), corpus.segments - counted)


def save_idf(
    path: Path | str, references: Sequence[Sequence[str]], tokenizer: str = "ptb", case: str = "lower"
) -> None:
    """Write the document frequencies of `references` [N][r] for `Options.idf`, as JSON.

    The file holds format, version, tokenizer, case, n (the number N of documents) and frequencies: in how many of them
    each n-gram of orders 1 to 4 occurs, by its words with a blank between them.

    Raises:
        InputError: no reference at all.
        UsageError: no such tokenizer or case.
    """
    if not references:
        raise InputError("no references to count document frequencies in; give at least one list of texts")
    corpus = Segments([""] * len(references), references, case=case).corpus(tokenizer)
    frequencies: dict[str, int] = {}
    for order in range(1, _ORDERS + 1):
        counts = corpus.ngrams(order)
        found = _frequencies(corpus, counts, 0).astype(np.int64).tolist()
        frequencies |= dict(zip(corpus.texts(order), found, strict=True))
    head = {"format": _FORMAT, "version": _VERSION, "tokenizer": signed(tokenizer), "case": case}
    write_json(path, {**head, "n": len(references), "frequencies": dict(sorted(frequencies.items()))})


def _read_idf(options: Options) -> dict[str, Any]:
    """Return the content of the file of document frequencies."""
    path = options.idf
    assert path is not None
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); write it with {_WRITER}") from error
    _check_idf(path, content)
    for key, wanted in (("tokenizer", signed(options.tokenizer)), ("case", options.case)):
        if content[key] != wanted:
            raise InputError(
                f"{path}: document frequencies of {key} {content[key]}, but {wanted} is asked for; "
                f"score with --{key} {content[key]}, or count them anew"
            )
    return dict(content)


def _check_idf(path: Path | str, content: object) -> None:
    """Raise where `content` is not what `save_idf` writes."""
    if not isinstance(content, Mapping) or content.get("format") != _FORMAT:
        raise InputError(f"{path}: not a file of document frequencies; write it with {_WRITER}")
    if content.get("version") != _VERSION:
        raise InputError(f"{path}: version {content.get('version')}, but this medvlm reads version {_VERSION}")
    n, frequencies = content.get("n"), content.get("frequencies")
    most = n if type(n) is int else float("inf")
    sound = {
        "tokenizer": isinstance(content.get("tokenizer"), str),
        "case": isinstance(content.get("case"), str),
        "n": type(n) is int and n > 0,
        "frequencies": isinstance(frequencies, Mapping)
        and all(type(found) is int and 0 <= found <= most for found in frequencies.values()),
    }
    wrong = [f'"{key}"' for key, right in sound.items() if not right]
    if wrong:
        raise InputError(f"{path}: {', '.join(wrong)} damaged or left out; write the file anew with {_WRITER}")


def _frequencies(corpus: Corpus, counts: NgramCounts, counted: int) -> Floats:
    """Return [grams] in how many segments from number `counted` on any reference has each n-gram."""
    chosen = counts.referenced
    if counted:
        chosen = chosen & (corpus.segment[counts.document[counts.group_start]] >= counted)
    return np.bincount(counts.gram[counts.group_start[chosen]], minlength=counts.grams).astype(np.float64)


def _log_idf(frequency: Floats, documents: int) -> Floats:
    found: Floats = np.log(max(documents, 1)) - np.log(np.maximum(frequency, 1.0))
    return found


def _similarities(corpus: Corpus, counts: NgramCounts, idf: Floats) -> tuple[Floats, Floats]:
    """Return [D] each reference's clipped and plain cosine with its hypothesis over one order (hypotheses: 0)."""
    documents = len(corpus.length)
    weight = counts.count * idf[counts.gram]
    norm = np.sqrt(np.bincount(counts.document, weight**2, documents))
    scale = norm[corpus.own_hypothesis] * norm
    references, own = counts.shared
    where, ours, theirs = counts.document[references], weight[own], weight[references]
    return (
        _divided(np.bincount(where, np.minimum(ours, theirs) * theirs, documents), scale),
        _divided(np.bincount(where, ours * theirs, documents), scale),
    )


def _divided(dots: Floats | Ints, scale: Floats) -> Floats:
    cosine: Floats = np.divide(dots, scale, out=np.zeros(len(dots)), where=scale > 0)
    return cosine


def _means_of_references(corpus: Corpus, similarity: Floats) -> Floats:
    """Return [segments] the scaled mean over orders and references, from sums over orders [D]."""
    total = np.bincount(corpus.segment, similarity, corpus.segments)
    scores: Floats = total / _ORDERS / np.maximum(corpus.references(), 1) * _SCALE
    return scores
