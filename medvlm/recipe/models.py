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
    """Which base model, at which image size: one checkpoint, or an image tower and a language model put together."""

    id: str | None = None
    """A Hub id, a local folder, `medvlm/tiny-base` (packaged), or `medvlm/tiny-random`: the backbone's architecture,
    small and untrained (`medvlm/tiny-random-FAMILY` where a backbone has several)."""
    vision_tower: str | None = None
    """GIT-LLM or Flamingo put together: a Hub id or folder with a CLIP or SigLIP model; its image tower is taken."""
    language_model: str | None = None
    """GIT-LLM or Flamingo put together: a Hub id, a folder, or a GGUF file with any decoder of
    `AutoModelForCausalLM`."""
    revision: str | None = None
    """Of `id`."""
    backbone: Literal[
        "paligemma", "git_llm", "git", "blip2", "generic", "flamingo", "vilt", "visual_bert", "lxmert", "flava",
        "contrastive",
    ] = "paligemma"  # fmt: skip
    image_size: Positive | None = None
    """Side of the square image in pixels; None keeps the checkpoint's. Position embeddings are resampled to fit."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    attention: Literal["auto", "sdpa", "eager"] = "auto"
    """`auto`: sdpa, but eager for Gemma 2, which refuses sdpa. Not flash attention over the text: it takes no prefix-LM
    mask, so the answer would leak without an error (sdpa uses flash kernels by itself where no mask is needed)."""
    logit_softcapping: bool = True
    """Keep the checkpoint's final logit soft-capping, if it has one (Gemma 2)."""
    latents: Positive | None = None
    """Flamingo put together: vectors that the resampler makes of a picture; None is the article's 64."""
    cross_every: Positive | None = None
    """Flamingo put together: a gated block stands before every so many decoder layers; None goes by the decoder's width
    as in the article, 1 to 7."""
    start: str | None = None
    """A finished run whose trained parts this one starts from; an earlier stage, for example."""

    @model_validator(mode="after")
    def _one_base(self) -> ModelPart:
        together = (self.vision_tower, self.language_model)
        if (self.id is None) == (together == (None, None)) or (self.id is None and None in together):
            raise ValueError("expected either id, or vision_tower and language_model")
        if self.id is None and self.backbone not in ("git_llm", "flamingo", "visual_bert", "lxmert"):
            raise ValueError(
                "vision_tower and language_model are put together by backbone: git_llm, flamingo, visual_bert or lxmert"
            )
        return self

    @model_validator(mode="after")
    def _sizes_of_what_is_new(self) -> ModelPart:
        if self.sizes and (self.backbone != "flamingo" or self.id is not None):
            raise ValueError(
                f"{' and '.join(self.sizes)}: only a flamingo that is put together of vision_tower and language_model "
                "takes sizes; expected null"
            )
        return self

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes that are set of what lies between a tower and a language model."""
        named = {"latents": self.latents, "cross_every": self.cross_every}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def parts(self) -> dict[str, str]:
        """Return role -> id or path of every checkpoint that the base is made of."""
        if self.id is not None:
            return {"model": self.id}
        return {"vision_tower": str(self.vision_tower), "language_model": str(self.language_model)}

    @property
    def label(self) -> str:
        """Return the base in one text."""
        return " + ".join(self.parts.values())


class QuantizationPart(Part):
    """How the frozen language model is stored (QLoRA, arXiv:2305.14314)."""

    mode: Literal["none", "nf4"] = "none"
    double: bool = True
    """Quantize the quantization constants too: 0.37 bit a parameter less."""
    compute_dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    storage: Literal["uint8", "bfloat16", "float16", "float32"] = "uint8"
    """What two or more 4-bit weights lie in; FSDP2 shares numbers of a float type among devices, and no bytes."""


LORA_KINDS = ("lora", "dora", "rslora")
COMPONENTS = ("vision_tower", "projector", "language_model", "head")


class AdapterPart(Part):
    """What is trained of one component."""

    kind: Literal["lora", "dora", "rslora", "full", "frozen"]
    """lora: arXiv:2106.09685, dora: arXiv:2402.09353, rslora (alpha / sqrt(r)): arXiv:2312.03732; all; nothing."""
    r: Positive = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    modules: list[str] | None = None
    """Last names of the linear layers that get an adapter; None is every linear layer of the component."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of this component; None takes train.learning_rate."""

    _numbers = field_validator("alpha", "dropout", "learning_rate", mode="before")(lambda value: _as_float(value))

    @property
    def low_rank(self) -> bool:
        """True where an adapter is trained beside frozen weights."""
        return self.kind in LORA_KINDS


