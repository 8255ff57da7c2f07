"""Metrics of other packages, called as they are: RadGraph, CheXbert, BERTScore.

Each needs its extra, and loads a model that its package downloads from the Hugging Face Hub at the first use; a line
says so before. RadGraph and CheXbert know reports of chest X-rays in English, and little else. The license of a package
is not that of its model, nor of the texts that this was trained on.

What the packages ask of their surroundings (read in radgraph 0.1.18, f1chexbert 0.0.2, bert-score 0.3.13): none pins an
older transformers or torch, and yet all of them call what transformers 5 does not have any more (f1chexbert also what
huggingface_hub 1 and newer releases of scikit-learn do not). The adapters stand in for that and nothing else: tests run
each package with a small random model against its own numbers.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any, ClassVar

import numpy as np

from medvlm.errors import AccessError, InputError, MissingExtraError
from medvlm.evaluate.findings.phrases import FIVE, OBSERVATIONS
from medvlm.evaluate.metrics import Options, Segments, means
from medvlm.evaluate.ngrams import Floats
from medvlm.evaluate.signature import references_per_segment, signature

_SCORERS = "StanfordAIMI/RRG_scorers"
_told: set[str] = set()


class _Adapter:
    """What the metrics of other packages share.

    Raises:
        MissingExtraError: the package is not installed.
    """

    name: ClassVar[str]
    package: ClassVar[str]
    """What is imported."""
    distribution: ClassVar[str]
    """What is installed, and by which version scores differ."""
    keys: tuple[str, ...]

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()
        if importlib.util.find_spec(self.package) is None:
            raise self._missing()

    def _missing(self) -> MissingExtraError:
        return MissingExtraError(f"the metric {self.name}", self.name)

    def _module(self) -> Any:
        """Import the package.

        Raises:
            MissingExtraError: something that it imports is not installed.
            InputError: it does not fit the packages that are installed.
        """
        try:
            return importlib.import_module(self.package)
        except ModuleNotFoundError as error:
            raise self._missing() from error
        except ImportError as error:
            raise InputError(
                f"the metric {self.name}: {self.distribution} {self._version()} does not fit the other packages "
                f"({_line(error)}); install another version of it"
            ) from error

    def _version(self) -> str:
        try:
            return metadata.version(self.distribution)
        except metadata.PackageNotFoundError:
            return "unknown"

    def _tell(self, what: str) -> None:
        """Say once in a process what is downloaded."""
        from medvlm.cli.common import warn

        if self.name not in _told:
            _told.add(self.name)
            warn(f"the metric {self.name} downloads {what}, unless it did so before")

    @contextlib.contextmanager
    def _loading(self) -> Iterator[None]:
        """Turn what goes wrong with a model into one line."""
        try:
            yield
        except (MemoryError, MissingExtraError):
            raise
        except Exception as error:
            # One package wraps every failure in a bare Exception, another prints it and goes on.
            raise AccessError(
                f"the metric {self.name}: its model is not there and cannot be fetched, or cannot be read "
                f"({_line(error)}); use it once where the Hugging Face Hub is in reach"
            ) from error

    def _signature(self, segments: Segments, **settings: object) -> str:
        counts = np.array([len(own) for own in segments.references])
        return signature(
            self.name, **settings, refs=references_per_segment(counts), **{self.distribution: self._version()}
        )


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the packages' words out of our output, which may be JSON."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _older_tokenizers() -> Iterator[None]:
    """Give tokenizers, for a while, two methods that they had before transformers 5, as models of BERT's kind need."""
    from transformers import PreTrainedTokenizerBase

    def enclosed(self: Any, ids: Sequence[int]) -> list[int]:
        return [self.cls_token_id, *ids, self.sep_token_id]

    given = {
        "encode_plus": lambda self, *texts, **how: self(*texts, **how),
        "build_inputs_with_special_tokens": enclosed,
    }
    absent = [name for name in given if not hasattr(PreTrainedTokenizerBase, name)]
    for name in absent:
        setattr(PreTrainedTokenizerBase, name, given[name])
    try:
        yield
    finally:
        for name in absent:
            delattr(PreTrainedTokenizerBase, name)


def _pairs(segments: Segments) -> tuple[list[str], list[str], list[int]]:
    """Return every prediction beside each of its references, and where each segment begins."""
    predictions = [text for text, own in zip(segments.predictions, segments.references, strict=True) for _ in own]
    references = [reference for own in segments.references for reference in own]
    starts = np.cumsum([0, *map(len, segments.references)])[:-1]
    return predictions, references, starts.tolist()


