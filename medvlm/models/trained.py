"""What a run has trained, on disk and back: an adapter, whole components, or the whole model.

`adapter/` holds PEFT's adapter with components trained whole beside it, or, where nothing is low-rank,
`components.safetensors`; `model/` holds a whole model, where the language model was trained in full.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm.errors import InputError, MedvlmError, RecipeError
from medvlm.io import stable_hash
from medvlm.models import adapters
from medvlm.models.backbones import BACKBONES, kind_of_type
from medvlm.models.components import Places, bare_name, tied
from medvlm.models.load import Loaded, load_base
from medvlm.recipe.models import COMPONENTS, AdapterPart, Recipe
from medvlm.runs import Run

if TYPE_CHECKING:
    import torch

    from medvlm.models.backbones.base import Backbone

COMPONENTS_FILE = "components.safetensors"


def save(model: torch.nn.Module, processor: Any, run_folder: Path, base: str | None = None) -> None:
    """Write what was trained, and the processor beside it, into the run's folder: whole or not at all.

    Args:
        model: as `adapters.apply` returned it, trained.
        processor: the base's.
        run_folder: `Run.path`.
        base: under which name others find the base model; None records where it lay.
    """
    run = Run(run_folder)
    wrapped: Any = model if hasattr(model, "peft_config") else None
    whole = wrapped is None and _whole_language_model(model)
    target = run.model if whole else run.adapter
    building = target.with_name(f".{target.name}")
    shutil.rmtree(building, ignore_errors=True)
    if wrapped is not None:
        if base is not None:
            wrapped.peft_config[adapters.ADAPTER].base_model_name_or_path = base
        # Else PEFT asks the network whether the vocabulary has grown, and stores embeddings beside a head's adapter.
        wrapped.save_pretrained(building, save_embedding_layers=False)
        kind = kind_of_type(model.config.model_type)  # type: ignore[union-attr, arg-type]
        beside = {name: one for name, one in adapters.lone(model, kind).items() if one.requires_grad}
        if beside:
            _save_parameters(beside, building)
    elif whole:
        model.save_pretrained(building)  # type: ignore[operator]
    else:
        _save_components(model, building)
    processor.save_pretrained(building)
    _replace(building, target)


def _replace(building: Path, target: Path) -> None:
    """Put a whole folder in another's place; at every moment one of both is whole."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    building.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _whole_language_model(model: torch.nn.Module) -> bool:
    """Return True where every parameter of decoder and embeddings is trained."""
    places = Places(model, kind_of_type(model.config.model_type))  # type: ignore[union-attr, arg-type]
    return all(
        parameter.requires_grad
        for name, parameter in model.named_parameters()
        if places.component(name) in ("language_model", "embeddings")
    )


def _save_components(model: torch.nn.Module, folder: Path) -> None:
    folder.mkdir(parents=True)
    _save_parameters({name: one for name, one in model.named_parameters() if one.requires_grad}, folder)


def _save_parameters(parameters: Mapping[str, torch.nn.Parameter], folder: Path) -> None:
    from safetensors.torch import save_file

    trained = {name: parameter.detach().contiguous() for name, parameter in parameters.items()}
    save_file(trained, folder / COMPONENTS_FILE, metadata={"format": "pt"})


def load(run: Run, recipe: Recipe, prepare: Callable[[torch.nn.Module], None] | None = None) -> Loaded:
    """Return the run's base with what was trained in place, as it was trained: in float32 beside the base's dtype.

    Args:
        run: a finished run.
        recipe: its own; decoding and the like may differ.
        prepare: is given the base before anything is put into it.

    Raises:
        InputError: the run's weights are missing, damaged, or do not fit the recipe.
    """
    with _in_one_line(run, "train it again"):
        return _load(run, recipe, prepare)


@contextlib.contextmanager
def _in_one_line(run: Run, mend: str) -> Iterator[None]:
    """Make InputError of what reading weights raises.

    Args:
        run: named in it.
        mend: what to do then.
    """
    from safetensors import SafetensorError

    try:
        yield
    except MedvlmError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{run.path}: its weights cannot be loaded ({reason}); {mend}") from error


