"""`README.md` of an exported model: front matter for the Hub, then where it comes from, what it scores, what it may."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from medvlm.export import howto
from medvlm.export.places import is_copy
from medvlm.export.rights import CREDITS, NOTICE, Rights, card_license, licenses_of
from medvlm.models.locate import is_packaged
from medvlm.recipe.models import COMPONENTS, Recipe
from medvlm.report import cost, sections
from medvlm.report.context import RunContext, read
from medvlm.runs import Run


@dataclasses.dataclass(frozen=True, slots=True)
class Export:
    """What the card tells of."""

    run: Run
    recipe: Recipe
    rights: Rights
    copies: dict[str, str]
    """Role -> name of the parts of the base that were taken from a folder rather than the Hub."""
    place: str
    """Folder or repository that the card's code names."""
    whole: bool
    """A whole model lies here, not only what was trained."""
    adapter: bool
    """PEFT's adapter lies here."""
    difference: str
    """What merging changed, measured, in words; empty where nothing was merged."""
    credits: bool
    """Attribution files lie here."""
    datasets: list[str]
    """Ids of the training data on the Hub."""


def render(export: Export) -> str:
    """Return the card."""
    recipe, facts, known = export.recipe, export.run.facts(), read(export.run.path)
    front = yaml.safe_dump(front_matter(export), sort_keys=False, allow_unicode=True)
    parts = [
        f"---\n{front}---\n\n# {recipe.name}\n",
        _opening(export),
        _section("Base", _base(export)),
        _section("Data", _data(export.rights)),
        _section("Recipe", _recipe(recipe, facts)),
        _section("In short", sections.in_short(known)),
        _section("Scores", sections.scores(known)),
        _section("Merging", export.difference),
        _section("Compute", _compute(known)),
        _section("How to load", f"```python\n{_code(export, facts)}```\n\n{_HARMLESS}"),
        _section("Intended use and limits", _LIMITS),
        _section("Licenses", _licenses(export)),
    ]
    return "\n".join(part for part in parts if part)


def front_matter(export: Export) -> dict[str, Any]:
    """Return the YAML block; what the Hub could not resolve (a folder, a base within medvlm) is left out."""
    bases = [name for name in export.recipe.model.parts.values() if _on_hub(name)]
    relation = "adapter" if not export.whole else "finetune"
    synthetic = bool(export.rights.data) and all(part.get("synthetic") for part in export.rights.data)
    block: dict[str, Any] = {
        **card_license(export.rights.verdict),
        "base_model": bases,
        "base_model_relation": relation if bases else "",
        "datasets": export.datasets,
        "pipeline_tag": _TAGS.get(export.recipe.model.backbone, "image-text-to-text"),
        "library_name": "transformers" if export.whole else "peft" if export.adapter else "medvlm",
        "tags": ["medical", "radiology", "medvlm", *(["synthetic"] if synthetic else [])],
        "model-index": _model_index(export),
    }
    return {key: value for key, value in block.items() if value not in ("", [])}


_TAGS = {"contrastive": "zero-shot-image-classification"}
"""Backbone -> what the Hub calls its task, where that is not to write a text."""


def _model_index(export: Export) -> list[dict[str, Any]]:
    """Return the scores as the Hub shows them beside a model; [] where there are none."""
    from huggingface_hub.repocard_data import eval_results_to_model_index

    found = sections.eval_results(read(export.run.path), export.datasets[0] if len(export.datasets) == 1 else "")
    index: list[dict[str, Any]] = eval_results_to_model_index(export.recipe.name, found) if found else []
    return index


def _on_hub(name: str) -> bool:
    return not is_packaged(name) and not is_copy(name)


def _code(export: Export, facts: dict[str, Any]) -> str:
    return howto.code(export.recipe, facts, export.place, export.copies, whole=export.whole, adapter=export.adapter)


def _opening(export: Export) -> str:
    recipe = export.recipe
    what = "a whole model" if export.whole else "what was trained; the base is loaded beside it"
    return (
        f"A vision-language model for radiology: {recipe.model.label}, fine-tuned with medvlm. Here lies {what}.\n\n"
        "**What it writes is a draft, to be read by a radiologist. It is not a medical device.**\n"
    )


_HARMLESS = """\
Lines that the libraries print meanwhile about kernels that are not installed, or a `FutureWarning`, are harmless."""