class RadGraph(_Adapter):
    """F1 of the findings and relations that RadGraph reads in a report (Jain et al., arXiv:2106.14463).

    `radgraph_simple` compares entities, `radgraph_partial` entities with whether a relation begins at them (RG_ER, the
    one that papers report as RadGraph F1), `radgraph_complete` entities with their relations. Means over the segments;
    of several references the best for each key. The model is RadGraph-XL (Delbrouck et al., ACL Findings 2024).

    Args:
        options: not used: the package has its own tokens.
        model_type: radgraph or radgraph-xl, as the package calls them.
    """

    name = "radgraph"
    package = "radgraph"
    distribution = "radgraph"
    keys = ("radgraph_simple", "radgraph_partial", "radgraph_complete")

    def __init__(self, options: Options | None = None, model_type: str = "radgraph-xl") -> None:
        super().__init__(options)
        self.model_type = model_type
        self._scorer: Any = None

    def signature(self, segments: Segments) -> str:
        """Return the settings as one string."""
        return self._signature(segments, model=self.model_type, reward="simple+partial+complete")

    def statistics(self, segments: Segments) -> Floats:
        """Return [n, 4]: the three rewards of each segment, and 1."""
        predictions, references, starts = _pairs(segments)
        with _quiet(), _older_tokenizers():
            rewards = self._loaded()(refs=references, hyps=predictions)[1]
        best = np.maximum.reduceat(np.asarray(rewards, np.float64), starts, axis=1)
        return np.vstack([best, np.ones(len(starts))]).T

    def of_sums(self, sums: Floats) -> Floats:
        """Return the means [R, 3]; NaN of none."""
        return means(sums)

    def _loaded(self) -> Any:
        if self._scorer is None:
            self._tell(
                f"{self.model_type} from {_SCORERS} (a BERT, some 0.4 GB, and its tokenizer; the package is MIT, its "
                "model was trained on reports under the terms of PhysioNet and others: read its page)"
            )
            module = self._module()
            with self._loading():
                self._scorer = module.F1RadGraph(reward_level="all", model_type=self.model_type)
        return self._scorer


class CheXbert(_Adapter):
    """F1 over the 14 observations that CheXbert labels in a report (Smit et al., EMNLP 2020, arXiv:2004.09167).

    As its package f1chexbert has it: positive and uncertain count as named, negative and not mentioned do not; an
    observation that neither text names counts as 0 in a macro average. Over all 14 and over five (cardiomegaly, edema,
    consolidation, atelectasis, pleural effusion). Of several references the one whose labels differ least counts.
    """

    name = "chexbert"
    package = "f1chexbert"
    distribution = "f1chexbert"
    keys = ("chexbert_micro_f1", "chexbert_macro_f1", "chexbert_five_f1", "chexbert_five_macro_f1")

    def __init__(self, options: Options | None = None) -> None:
        super().__init__(options)
        self._labeler: Any = None
        self._known: dict[str, Floats] = {}

    def signature(self, segments: Segments) -> str:
        """Return the settings as one string."""
        return self._signature(segments, labels="positive+uncertain", classes="14+5")

    def statistics(self, segments: Segments) -> Floats:
        """Return [n, 43]: named by both, by the prediction alone, by the reference alone, for 14 each; and 1."""
        rows = []
        for prediction, references in zip(segments.predictions, segments.references, strict=True):
            ours = self._labels(prediction)
            theirs = min(map(self._labels, references), key=lambda labels: float(np.abs(labels - ours).sum()))
            rows.append(np.concatenate([ours * theirs, ours * (1 - theirs), theirs * (1 - ours), [1.0]]))
        return np.stack(rows)

    def of_sums(self, sums: Floats) -> Floats:
        """Return [R, 4]; NaN where no segment was summed."""
        both, ours, theirs = np.split(sums[:, :-1], 3, axis=1)
        five = [number for number, name in enumerate(_OBSERVATIONS) if name in FIVE]
        columns = []
        for chosen in (list(range(len(_OBSERVATIONS))), five):
            parts = [part[:, chosen] for part in (both, ours, theirs)]
            columns += [_f1(*(part.sum(axis=1) for part in parts)), _f1(*parts).mean(axis=1)]
        return np.where(sums[:, -1:] > 0, np.stack(columns, axis=1), np.nan)

    def _labels(self, text: str) -> Floats:
        """Return [14] 1 where a report names the observation, and 0 elsewhere; read once for equal texts."""
        if text not in self._known:
            with _quiet():
                self._known[text] = np.asarray(self._loaded().get_label(text.strip()), np.float64)
        return self._known[text]

    def _loaded(self) -> Any:
        if self._labeler is None:
            self._tell(
                f"chexbert.pth from {_SCORERS} (0.4 GB of weights or more, and the tokenizer of bert-base-uncased; the "
                "package is MIT, the model was trained on Stanford's reports: read its page)"
            )
            module = self._module()
            with self._loading():
                self._fetch(module)
                self._labeler = module.F1CheXbert()
            if not hasattr(self._labeler.tokenizer, "encode_plus"):
                self._labeler.tokenizer.encode_plus = self._numbered
            if list(self._labeler.target_names) != list(_OBSERVATIONS):
                raise InputError(
                    f"the metric chexbert: f1chexbert {self._version()} has other observations; install 0.0.2"
                )
        return self._labeler

    def _fetch(self, module: Any) -> None:
        """Put the weights where the package looks for them: its own way to fetch them fails with huggingface_hub 1."""
        folder = importlib.import_module(f"{module.__name__}.f1chexbert").CACHE_DIR
        if not os.path.exists(os.path.join(folder, "chexbert.pth")):
            from huggingface_hub import hf_hub_download

            hf_hub_download(_SCORERS, "chexbert.pth", local_dir=folder)

    def _numbered(self, tokens: Sequence[str]) -> dict[str, list[int]]:
        """Do what `encode_plus` did with a list of tokens before transformers 5."""
        tokenizer = self._labeler.tokenizer
        inner = tokenizer.convert_tokens_to_ids(list(tokens))
        return {"input_ids": [tokenizer.cls_token_id, *inner, tokenizer.sep_token_id]}