def _load(run: Run, recipe: Recipe, prepare: Callable[[torch.nn.Module], None] | None) -> Loaded:
    whole = _is_whole(run)
    stored = {} if whole else _stored(run)
    loaded = load_base(recipe, trained=str(run.model) if whole else None)
    restore_fitted(loaded, run)
    if prepare is not None:
        prepare(loaded.model)
    loaded.model = adapters.apply(loaded.model, recipe.adapters, BACKBONES.get(recipe.model.backbone))
    weights = _whole(run, loaded.model)[0] if whole else stored
    wanted = {_key(name) for name, parameter in loaded.model.named_parameters() if parameter.requires_grad}
    left, missing = _fill(loaded.model, weights), wanted - weights.keys()
    if left or missing:
        first = sorted(left or missing)[0]
        count = len(left or missing)
        raise InputError(
            f"{run.path}: {count} of its weights do not fit the recipe ({first}, ...); load it with its own recipe.yaml"
        )
    return loaded


def restore_fitted(loaded: Loaded, run: Run) -> None:
    """Give model and backbone what the run took from its training rows; nothing where its backbone takes nothing.

    Raises:
        InputError: as `fitted_of`.
    """
    facts = fitted_of(run, type(loaded.backbone))
    if facts:
        try:
            loaded.backbone.restore(loaded.model, facts)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{run.path / 'fitted.json'}: damaged; train the run again") from error


def fitted_of(run: Run, kind: type[Backbone]) -> dict[str, Any]:
    """Return what the run's backbone took from its training rows, as it was when its weights were trained.

    Raises:
        InputError: fitted.json is missing, damaged, or another than the run was trained with.
    """
    from medvlm.models.backbones.base import Backbone

    if kind.fit is Backbone.fit:
        return {}
    path, facts = run.path / "fitted.json", run.fitted()
    if not facts:
        raise InputError(f"{path}: missing; it holds what the model may answer: put it back, or train the run again")
    recorded = run.facts().get("fitted") if (run.path / "run.json").is_file() else None
    if recorded not in (None, stable_hash(facts)):
        raise InputError(f"{path}: is not the one that the run was trained with; put that back, or train it again")
    return facts


def begin_from(model: torch.nn.Module, run: Run, recipe: Recipe, kind: type[Backbone]) -> None:
    """Load everything that an earlier run has trained into a freshly wrapped model, which goes on from there.

    Args:
        model: as `adapters.apply` returned it.
        run: the finished run.
        recipe: of the new run.
        kind: the model's class.

    Raises:
        RecipeError: something that the run trained would be lost: it must be trained here too, in the same way.
        InputError: the run's weights are missing or damaged, or of another image size.
    """
    check_start(run, recipe)
    old, places = run.recipe().adapters, Places(model, kind)
    trained = {component for component in COMPONENTS if old.part(component).kind != "frozen"}
    with _in_one_line(run, "expected the run's own model.image_size here, and a run that is whole"):
        if _is_whole(run):
            weights, tied_head = _whole(run, model)
            trained |= {"head"} if tied_head else set()
            due = {key for key in weights if _component(places, key) in trained}
        else:
            weights = _stored(run)
            due = set(weights)
        here = _by_key(model)
        missing = {k for k, p in here.items() if p.requires_grad and _component(places, k) in trained} - weights.keys()
        _check_kept(run, {_component(places, key) for key in due & here.keys() if not here[key].requires_grad}, recipe)
        # What that run did not train is the base's, whose position embeddings follow the image size.
        other = {key for key in here.keys() & weights.keys() - due if weights[key].shape != here[key].shape}
        left = _fill(model, {key: value for key, value in weights.items() if key not in other}) | missing
    if left:
        raise InputError(f"{run.path}: {len(left)} of its weights have no place here ({sorted(left)[0]}, ...)")


def _component(places: Places, key: str) -> str:
    """Return the component in the recipe that a parameter goes with; embeddings go with the language model."""
    found = places.component(key)
    return "language_model" if found == "embeddings" else found