class AdaptersPart(Part):
    """Each component by name."""

    vision_tower: AdapterPart = AdapterPart(kind="frozen")
    projector: AdapterPart = AdapterPart(kind="frozen")
    language_model: AdapterPart = AdapterPart(kind="lora")
    head: AdapterPart = AdapterPart(kind="frozen")
    """The output layer. Trained, it is no longer tied to the token embeddings, which stay with the language model."""

    @field_validator("*", mode="before")
    @classmethod
    def _kind_alone(cls, value: Any) -> Any:
        """`projector: full` is short for `projector: {kind: full}`."""
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _can_be_trained(self) -> AdaptersPart:
        parts = {name: self.part(name) for name in COMPONENTS}
        if all(part.kind == "frozen" for part in parts.values()):
            raise ValueError("every component is frozen, so nothing would be trained")
        low_rank = [part for part in parts.values() if part.low_rank]
        if 0 < sum(part.kind == "dora" for part in low_rank) < len(low_rank):
            raise ValueError("dora cannot stand beside lora or rslora in one adapter; choose one of them")
        if len({part.dropout for part in low_rank}) > 1:
            raise ValueError("the adapters of all components share one dropout; set the same")
        return self

    def part(self, component: str) -> AdapterPart:
        """Return what is said of a component."""
        found: AdapterPart = getattr(self, component)
        return found


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
    cache_pixels: bool = False
    """Keep every picture as the model takes it (resized, 8 bits) on disk, so that it is decoded once."""
    cache_features: bool = False
    """Keep what the frozen vision tower makes of every picture on disk, so that the tower runs once a picture."""

    _weight = field_validator("weight", mode="before")(lambda value: _as_float(value))


class MixturePart(Part):
    """How the data sets of `data` become one."""

    temperature: Annotated[float, Field(ge=1)] | None = None
    """Shares of an epoch go as rows ** (1 / temperature), rows counted up to `cap` (temperature-scaled mixing,
    arXiv:1910.10683, section 3.5.2): 1 is in proportion, 2 favors small data sets, a large number is near equal shares.
    Rows of the largest data set are seen once an epoch, others more often. None takes each data set's `weight`."""
    streaming: bool = False
    """Read texts from disk by row groups instead of holding all in memory; an epoch's order is then shuffled among some
    6,000 rows at a time, taken from row groups in shuffled order."""

    _temperature = field_validator("temperature", mode="before")(lambda value: _as_float(value))