# In the order of f1chexbert's own labels.
_OBSERVATIONS = (*OBSERVATIONS[1:], OBSERVATIONS[0])


def _f1(both: Floats, ours: Floats, theirs: Floats) -> Floats:
    total = 2 * both + ours + theirs
    found: Floats = np.divide(2 * both, total, out=np.zeros_like(total), where=total > 0)
    return found


class BertScore(_Adapter):
    """Precision, recall and F1 of words matched by their vectors in a language model (Zhang et al., arXiv:1904.09675).

    Without inverse document frequencies and without rescaling. High for texts that contradict one another: "No pleural
    effusion" against "Pleural effusion" scores .893. Means over the segments; of several references the best for each.

    Args:
        options: not used: the model has its own tokens.
        model_type: name on the Hub, or a folder.
        num_layers: layer whose vectors are compared; None takes the one that the package has tuned for `model_type`.
    """

    name = "bertscore"
    package = "bert_score"
    distribution = "bert-score"
    keys = ("bertscore_precision", "bertscore_recall", "bertscore_f1")

    def __init__(
        self, options: Options | None = None, model_type: str = "roberta-large", num_layers: int | None = None
    ) -> None:
        super().__init__(options)
        self.model_type, self.num_layers = model_type, num_layers
        self._scorer: Any = None

    def signature(self, segments: Segments) -> str:
        """Return the settings as one string."""
        layer = self.num_layers or "tuned"
        return self._signature(segments, model=self.model_type, layer=layer, idf="no", rescaled="no")

    def statistics(self, segments: Segments) -> Floats:
        """Return [n, 4]: precision, recall and F1 of each segment, and 1."""
        with _quiet():
            scorer = self._loaded()
        with _quiet(), _older_tokenizers(), contextlib.redirect_stderr(io.StringIO()):
            found = scorer.score(list(segments.predictions), [list(own) for own in segments.references])
        columns = [np.asarray(column.tolist(), np.float64) for column in found]
        return np.stack([*columns, np.ones(len(columns[0]))], axis=1)

    def of_sums(self, sums: Floats) -> Floats:
        """Return the means [R, 3]; NaN of none."""
        return means(sums)

    def _loaded(self) -> Any:
        if self._scorer is None:
            if not os.path.isdir(self.model_type):
                self._tell(f"{self.model_type} from the Hub (roberta-large, its default: 1.4 GB, MIT)")
            module = self._module()
            with self._loading():
                self._scorer = module.BERTScorer(model_type=self.model_type, num_layers=self.num_layers)
        return self._scorer
