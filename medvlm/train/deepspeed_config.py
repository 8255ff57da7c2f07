"""What may stand in a DeepSpeed configuration, checked before any process starts, by DeepSpeed's own schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medvlm.errors import InputError, UsageError

STAGES = (2, 3)
_LEFT_TO_THE_RECIPE = {
    "train_batch_size": "train.batch_size",
    "train_micro_batch_size_per_gpu": "train.batch_size",
    "gradient_accumulation_steps": "train.gradient_accumulation",
    "gradient_clipping": "train.clip",
}
"""Keys whose value is `auto` because the recipe says it -> the recipe's key."""


def check_file(args: Any) -> None:
    """Raise where what accelerate was given for DeepSpeed cannot be trained with.

    Args:
        args: of `accelerate launch`.

    Raises:
        InputError: the file is missing or no JSON, or DeepSpeed does not know one of its values.
        UsageError: it asks for what is not done here.
    """
    if args.deepspeed_config_file is None:
        check({"zero_optimization": {"stage": int(args.zero_stage)}}, "deepspeed_config")
        return
    path = Path(args.deepspeed_config_file)
    check(read(path), str(path))


def read(path: Path) -> dict[str, Any]:
    """Return a DeepSpeed configuration.

    Raises:
        InputError: it is missing, or no JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a DeepSpeed configuration ({' '.join(str(error).split())})") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: not a DeepSpeed configuration; expected a JSON object")
    return found


def check(config: dict[str, Any], where: str) -> None:
    """Raise where a configuration is not DeepSpeed's, or says what the recipe has to say; every problem at once.

    Raises:
        InputError: a value that DeepSpeed's schema does not take; without DeepSpeed only ours are looked at.
        UsageError: another stage than 2 or 3; an optimizer, schedule or size of its own.
    """
    zero = config.get("zero_optimization")
    stage = zero.get("stage") if isinstance(zero, dict) else None
    problems = []
    if stage not in STAGES:
        problems.append(f"zero_optimization.stage: {stage!r}: expected 2 or 3; --devices alone needs no DeepSpeed")
    problems += [
        f"{key}: {config[key]!r}: the recipe's {ours} decides; expected 'auto'"
        for key, ours in _LEFT_TO_THE_RECIPE.items()
        if config.get(key, "auto") != "auto"
    ]
    problems += [f"{key}: the recipe decides; leave it out" for key in ("optimizer", "scheduler") if key in config]
    if problems:
        raise UsageError(f"{where}: {'; '.join(problems)}")
    _check_schema({key: value for key, value in (zero or {}).items() if value != "auto"}, where)


def _check_schema(zero: dict[str, Any], where: str) -> None:
    """Raise where DeepSpeed's own model of `zero_optimization` does not take it."""
    try:
        from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    except ImportError:
        return
    from pydantic import ValidationError

    try:
        DeepSpeedZeroConfig(**zero)
    except ValidationError as error:
        problems = [
            f"zero_optimization.{'.'.join(map(str, one['loc']))}: {one['input']!r}: {one['msg']}"
            for one in error.errors()
        ]
        raise InputError(f"{where}: {'; '.join(problems)}") from error
