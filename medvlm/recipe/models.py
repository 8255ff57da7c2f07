"""What a recipe may hold: typed, strict, every default with its reason."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from medvlm.data.sample import TASKS

Task = Literal["caption", "vqa", "report"]
Positive = Annotated[int, Field(gt=0)]


class Part(BaseModel):
    """Base of every part of a recipe: unknown keys are errors, values are never coerced from other types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ModelPart(Part):
    """Which base model, at which image size."""

    id: str
    """A Hub id, a local folder, `medvlm/tiny-base` (packaged) or `medvlm/tiny-random` (its untrained architecture)."""
    revision: str | None = None
    backbone: Literal["paligemma"] = "paligemma"
    image_size: Positive | None = None
    """Side of the square image in pixels; None keeps the checkpoint's. Position embeddings are resampled to fit."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    attention: Literal["sdpa", "eager"] = "sdpa"
    """Not flash attention: it takes no prefix-LM mask, so the answer would leak without an error."""


class QuantizationPart(Part):
    """How the frozen language model is stored (QLoRA, arXiv:2305.14314)."""

    mode: Literal["none", "nf4"] = "none"
    double: bool = True
    """Quantize the quantization constants too: 0.37 bit a parameter less."""
    compute_dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"


class AdapterPart(Part):
    """What is trained of one component."""

    kind: Literal["lora", "full", "frozen"]
    r: Positive = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    modules: list[str] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

    @field_validator("alpha", "dropout", mode="before")
    @classmethod
    def _integers_are_numbers(cls, value: Any) -> Any:
        return _as_float(value)


class AdaptersPart(Part):
    """Each component by name; PaliGemma has these three."""

    vision_tower: AdapterPart = AdapterPart(kind="frozen")
    projector: AdapterPart = AdapterPart(kind="frozen")
    language_model: AdapterPart = AdapterPart(kind="lora")

    @field_validator("*", mode="before")
    @classmethod
    def _kind_alone(cls, value: Any) -> Any:
        """`projector: full` is short for `projector: {kind: full}`."""
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _something_is_trained(self) -> AdaptersPart:
        parts = (self.vision_tower, self.projector, self.language_model)
        if all(part.kind == "frozen" for part in parts):
            raise ValueError("every component is frozen, so nothing would be trained")
        for name in ("vision_tower", "projector"):
            if getattr(self, name).kind == "lora":
                raise ValueError(f"{name}: lora is for the language model; choose full or frozen here")
        return self


class DataPart(Part):
    """One prepared data set of the mixture."""

    path: str
    """A folder that `medvlm prepare` wrote; relative paths start at the working directory."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """How often its rows are seen in an epoch: 2 is twice, 0.5 is a fixed random half."""
    cap: Positive | None = None
    """At most so many training rows, chosen by the seed."""
    tasks: list[Task] | None = None
    """Only rows of these tasks."""

    _weight = field_validator("weight", mode="before")(lambda value: _as_float(value))


class PromptsPart(Part):
    """How a sample's bare prompt becomes the prefix; `{prompt}` stands for it."""

    caption: str = "caption {language}"
    vqa: str = "answer {language} {prompt}"
    report: str = "report {language}"

    @field_validator(*TASKS)
    @classmethod
    def _known_fields(cls, value: str) -> str:
        rest = value.replace("{prompt}", "").replace("{language}", "")
        if "{" in rest or "}" in rest:
            raise ValueError("only {prompt} and {language} may stand in braces")
        return value

    @field_validator("vqa")
    @classmethod
    def _asks_the_question(cls, value: str) -> str:
        if "{prompt}" not in value:
            raise ValueError("a question needs its place: {prompt}")
        return value


class TextPart(Part):
    """Budget of the text, in tokens. Image tokens are never cut and `<eos>` is always kept."""

    max_prefix_tokens: Positive = 128
    max_suffix_tokens: Positive = 256


class TrainPart(Part):
    """The optimization. Sources of the defaults: big_vision's transfer configurations of PaliGemma."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of all steps."""
    epochs: Annotated[float, Field(gt=0)] = 1.0
    max_steps: Positive | None = None
    """Stops earlier than `epochs` would, or goes on past them."""
    batch_size: Positive = 1
    """Samples in one forward pass on one device."""
    gradient_accumulation: Positive = 1
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest gradient norm."""
    optimizer: Literal["adamw", "paged_adamw_8bit"] = "adamw"
    loss: Literal["token", "example"] = "token"
    """`token`: mean over all suffix tokens of a batch; `example`: mean over samples of each sample's mean."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    activation_checkpointing: bool = False
    log_every: Positive = 1
    eval_every: Positive | None = None
    """Steps between validation losses; None is once at the end of every epoch."""
    eval_samples: Positive = 256
    """At most so many validation rows for the loss."""
    save_every: Positive | None = None
    """Steps between checkpoints; None is ten in a run."""
    keep_checkpoints: Positive = 2
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that decode images; 0 decodes in the main process."""

    _numbers = field_validator(
        "learning_rate", "warmup", "epochs", "weight_decay", "clip", "label_smoothing", mode="before"
    )(lambda value: _as_float(value))


class EvalPart(Part):
    """How `medvlm eval` generates and scores."""

    split: Literal["train", "validation", "test"] = "test"
    batch_size: Positive = 8
    max_new_tokens: Positive = 128
    limit: Positive | None = None
    tasks: list[Task] | None = None
    """Only rows of these tasks; None scores all that were trained on."""


class Recipe(Part):
    """One whole fine-tuning run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0)] = 42
    model: ModelPart
    quantization: QuantizationPart = QuantizationPart()
    adapters: AdaptersPart = AdaptersPart()
    data: Annotated[list[DataPart], Field(min_length=1)]
    prompts: PromptsPart = PromptsPart()
    text: TextPart = TextPart()
    train: TrainPart = TrainPart()
    eval: EvalPart = EvalPart()

    @model_validator(mode="after")
    def _quantized_parts_are_not_trained_in_full(self) -> Recipe:
        kind = self.adapters.language_model.kind
        if self.quantization.mode != "none" and kind != "lora":
            raise ValueError(f"a 4-bit language model cannot be {kind}; use lora, or quantization.mode=none")
        return self


def _as_float(value: Any) -> Any:
    """Take whole numbers, and texts such as 1e-5 (which YAML 1.1 reads as text), where a number is meant."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return float(value) if isinstance(value, int) else value
