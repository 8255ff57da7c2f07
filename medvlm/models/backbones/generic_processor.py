"""A checkpoint's processor for pictures and text alone.

Qwen2.5-VL's and SmolVLM2's also take videos, for which transformers wants torchvision and num2words. Neither is needed
here: their processors are put together without that part, whose settings are kept and saved again as they were.
"""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, AutoTokenizer
from transformers.models.auto.processing_auto import processor_class_from_name
from transformers.utils import PushToHubMixin

from medvlm.errors import InputError

FILES = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
VIDEO_FILE = "video_preprocessor_config.json"


class UnreadVideos(PushToHubMixin):  # type: ignore[misc]
    """Stands where a processor for videos would: it reads none, and gives its settings back when it is saved.

    Args:
        settings: the checkpoint's.
    """

    _auto_class = None
    model_input_names: tuple[str, ...] = ()

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def to_dict(self) -> dict[str, Any]:
        """Return the checkpoint's settings."""
        return dict(self.settings)


def load_processor(path: Path) -> Any:
    """Return the processor of a checkpoint's folder, its pictures read by PIL.

    Raises:
        InputError: the folder names no processor that transformers knows, or one of its parts is missing.
    """
    name = _class_name(path)
    kind: Any = processor_class_from_name(name) if name else None
    if kind is None:
        raise InputError(f"model.id: {path}: no processor for pictures and text ({name or 'none named'}); see its card")
    try:
        return _loaded(kind, path)
    # A tokenizer that lacks what the class asks of it is an AttributeError.
    except (OSError, ValueError, ImportError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"model.id: {path}: its processor cannot be read ({reason})") from error


def _loaded(kind: Any, path: Path) -> Any:
    settings, _ = kind.get_processor_dict(path, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    pictures = AutoImageProcessor.from_pretrained(path, local_files_only=True, backend="pil")
    own = settings.pop("video_processor", None) or _read(path / VIDEO_FILE)
    made = {key: value for key, value in settings.items() if key in _accepted(kind)}
    found = assemble(kind, pictures, tokenizer, videos=own, **made)
    if found.chat_template is None:
        found.chat_template = tokenizer.chat_template
    return found


def assemble(kind: Any, pictures: Any, tokenizer: Any, *, videos: dict[str, Any] | None = None, **settings: Any) -> Any:
    """Return a processor of this class made of its parts.

    Args:
        kind: the class.
        pictures: the image processor.
        tokenizer: of the language model.
        videos: settings of the processor for videos, where the class has one.
        settings: more of the class's own arguments.
    """
    parts = {"image_processor": pictures, "tokenizer": tokenizer}
    if "video_processor" not in kind.get_attributes():
        return kind(**parts, **settings)
    with _videos_unread(kind):
        return kind(**parts, video_processor=UnreadVideos(videos or {}), **settings)


@contextlib.contextmanager
def _videos_unread(kind: Any) -> Iterator[None]:
    """Let a processor be made without what only videos need."""
    check = kind.check_argument_for_proper_class

    def checked(self: Any, name: str, argument: Any) -> Any:
        return type(argument) if isinstance(argument, UnreadVideos) else check(self, name, argument)

    module: Any = importlib.import_module(kind.__module__)
    # Asked for when a SmolVLM processor is made, called for videos only.
    wordless = getattr(module, "num2words", "") is None
    own = kind.__dict__.get("check_argument_for_proper_class")
    kind.check_argument_for_proper_class = checked
    if wordless:
        module.num2words = str
    try:
        yield
    finally:
        if own is None:
            del kind.check_argument_for_proper_class
        else:
            kind.check_argument_for_proper_class = own
        if wordless:
            module.num2words = None


def _class_name(path: Path) -> str | None:
    for file in FILES:
        name = _read(path / file).get("processor_class")
        if name:
            return str(name)
    from transformers import AutoConfig
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    config = AutoConfig.from_pretrained(path, local_files_only=True)
    found: str | None = PROCESSOR_MAPPING_NAMES.get(config.model_type)
    return found


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _accepted(kind: Any) -> set[str]:
    """Return the names of the class's own arguments beside its parts."""
    import inspect

    names = set(inspect.signature(kind.__init__).parameters) - {"self", "kwargs"}
    return names - set(kind.get_attributes())