def _check_kept(run: Run, lost: set[str], recipe: Recipe) -> None:
    """Raise where weights that the run trained would lie frozen here, and so be no part of what is saved.

    So does a tied head, trained as the embeddings, beneath an adapter: it would stand beside the base's when loaded.
    """
    if lost:
        raise RecipeError(
            "recipe",
            [
                f"adapters.{name}: {_said(recipe.adapters.part(name))}: {run.path} trained its weights, which would be "
                "lost; expected frozen or full"
                for name in sorted(lost)
            ],
        )


def check_start(run: Run, recipe: Recipe) -> None:
    """Raise where the new recipe would lose what the run has trained.

    Raises:
        RecipeError: another base, or a component that is not trained on as it was.
    """
    old = run.recipe()
    problems = []
    if old.model.parts != recipe.model.parts:
        problems.append(f"model.start: {run.path} was trained on {old.model.label}; expected the same base here")
    for component in COMPONENTS:
        before, here = old.adapters.part(component), recipe.adapters.part(component)
        if before.kind != "frozen" and _shape(before) != _shape(here):
            problems.append(
                f"adapters.{component}: {_said(here)}: {run.path} trained it as {_said(before)}, which would be lost; "
                "expected the same"
            )
    if problems:
        raise RecipeError("recipe", problems)


def _shape(part: AdapterPart) -> tuple[Any, ...]:
    """Return what must be equal for weights of one to mean the same in the other."""
    if not part.low_rank:
        return (part.kind,)
    return part.kind, part.r, part.alpha, None if part.modules is None else tuple(sorted(part.modules))


def _said(part: AdapterPart) -> str:
    if not part.low_rank:
        return part.kind
    modules = "all linear layers" if part.modules is None else ", ".join(part.modules)
    return f"{part.kind} of r {part.r}, alpha {part.alpha:g} on {modules}"


def _stored(run: Run) -> dict[str, torch.Tensor]:
    """Return what lies in adapter/, by `_key`."""
    from safetensors.torch import load_file

    # Both, where a lone parameter is trained beside an adapter.
    files = [run.adapter / name for name in ("adapter_model.safetensors", COMPONENTS_FILE)]
    found = {_key(key): value for file in files if file.is_file() for key, value in load_file(file).items()}
    if not found:
        raise InputError(f"{run.path}: neither adapter/ nor model/ holds weights; train it again")
    return found


def _is_whole(run: Run) -> bool:
    return (run.model / "config.json").is_file()


def _whole(run: Run, model: torch.nn.Module) -> tuple[dict[str, torch.Tensor], bool]:
    """Return the weights of model/ in float32, under the names that they have in memory, and if its head is tied."""
    import torch

    bare: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    # Not in the dtype of its configuration, which rounds what was trained.
    stored = type(bare).from_pretrained(run.model, dtype=torch.float32, local_files_only=True)
    return dict(stored.named_parameters(remove_duplicate=False)), tied(stored)


def _by_key(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return every parameter of the tuned model by `_key`, tied ones under each of their names."""
    return {
        _key(name): parameter
        for name, parameter in model.named_parameters(remove_duplicate=False)
        # PEFT's frozen originals bear the same names as what is trained in their stead.
        if ".original_module." not in name
    }


def _key(name: str) -> str:
    """Return a parameter's name as files have it, be it trained bare, beside an adapter, or in one.

    `base_model.model.x.lora_A.default.weight` -> `x.lora_A.weight`, `base_model.model.x.modules_to_save.default.weight`
    -> `x.weight`.
    """
    name = re.sub(rf"(\.lora_\w+)\.{adapters.ADAPTER}\b", r"\1", bare_name(name))
    return name.replace("lora_magnitude_vector.weight", "lora_magnitude_vector")


def _fill(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> set[str]:
    """Put weights into their places, in float32 where they are trained; return the names that found none.

    Raises:
        ValueError: a weight of another shape.
    """
    import torch

    left = set(weights)
    for key, parameter in _by_key(model).items():
        if key not in weights:
            continue
        value = weights[key]
        if value.shape != parameter.shape:
            raise ValueError(f"{key} is {list(value.shape)}; expected {list(parameter.shape)}")
        dtype = torch.float32 if parameter.requires_grad else parameter.dtype
        # A copy, for a head that was tied, and stands by itself here, must not share the embeddings' memory.
        parameter.data = value.to(device=parameter.device, dtype=dtype, copy=True)
        left.discard(key)
    return left