_LIMITS = """\
For research, and as a draft that a radiologist reads, corrects and answers for. Not a medical device: it is neither
tested nor approved for diagnosis, screening or treatment, and must not be used on patients without their clinicians'
judgment. It may describe what is not there and miss what is. It was trained on the data above only: other scanners,
views, populations and languages were not seen. The scores above, if any, hold for the split they name and stand beside
what a constant answer and blank images reach; a score near those says that the model does not read the picture."""


def _base(export: Export) -> str:
    rows = []
    weights = export.run.facts().get("model", {}).get("weights", {})
    for role, name in export.recipe.model.parts.items():
        entry = export.rights.bases.get(name)
        if role in export.copies:
            name = f"{name} (a local copy; fingerprint of its weights `{str(weights.get(role))[:16]}`)"
        if entry is None:
            rows.append((role, name, "not in the license registry", "unknown", "none"))
            continue
        evidence = "; ".join(entry.evidence)
        rows.append((role, name, entry.marked("weights_license"), entry.marked("code_license"), evidence))
    table = _table(("part", "checkpoint", "license of the weights", "license of the code", "evidence"), rows)
    revision = export.recipe.model.revision
    return table + (f"\n\nRevision {revision}." if revision else "")


def _data(rights: Rights) -> str:
    body = [
        (
            part.get("title") or Path(part["path"]).name,
            f"{rows:,}" if isinstance(rows := part.get("rows"), int) else "not recorded",
            ", ".join(f"{name or 'none stated'} ({count:,})" for name, count in licenses_of([part]).items()),
            str(part.get("fingerprint") or "not recorded")[:16],
        )
        for part in rights.data
    ]
    if not body:
        return "Not recorded."
    return _table(("data set", "training rows", "licenses (rows)", "fingerprint"), body)


def _recipe(recipe: Recipe, facts: Mapping[str, Any]) -> str:
    trained = []
    for name in COMPONENTS:
        part = recipe.adapters.part(name)
        said = f"{part.kind}, r {part.r}, alpha {part.alpha:g}" if part.low_rank else part.kind
        trained.append(f"- {name.replace('_', ' ')}: {said}")
    train = recipe.train
    counts = facts.get("census", {})
    total = sum(count["trainable"] for count in counts.values())
    precision = "was not quantized" if recipe.quantization.mode == "none" else "was stored in 4 bits (NF4)"
    told = (
        "`recipe.yaml` holds every setting, with local folders by their last name. The run's own has the hash "
        f"`{facts['recipe_hash']}`; its seed was {recipe.seed}."
    )
    work = (
        f"Trained in {facts.get('result', {}).get('steps', 0):,} steps of "
        f"{train.batch_size * train.gradient_accumulation} samples ({train.batch_size} at a time), with a learning "
        f"rate of {train.learning_rate:g} and a {train.schedule} schedule, in {recipe.model.dtype}; the language model "
        f"{precision}."
    )
    lines = [told, "\n".join(trained) + (f"\n- {total:,} parameters trained" if total else ""), work]
    versions = facts.get("versions")
    if versions:
        lines.append("With " + ", ".join(f"{name} {number}" for name, number in versions.items()) + ".")
    return "\n\n".join(lines)


def _compute(known: RunContext) -> str:
    if not known.compute:
        return "Not recorded."
    rows = []
    for name, value in cost.facts(known):
        unknown, _, reason = value.partition(": ")
        rows.append((name, f"{unknown} ({reason})" if unknown == cost.UNKNOWN and reason else value))
    return _table(("what", "value"), rows) + (
        "\n\nOperations are those that the model needs; what checkpointing computes again is not counted."
    )


def _licenses(export: Export) -> str:
    verdict = export.rights.verdict
    follows = (
        f"What follows from the licenses of code, base and data (medvlm's rights table): license **{verdict['license']}"
        f"**, commercial use **{verdict['commercial_use']}**, sharing **{verdict['may_share']}**."
    )
    lines = [
        follows,
        "\n".join(f"- {reason}" for reason in verdict["reasons"]),
        "\n".join(f"- {duty}" for duty in verdict["obligations"]),
        f"What the licenses want told stands in `{NOTICE}`.",
        f"Whom the licenses of the data want named stands in `{CREDITS}/`." if export.credits else "",
        verdict["notice"],
    ]
    return "\n\n".join(line for line in lines if line)


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}\n" if body else ""


def _table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    lines = [list(header), *([str(cell) for cell in row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(
        "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |" for row in lines
    )