class PromptsPart(Part):
    """How a sample's bare prompt becomes the prefix (`{prompt}` stands for it), and what is shown with it."""

    caption: str = "caption {language}"
    vqa: str = "answer {language} {prompt}"
    report: str = "report {language}"
    max_images: Positive = 1
    """At most so many pictures of a sample: its first, then its `more_images` in order (further views of a study)."""
    shots: Annotated[int, Field(ge=0)] = 0
    """Few-shot: so many answered training rows of the same task before each row, never of its group or its picture."""
    shots_in: Literal["eval", "both"] = "eval"
    """Whether `shots` stand in evaluation only, or in training, too."""

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
    optimizer: Literal["adamw", "adamw_fused", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    """8 bits: arXiv:2110.02861, by bitsandbytes, on a GPU; paged: states move to main memory when the GPU is full."""
    loss: Literal["token", "example"] = "token"
    """`token`: mean over all suffix tokens of a batch; `example`: mean over samples of each sample's mean."""
    contrastive: Literal["auto", "softmax", "sigmoid"] = "auto"
    """Of the backbone `contrastive`: CLIP's loss (arXiv:2103.00020) or SigLIP's (arXiv:2303.15343); `auto`: the
    checkpoint's own. Each micro-batch is its own contrast: `batch_size` counts, `gradient_accumulation` does not."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    loss_chunk: Positive = 256
    """Label positions whose logits exist at one time; the loss does not depend on it."""
    batching: Literal["shuffled", "grouped", "packed"] = "shuffled"
    """`grouped`: examples of like length share a batch; `packed`: those of a batch share rows, blind to each other."""
    mix: Literal["shuffled", "every_update"] = "shuffled"
    """`every_update`: each update holds samples of every data set, in proportion of their rows times their weights
    (arXiv:2204.14198, section 2.4: gradients accumulated over all data sets)."""
    pack_tokens: Positive | None = None
    """Longest packed row in tokens; None is twice the longest example of the batch."""
    activation_checkpointing: bool = False
    compile: bool = False
    """torch.compile of the decoder's layers."""
    liger: Literal["auto", "on", "off"] = "auto"
    """liger-kernel for norms, rotary embeddings and gated layers; `auto`: on a GPU, where it is installed."""
    log_every: Positive = 1
    eval_every: Positive | None = None
    """Steps between validation losses; None is once at the end of every epoch."""
    eval_samples: Positive = 256
    """At most so many validation rows for the loss."""
    save_every: Positive | None = None
    """Steps between checkpoints; None is ten in a run."""
    keep_checkpoints: Positive = 2
    """The last so many; the best is kept beside them."""
    best: Literal["none", "loss", "bleu4", "rouge_l", "cider", "accuracy"] = "none"
    """By which validation figure the best checkpoint is chosen and saved at the end; `none` saves the last step."""
    best_samples: Positive = 64
    """From so many validation rows the texts are generated for a figure other than the loss."""
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = ["tensorboard"]
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that decode images; 0 decodes in the main process."""

    _words = field_validator("liger", mode="before")(lambda value: _as_word(value))
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
    num_beams: Positive = 1
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 takes the likeliest token each time; above, tokens are drawn."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Tokens are drawn from the smallest set that holds so much probability (arXiv:1904.09751)."""

    _numbers = field_validator("temperature", "top_p", mode="before")(lambda value: _as_float(value))

    @model_validator(mode="after")
    def _one_way_of_decoding(self) -> EvalPart:
        if self.num_beams > 1 and self.temperature > 0:
            raise ValueError("beams take the likeliest texts and a temperature draws; set num_beams=1 or temperature=0")
        if self.top_p < 1 and self.temperature == 0:
            raise ValueError("top_p says what is drawn from, and nothing is drawn; set temperature, or top_p=1")
        return self


class ComputePart(Part):
    """What compute.json cannot know by itself."""

    price_per_hour: Annotated[float, Field(ge=0)] | None = None
    """Of the whole machine."""
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "USD"
    peak_tflops: Annotated[float, Field(gt=0)] | None = None
    """Dense rate of the device in the run's dtype; None takes the known device's, where it is known."""
    energy: Literal["auto", "codecarbon", "off"] = "auto"
    """`auto`: the GPU's own counter (NVML) where there is one; `codecarbon`: its offline tracker, by medvlm[carbon]."""
    country: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "USA"
    """ISO 3166 code, for the carbon intensity that codecarbon assumes."""

    _words = field_validator("energy", mode="before")(lambda value: _as_word(value))
    _numbers = field_validator("price_per_hour", "peak_tflops", mode="before")(lambda value: _as_float(value))


class Recipe(Part):
    """One whole fine-tuning run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0)] = 42
    model: ModelPart
    quantization: QuantizationPart = QuantizationPart()
    adapters: AdaptersPart = AdaptersPart()
    data: Annotated[list[DataPart], Field(min_length=1)]
    mixture: MixturePart = MixturePart()
    prompts: PromptsPart = PromptsPart()
    text: TextPart = TextPart()
    train: TrainPart = TrainPart()
    eval: EvalPart = EvalPart()
    compute: ComputePart = ComputePart()

    @model_validator(mode="after")
    def _quantized_parts_are_not_trained_in_full(self) -> Recipe:
        kind = self.adapters.language_model.kind
        if self.quantization.mode != "none" and kind == "full":
            raise ValueError("a 4-bit language model cannot be trained in full; use lora, or quantization.mode=none")
        return self

    @model_validator(mode="after")
    def _features_of_a_frozen_tower(self) -> Recipe:
        if self.adapters.vision_tower.kind != "frozen" and any(part.cache_features for part in self.data):
            raise ValueError("data.cache_features: the vision tower is trained, so what it sees changes; freeze it")
        return self

    @model_validator(mode="after")
    def _a_contrast_where_there_is_one(self) -> Recipe:
        if self.train.contrastive != "auto" and self.model.backbone != "contrastive":
            raise ValueError(
                f"train.contrastive: '{self.train.contrastive}': expected auto, since {self.model.backbone} has no "
                "such loss; model.backbone=contrastive has"
            )
        return self

    @model_validator(mode="after")
    def _one_way_of_weighting(self) -> Recipe:
        weighted = [place for place, part in enumerate(self.data) if part.weight != 1]
        if self.mixture.temperature is not None and weighted:
            raise ValueError(
                f"data.{weighted[0]}.weight: {self.data[weighted[0]].weight:g}: expected 1, since mixture.temperature "
                "sets how often rows are seen (data.*.cap goes with it)"
            )
        return self

    @model_validator(mode="after")
    def _streams_know_no_other_rows(self) -> Recipe:
        if self.mixture.streaming and self.train.batching == "grouped":
            raise ValueError(
                "train.batching: 'grouped': expected shuffled or packed, since mixture.streaming does not know the "
                "lengths of all rows"
            )
        if self.mixture.streaming and self.train.mix == "every_update":
            raise ValueError(
                "train.mix: 'every_update': expected shuffled, since mixture.streaming reads some of the rows at a time"
            )
        return self

    @model_validator(mode="after")
    def _a_new_projector_is_trained(self) -> Recipe:
        if self.model.id is None and self.adapters.projector.kind != "full":
            raise ValueError("adapters.projector: the projector between the two models is new; expected full")
        return self


def _as_word(value: Any) -> Any:
    """Take the words on and off, which YAML 1.1 reads as true and false, for what they say."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


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
