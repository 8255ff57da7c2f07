"""What models share that answer a question from a closed vocabulary: ViLT, VisualBERT, LXMERT and FLAVA as classifiers.

The answers are those of the training rows, most frequent first, at most 3,129 as VQAv2's are (arXiv:1708.02711, section
3). The question goes in, a class comes out; the answer itself never enters the inputs. The loss is the cross-entropy of
one class a row, since every row has one answer: with one answer it is also what `VisualBertForQuestionAnswering`
(a KL divergence) and `LxmertForQuestionAnswering` compute. ViLT's own binary cross-entropy, a sum over all classes, is
made for VQAv2's ten annotators with soft targets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from medvlm.errors import InputError, RecipeError
from medvlm.models.backbones.base import IGNORED, Backbone, Example
from medvlm.models.backbones.rows import pixel_values

if TYPE_CHECKING:
    from medvlm.recipe.models import Recipe
    from medvlm.train.memory_trace import Shape

SPECIAL = 2
"""Tokens around every question: [CLS] and [SEP]."""


class ClassifierBackbone(Backbone):
    """Turns questions into a classifier's inputs, and classes into answers.

    Args:
        processor: holds a BERT tokenizer and an image processor that makes square pictures.
        image_tokens: how many positions a picture takes.
        max_prefix_tokens: the question is cut to so many tokens, [CLS] and [SEP] apart.
        max_suffix_tokens: not used: an answer is one class.
    """

    quantizable: ClassVar[str | None] = None
    output = "class"
    packs = False
    caches = False

    most_answers: ClassVar[int] = 3129
    """The most frequent answers of the training rows, at most so many, are the classes."""

    def __init__(self, processor: Any, *, image_tokens: int, max_prefix_tokens: int, max_suffix_tokens: int) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.image_processor = processor.image_processor
        self.image_tokens = image_tokens
        self.max_prefix_tokens = max_prefix_tokens
        self.answers: list[str] = []
        """The text of each class; empty until `fit` or `restore`."""
        self._classes: dict[str, int] = {}
        self._reserved = set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}

    @classmethod
    def check(cls, recipe: Recipe, config: Any) -> None:
        """Raise where a recipe asks a classifier for what it cannot do.

        Raises:
            RecipeError: other tasks than questions; answers that are drawn or searched; a frozen head, which is new;
                questions longer than the model has positions.
        """
        problems = [
            f"data.{place}.tasks: {part.tasks}: {recipe.model.backbone} chooses answers from a closed vocabulary and "
            "writes no text; expected [vqa]"
            for place, part in enumerate(recipe.data)
            if part.tasks is None or set(part.tasks) != {"vqa"}
        ]
        if recipe.eval.temperature > 0:
            problems.append(f"eval.temperature: {recipe.eval.temperature:g}: a class is not drawn; expected 0")
        if recipe.eval.num_beams > 1:
            problems.append(f"eval.num_beams: {recipe.eval.num_beams}: a class needs no search; expected 1")
        if recipe.adapters.head.kind != "full":
            problems.append(
                f"adapters.head: {recipe.adapters.head.kind}: the classifier over the answers is new; expected full"
            )
        room = cls.positions(config) - SPECIAL
        if recipe.text.max_prefix_tokens > room:
            problems.append(
                f"text.max_prefix_tokens: {recipe.text.max_prefix_tokens}: {recipe.model.backbone} has {room + SPECIAL}"
                f" positions for the question, [CLS] and [SEP] among them; expected at most {room}"
            )
        if problems:
            raise RecipeError("recipe", problems)

    @classmethod
    def positions(cls, config: Any) -> int:
        """Return how many text tokens the model has positions for."""
        return int(config.get_text_config().max_position_embeddings)

    @classmethod
    def takes_sdpa(cls, config: Any) -> bool:
        """Return False: these families compute their attention step by step."""
        return False

    @classmethod
    def last_layer(cls, model: Any) -> tuple[torch.nn.Module, str]:
        """Return the module that holds the linear layer over the classes of a bare model, and its name there."""
        raise NotImplementedError

    @classmethod
    def sized(cls, config: dict[str, Any], answers: Sequence[str]) -> dict[str, Any]:
        """Return a model's configuration (as `compose` makes it) for these answers."""
        return {**config, **labels_of(answers)}

    @classmethod
    def planned(cls, config: dict[str, Any], pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Return the configuration with a class for each answer that `fit` would take."""
        return cls.sized(config, closed_vocabulary([answer for _, answer in pairs], cls.most_answers))

    def fit(
        self, model: torch.nn.Module, pairs: Sequence[tuple[str, str]], earlier: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Take the closed vocabulary from the training rows and give the model a new layer over it.

        Args:
            model: bare.
            pairs: question and answer of every training row.
            earlier: what the run returned whose weights this one begins from: its classes stay, one by one, since its
                head knows these and no others.

        Returns:
            `answers`, the classes in order; `rows`, how many there are; `outside`, how many of them have an answer
            that is no class, and so no loss (said at the command line, too).

        Raises:
            InputError: fewer than two answers to choose from; no row has one of the earlier run's.
        """
        from medvlm.cli.common import warn

        answers = list(earlier["answers"]) if earlier else closed_vocabulary([a for _, a in pairs], self.most_answers)
        if len(answers) < 2:
            raise InputError(f"data: {len(pairs)} training rows have {len(answers)} answer; a classifier needs two")
        facts = {"answers": answers, "rows": len(pairs)}
        self.restore(model, facts)
        outside = sum(self.class_of(answer) == IGNORED for _, answer in pairs)
        known = f"{len(answers)} answers of model.start" if earlier else f"{len(answers)} most frequent"
        if outside == len(pairs):
            raise InputError(f"data: none of the answers of {outside} training rows is among the {known}")
        if outside:
            warn(
                f"{outside} of {len(pairs)} training rows have no loss: their answers are not among the {known}, which "
                "are all that the classifier knows"
            )
        return {**facts, "outside": outside}

    def restore(self, model: torch.nn.Module, facts: Mapping[str, Any]) -> None:
        """Take the vocabulary that `fit` returned; the model's last layer is new where it has another size."""
        answers = facts["answers"]
        if not isinstance(answers, list) or len(answers) < 2 or not all(isinstance(one, str) for one in answers):
            raise ValueError("answers: expected a list of texts, two at least")
        self.answers = list(answers)
        self._classes = {key_of(answer): place for place, answer in enumerate(self.answers)}
        config: Any = model.config
        self._tell(config)
        holder, name = self.last_layer(model)
        old: Any = getattr(holder, name)
        if old.out_features != len(self.answers):
            new = torch.nn.Linear(old.in_features, len(self.answers), device=old.weight.device, dtype=old.weight.dtype)
            with torch.no_grad():
                new.weight.normal_(0.0, getattr(config.get_text_config(), "initializer_range", 0.02))
                new.bias.zero_()
            setattr(holder, name, new)
        for module in model.modules():
            # Classes of transformers keep the number, and shape their logits by it.
            for key in {"num_labels", "num_qa_labels"} & vars(module).keys():
                setattr(module, key, len(self.answers))

    def _tell(self, config: Any) -> None:
        """Write the answers into a model's configuration."""
        config.id2label = dict(enumerate(self.answers))
        config.label2id = {answer: place for place, answer in enumerate(self.answers)}

    def class_of(self, answer: str) -> int:
        """Return the class of an answer, `IGNORED` where it is none."""
        return self._classes.get(key_of(answer), IGNORED)

    def _question(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        # "[SEP]" within a question is no end of it.
        words = [token for token in ids if token not in self._reserved][: self.max_prefix_tokens]
        return [self.tokenizer.cls_token_id, *words, self.tokenizer.sep_token_id]

    def text_tokens(self, prefix: str, suffix: str) -> tuple[int, int]:
        """Return (tokens of the question with [CLS] and [SEP], 0), after truncation: an answer takes no token."""
        return len(self._question(prefix)), 0

    def collate(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return training inputs: those of `collate_prompts`, and labels [B], `IGNORED` where the answer is no class.

        Raises:
            InputError: there are no classes yet.
        """
        self._check_fitted()
        labels = torch.tensor([self.class_of(example.suffix or "") for example in examples])
        return {**self.collate_prompts(examples), "labels": labels}

    def collate_prompts(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return the inputs of questions, padded on the right.

        Returns:
            input_ids, attention_mask, token_type_ids [B, T], pixel_values [B, 3, S, S], image_mask [B, N] of ones: the
            positions of the picture, none of which is padding, since all pictures are squares of one size.
        """
        rows = [self._question(example.prefix) for example in examples]
        ids = torch.full((len(rows), max(map(len, rows))), self.tokenizer.pad_token_id)
        attention = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
            attention[place, : len(row)] = 1
        return {
            "input_ids": ids,
            "attention_mask": attention,
            "token_type_ids": torch.zeros_like(ids),
            "image_mask": torch.ones(len(rows), self.image_tokens, dtype=torch.long),
            "pixel_values": pixel_values(self.image_processor, examples),
        }

    @classmethod
    def labels_in(cls, inputs: Mapping[str, torch.Tensor]) -> int:
        """Return the number of rows that have a loss."""
        return int((inputs["labels"] != IGNORED).sum())

    @classmethod
    def true_lengths(cls, inputs: Mapping[str, torch.Tensor]) -> list[int]:
        """Return the tokens of every question and its picture's positions."""
        lengths: list[int] = (inputs["attention_mask"].sum(dim=1) + inputs["image_mask"].sum(dim=1)).tolist()
        return lengths

    def losses(
        self,
        model: torch.nn.Module,
        inputs: Mapping[str, torch.Tensor],
        *,
        count: torch.Tensor | int | None = None,
        per_example: bool = False,
        smoothing: float = 0.0,
        chunk: int = 256,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the cross-entropy of the rows' classes, each row's [B], and which rows have one [B] (1 or 0).

        Each row has one loss or none, so that the mean over examples is that over losses.
        """
        labels = inputs["labels"]
        logits = model(**{name: value for name, value in inputs.items() if name != "labels"}).logits
        losses = torch.nn.functional.cross_entropy(
            logits.float(), labels, ignore_index=IGNORED, reduction="none", label_smoothing=smoothing
        )
        counts = (labels != IGNORED).long()
        divisor = count if count is not None else counts.sum()
        # An update whose rows all have no class has the loss 0, not 0 / 0.
        return losses.sum() / max(int(divisor), 1), losses.detach(), counts

    def answer(
        self, model: Any, inputs: Mapping[str, torch.Tensor], max_new_tokens: int, search: Mapping[str, Any]
    ) -> list[str]:
        """Return the likeliest class's text for each row; of equal ones the more frequent in training.

        Raises:
            InputError: there are no classes yet.
        """
        self._check_fitted()
        places: list[int] = model(**inputs).logits.float().argmax(dim=-1).tolist()
        return [self.answers[place] for place in places]

    def _check_fitted(self) -> None:
        if not self.answers:
            raise InputError(
                f"{type(self).__name__} has no answers to choose from: they come from training rows; name a run that "
                "medvlm finetune has trained"
            )

    @classmethod
    def fake_loss(cls, model: Any, shape: Shape, device: torch.device) -> torch.Tensor:
        """Return the loss of a step on tensors without contents."""
        config = model.config
        tokens, size = cls.image_tokens_of(config), cls.image_size_of(config)
        assert size is not None
        questions = torch.zeros(shape.rows, shape.length - tokens, dtype=torch.long, device=device)
        pictures: torch.Tensor = torch.empty(shape.images, 3, size, size, device=device)
        if shape.features:
            pictures = cls.fake_features(model, shape.images, device)
        logits = model(
            input_ids=questions,
            attention_mask=torch.ones_like(questions),
            token_type_ids=torch.zeros_like(questions),
            image_mask=torch.ones(shape.rows, tokens, dtype=torch.long, device=device),
            pixel_values=pictures,
        ).logits
        labels = torch.zeros(shape.rows, dtype=torch.long, device=device)
        return torch.nn.functional.cross_entropy(logits.float(), labels)

    @classmethod
    def fake_features(cls, model: Any, images: int, device: torch.device) -> torch.Tensor:
        """Return features of a tower [images, N, D] without contents, where pictures may come as such."""
        raise NotImplementedError


def key_of(answer: str) -> str:
    """Return what two spellings of one answer have in common: the words that `medvlm.evaluate.vqa` compares."""
    from medvlm.evaluate.vqa import words

    return " ".join(words(answer)) or answer.strip().casefold()


def closed_vocabulary(answers: Sequence[str], most: int) -> list[str]:
    """Return the `most` most frequent answers, each in its commonest spelling; the order of rows does not matter.

    Empty answers are none.
    """
    spellings: dict[str, Counter[str]] = {}
    for text, times in Counter(answer.strip() for answer in answers).items():
        if text:
            spellings.setdefault(key_of(text), Counter())[text] += times
    ranked = sorted(spellings, key=lambda key: (-spellings[key].total(), key))[:most]
    return [min(spellings[key].items(), key=lambda pair: (-pair[1], len(pair[0]), pair[0]))[0] for key in ranked]


def labels_of(answers: Sequence[str]) -> dict[str, Any]:
    """Return the entries of a configuration that name the classes, two at least, as transformers wants them."""
    named = [*answers, *(f"LABEL_{place}" for place in range(len(answers), 2))]
    return {"id2label": dict(enumerate(named)), "label2id": {name: place for place, name in enumerate(named)}}
