"""The wording of the embedded sample: captions, questions with answers, and two-section reports.

What a picture shows decides almost every word; a few turns of phrase vary, so that texts are not all alike, yet a model
that sees well can foretell most of a text. The vocabulary stays small: the tiny base model must know every word.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from medvlm.data.sources.phantom.spec import SIDES, Spec

TITLES = {"radiograph": "Synthetic frontal chest radiograph.", "ct": "Synthetic axial chest CT."}
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
HEART_NORMAL = "The heart is of normal size."
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


def caption_title(spec: Spec) -> str:
    """Return the first sentence of a caption: what kind of (synthetic) image it is."""
    return TITLES[spec.modality]


def caption_body(spec: Spec, rng: random.Random) -> str:
    """Return the rest of a caption: the finding, then what is normal."""
    return f"{_assertion(spec, rng)} {_rest(spec)}"


def caption(spec: Spec, rng: random.Random) -> str:
    """Return a whole caption as the article's figure carries it."""
    return f"{caption_title(spec)} {caption_body(spec, rng)}"


def report(spec: Spec, rng: random.Random) -> str:
    """Return a report of two sections, with a negative for every finding that is absent."""
    negatives = [text for finding, text in NEGATIVES.items() if finding != spec.finding]
    parts = [_assertion(spec, rng)]
    parts += [HEART_NORMAL] if spec.finding != "cardiomegaly" else []
    return f"Findings: {' '.join(parts + negatives)} Impression: {_impression(spec)}"


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
    """Return the texts the grammar can make for `spec`, by drawing each kind `tries` times."""
    rng = random.Random(repr(spec))
    texts: dict[str, None] = {}
    for _ in range(tries):
        questions = (presence_question(spec, rng), further_question(spec, rng))
        texts |= dict.fromkeys((caption(spec, rng), report(spec, rng)))
        texts |= dict.fromkeys(text for question in questions for text in (question.prompt, question.answer))
    return list(texts)


def _assertion(spec: Spec, rng: random.Random) -> str:
    """Say the finding in one sentence."""
    if spec.finding == "none":
        return rng.choice(NORMAL)
    if spec.finding == "cardiomegaly":
        return rng.choice(CARDIOMEGALY)
    return rng.choice(ASSERTIONS).format(phrase=_phrase(spec))


def _phrase(spec: Spec) -> str:
    return PHRASES[spec.modality, spec.finding].format(size=spec.size, side=spec.side, zone=spec.zone)


def _rest(spec: Spec) -> str:
    """Say what is normal beside the finding."""
    if spec.side:
        return f"The {spec.other_side} lung is clear. {HEART_NORMAL}"
    if spec.finding == "cardiomegaly":
        return "Both lungs are clear."
    return HEART_NORMAL


def _impression(spec: Spec) -> str:
    """Say it once more, in few words."""
    if spec.finding == "none":
        return "No abnormality of the chest."
    if spec.finding == "cardiomegaly":
        return "Cardiomegaly."
    size = str(spec.size).capitalize()
    if spec.finding == "nodule":
        return f"{size} nodule of the {spec.side} lung."
    return f"{size} {spec.side} {'pleural effusion' if spec.finding == 'effusion' else spec.finding}."


def _with_article(finding: str) -> str:
    """Return the finding as a question names it."""
    return {"nodule": "a nodule", "effusion": "a pleural effusion", "pneumothorax": "a pneumothorax"}.get(
        finding, finding
    )
