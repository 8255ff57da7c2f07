"""The wording of the embedded sample: captions, questions with answers, and two-section reports.

What a picture shows decides almost every word; turns of phrase and the order of sentences vary by chance, so that most
texts of the test split stand nowhere in train word for word, yet a model that sees well can foretell most of a text.
The vocabulary stays small: the tiny base model must know every word.
"""

from __future__ import annotations

import functools
import itertools
import random
from typing import NamedTuple

from medvlm.data.sources.phantom.spec import SIDES, Spec

TITLES = {
    "radiograph": ("Synthetic frontal chest radiograph.", "Synthetic chest radiograph, frontal."),
    "ct": ("Synthetic axial chest CT.", "Synthetic chest CT, axial."),
}
MODALITY_NAMES = {"radiograph": "radiograph", "ct": "CT"}
# A bare noun phrase for each finding; every sentence about the finding is built around it.
PHRASES = {
    ("radiograph", "nodule"): "{size} round nodule in the {zone} zone of the {side} lung",
    ("ct", "nodule"): "{size} round nodule in the {zone} part of the {side} lung",
    ("radiograph", "effusion"): "{size} {side} pleural effusion with a blunted costophrenic angle",
    ("ct", "effusion"): "{size} {side} pleural effusion that layers behind the lung",
    ("radiograph", "pneumothorax"): "{size} {side} pneumothorax with a visible pleural line",
    ("ct", "pneumothorax"): "{size} {side} pneumothorax with air in front of the lung",
}
ASSERTIONS = ("There is a {phrase}.", "A {phrase} is seen.", "The image shows a {phrase}.")
CARDIOMEGALY = (
    "The heart is enlarged, more than half of the width of the thorax.",
    "There is cardiomegaly, more than half of the width of the thorax.",
    "The image shows cardiomegaly, more than half of the width of the thorax.",
)
NORMAL = ("Both lungs are clear and the pleural spaces are free.", "The lungs and the pleural spaces are clear.")
HEART_NORMAL = ("The heart is of normal size.", "The size of the heart is normal.")
OTHER_LUNG = ("The {side} lung is clear.", "The lung of the {side} side is clear.")
LUNGS_CLEAR = ("Both lungs are clear.", "The lungs are clear.")
PLEURA_FREE = ("The pleural spaces are free.", "Both pleural spaces are free.")
NEGATIVES = {"nodule": "No nodule.", "effusion": "No pleural effusion.", "pneumothorax": "No pneumothorax."}
PRESENCE_QUESTIONS = ("Is there {name}?", "Does the image show {name}?", "Is {name} seen on this image?")
SIDE_QUESTIONS = ("On which side is the {name}, left or right?", "Which side shows the {name}, left or right?")
MODALITY_QUESTIONS = ("What kind of image is this, radiograph or CT?", "Is this image a radiograph or a CT?")
OPEN_QUESTIONS = (
    "What abnormality does the image show?",
    "What abnormality is seen?",
    "What is abnormal on this image?",
)
CHOICE_ORDER = ("nodule", "effusion", "cardiomegaly", "pneumothorax")


class Question(NamedTuple):
    """One question about one picture, with its answer."""

    prompt: str
    answer: str
    question_type: str
    """presence, abnormality, side or modality."""
    answer_type: str
    """open, closed or choice."""
    choices: list[str] | None = None


def caption_title(spec: Spec, rng: random.Random) -> str:
    """Return the first sentence of a caption: what kind of (synthetic) image it is."""
    return rng.choice(TITLES[spec.modality])


def caption_body(spec: Spec, rng: random.Random) -> str:
    """Return the rest of a caption: the finding and what is normal, one or the other first."""
    return rng.choice(_bodies(spec))


def caption(spec: Spec, rng: random.Random) -> str:
    """Return a whole caption as the article's figure carries it."""
    return f"{caption_title(spec, rng)} {caption_body(spec, rng)}"


def report(spec: Spec, rng: random.Random) -> str:
    """Return a report of two sections, with a negative for every finding that is absent."""
    return rng.choice(_reports(spec))


def descriptions(spec: Spec) -> list[str]:
    """Return every caption and every report the grammar can make for `spec`."""
    return [f"{title} {body}" for title in TITLES[spec.modality] for body in _bodies(spec)] + list(_reports(spec))


def presence_question(spec: Spec, rng: random.Random) -> Question:
    """Ask whether one finding is there, so that "yes" and "no" are equally likely over the sample."""
    absent = [name for name in CHOICE_ORDER if name != spec.finding]
    # Normal pictures can only be answered "no"; the rest makes up for them.
    asked = spec.finding if spec.finding != "none" and rng.random() < 0.6 else rng.choice(absent)
    template = rng.choice(PRESENCE_QUESTIONS)
    answer = "yes" if asked == spec.finding else "no"
    return Question(template.format(name=_with_article(asked)), answer, "presence", "closed")


def further_question(spec: Spec, rng: random.Random) -> Question:
    """Ask for the abnormality (open or from a list), the side, or the modality."""
    kind = rng.choice(("open", "list", "side", "modality") if spec.side else ("open", "list", "modality"))
    if kind == "side" and spec.side:
        prompt = rng.choice(SIDE_QUESTIONS).format(name=spec.finding)
        return Question(prompt, spec.side, "side", "choice", list(SIDES))
    if kind == "modality":
        names = list(MODALITY_NAMES.values())
        return Question(rng.choice(MODALITY_QUESTIONS), MODALITY_NAMES[spec.modality], "modality", "choice", names)
    answer = spec.finding if spec.finding != "none" else "no abnormality"
    if kind == "list":
        choices = [*CHOICE_ORDER, "no abnormality"]
        prompt = f"Which of these is seen: {', '.join(choices[:-1])} or {choices[-1]}?"
        return Question(prompt, answer, "abnormality", "choice", choices)
    if spec.side:
        answer = f"{spec.side} {answer}"
    return Question(rng.choice(OPEN_QUESTIONS), answer, "abnormality", "open")


def all_texts(spec: Spec, tries: int = 24) -> list[str]:
    """Return the texts the grammar can make for `spec`; questions and answers by drawing each kind `tries` times."""
    rng = random.Random(repr(spec))
    texts = dict.fromkeys(descriptions(spec))
    for _ in range(tries):
        questions = (presence_question(spec, rng), further_question(spec, rng))
        texts |= dict.fromkeys(text for question in questions for text in (question.prompt, question.answer))
    return list(texts)


@functools.cache
def _bodies(spec: Spec) -> tuple[str, ...]:
    """Return all captions without their title."""
    bodies = []
    for assertion, *normal in itertools.product(_assertions(spec), *_normal(spec)):
        for ordered in itertools.permutations(normal):
            bodies += [" ".join((assertion, *ordered)), " ".join((*ordered, assertion))]
    return tuple(dict.fromkeys(bodies))


@functools.cache
def _reports(spec: Spec) -> tuple[str, ...]:
    """Return all reports: the finding, then the heart before or after the negatives, which stand in any order."""
    negatives = [text for finding, text in NEGATIVES.items() if finding != spec.finding]
    hearts = HEART_NORMAL if spec.finding != "cardiomegaly" else ("",)
    reports = []
    for assertion, heart, impression in itertools.product(_assertions(spec), hearts, _impressions(spec)):
        for absent in itertools.permutations(negatives):
            for normal in ((heart, *absent), (*absent, heart)):
                found = " ".join(part for part in (assertion, *normal) if part)
                reports.append(f"Findings: {found} Impression: {impression}")
    return tuple(dict.fromkeys(reports))


def _assertions(spec: Spec) -> tuple[str, ...]:
    """Return the sentences that say the finding."""
    if spec.finding == "none":
        return NORMAL
    if spec.finding == "cardiomegaly":
        return CARDIOMEGALY
    return tuple(sentence.format(phrase=_phrase(spec)) for sentence in ASSERTIONS)


def _phrase(spec: Spec) -> str:
    return PHRASES[spec.modality, spec.finding].format(size=spec.size, side=spec.side, zone=spec.zone)


def _normal(spec: Spec) -> list[tuple[str, ...]]:
    """Return what is normal beside the finding: for each sentence, its phrasings."""
    if spec.side:
        return [tuple(sentence.format(side=spec.other_side) for sentence in OTHER_LUNG), HEART_NORMAL]
    if spec.finding == "cardiomegaly":
        return [LUNGS_CLEAR, PLEURA_FREE]
    return [HEART_NORMAL]


def _impressions(spec: Spec) -> tuple[str, ...]:
    """Return the phrasings that say it once more, in few words."""
    if spec.finding == "none":
        return ("No abnormality of the chest.", "No abnormality is seen.")
    if spec.finding == "cardiomegaly":
        return ("Cardiomegaly.", "The heart is enlarged.")
    size, side = str(spec.size).capitalize(), spec.side
    if spec.finding == "nodule":
        return (f"{size} nodule of the {side} lung.", f"{size} nodule in the {side} lung.")
    name = "pleural effusion" if spec.finding == "effusion" else spec.finding
    return (f"{size} {side} {name}.", f"{size} {name} of the {side} side.")


def _with_article(finding: str) -> str:
    """Return the finding as a question names it."""
    return {"nodule": "a nodule", "effusion": "a pleural effusion", "pneumothorax": "a pneumothorax"}.get(
        finding, finding
    )
