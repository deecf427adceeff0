"""The validated description of one training run: pure pydantic, no Django, no torch.

All three worlds import this module, so a bound that stands here holds in the form, in REST, in the
worker and in a trainer that runs without the service. A spec is data and never code: every choice
is a name from a closed list.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError

Variant = Literal["full", "no_q", "no_k", "no_v", "tied_qk", "no_qk", "const_q", "uniform"]
Matrix = Literal["W_q", "W_k", "W_v", "W_o"]


class Section(BaseModel):
    """Base of every section: unknown fields are refused, values never change, no NaN or Inf."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Attention(Section):
    """How every attention site of the model projects, compares and starts."""

    variant: Variant = Field("full", description="which projections exist; 'full' is the textbook form")
    init: Literal["normal", "xavier", "orthogonal", "zeros"] = Field(
        "normal", description="how W_q, W_k, W_v and W_o start"
    )
    init_std: float = Field(0.02, gt=0, le=1, description="standard deviation of the normal start")
    scale: Literal["sqrt_dk", "none"] = Field("sqrt_dk", description="what QKᵀ is divided by")
    frozen: tuple[Matrix, ...] = Field((), description="matrices that keep their starting values")
    qk_norm: bool = Field(False, description="normalise Q and K per head before comparing them")


class Transformer(Section):
    """Sizes that every transformer of the laboratory shares."""

    heads: int = Field(4, ge=1, le=64, description="attention heads per site")
    d_model: int = Field(64, ge=8, le=4096, description="width of a token; a multiple of heads")
    ffn: int = Field(128, ge=8, le=16384, description="hidden width of the feed-forward layers")
    attention: Attention = Attention()

    @field_validator("d_model")
    @classmethod
    def _divides_by_heads(cls, d_model: int, info: Any) -> int:
        heads = info.data.get("heads")
        if heads and d_model % heads:
            raise PydanticCustomError(
                "not_divisible",
                "d_model ({d_model}) must be divisible by heads ({heads}): each head gets d_model / heads columns",
                {"d_model": d_model, "heads": heads},
            )
        return d_model


class SegmenterModel(Transformer):
    """sam3-lite: image and text encoders, fusion encoder, query decoder, box, mask and score heads."""

    patch: Literal[4, 8] = Field(4, description="side of an image patch, in pixels")
    text_layers: int = Field(1, ge=1, le=12, description="layers of the text encoder")
    encoder_layers: int = Field(2, ge=1, le=24, description="layers of image self- and text cross-attention")
    decoder_layers: int = Field(2, ge=1, le=24, description="layers of query self- and image cross-attention")
    queries: int = Field(10, ge=1, le=300, description="object queries")


class ClassifierModel(Transformer):
    """A small vision transformer with a class token."""

    patch: Literal[1, 2, 4] = Field(2, description="side of an image patch, in pixels")
    layers: int = Field(2, ge=1, le=24, description="encoder layers")


class ScenesData(Section):
    """Synthetic street scenes with exact masks; prompts in English and Chinese."""

    dataset: Literal["scenes"]
    canvas: Literal[32, 64, 128] = Field(64, description="side of an image, in pixels")
    train_size: int = Field(4096, ge=8, le=1_000_000, description="distinct training scenes")
    val_size: int = Field(256, ge=8, le=10_000, description="scenes that evaluation uses")
    absent: float = Field(0.2, ge=0, le=0.9, description="share of prompts that match nothing")
    language: Literal["both", "en", "zh"] = Field("both", description="language of the prompts")


class DigitScenesData(Section):
    """Real handwritten digits of scikit-learn on a canvas; prompts such as "seven" or "七"."""

    dataset: Literal["digit-scenes"]
    canvas: Literal[32, 64] = Field(32, description="side of an image, in pixels")
    train_size: int = Field(4096, ge=8, le=1_000_000, description="distinct training scenes")
    val_size: int = Field(256, ge=8, le=10_000, description="scenes that evaluation uses")
    absent: float = Field(0.2, ge=0, le=0.9, description="share of prompts that match nothing")
    language: Literal["both", "en", "zh"] = Field("both", description="language of the prompts")


class DigitsData(Section):
    """The 1,797 handwritten 8×8 digits that scikit-learn carries."""

    dataset: Literal["digits"]
    val_share: float = Field(0.2, gt=0, lt=0.9, description="share of the images kept for evaluation")


class SegmentLoss(Section):
    """Weights of the loss terms of DETR-style prompted segmentation."""

    score: float = Field(2.0, ge=0, le=1000, description="weight of loss/score (is this query a match)")
    box_l1: float = Field(5.0, ge=0, le=1000, description="weight of loss/box_l1")
    box_giou: float = Field(2.0, ge=0, le=1000, description="weight of loss/box_giou")
    mask_bce: float = Field(5.0, ge=0, le=1000, description="weight of loss/mask_bce")
    mask_dice: float = Field(5.0, ge=0, le=1000, description="weight of loss/mask_dice")
    presence: float = Field(1.0, ge=0, le=1000, description="weight of loss/presence")
    aux: bool = Field(True, description="apply box and score losses to every decoder layer")


class Optimizer(Section):
    """The optimizer, its schedule and its clipping."""

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(1e-3, gt=0, le=10, description="peak learning rate")
    weight_decay: float = Field(0.01, ge=0, le=1)
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's β₁")
    beta2: float = Field(0.999, ge=0, lt=1, description="AdamW's β₂")
    momentum: float = Field(0.0, ge=0, lt=1, description="SGD's momentum")
    warmup_steps: int = Field(
        100, ge=0, le=1_000_000, description="steps of linear warm-up; a shorter run never leaves it"
    )
    schedule: Literal["cosine", "constant"] = "cosine"
    clip_norm: float | None = Field(0.1, gt=0, le=1e6, description="largest total gradient norm; null turns it off")


class Train(Section):
    """How long, how much at once, how often to look and to save."""

    steps: int = Field(1000, ge=1, le=10_000_000, description="optimizer steps")
    batch_size: int = Field(16, ge=1, le=4096)
    accumulate: int = Field(1, ge=1, le=256, description="micro-batches per optimizer step")
    eval_every: int = Field(100, ge=1, le=10_000_000, description="steps between evaluations")
    checkpoint_every: int = Field(100, ge=1, le=10_000_000, description="steps between checkpoints")
    predictions: int = Field(8, ge=0, le=64, description="validation samples drawn at each evaluation")
    on_nan: Literal["fail", "record"] = Field("fail", description="what a non-finite loss does to the run")


class Record(Section):
    """What the recorder keeps. Losses and gradient norms are kept at every recorded step."""

    every: int = Field(1, ge=1, le=10_000, description="steps between recorded points")
    per_head: bool = Field(True, description="one gradient norm for each head besides the whole matrix")
    update_ratio: bool = Field(True, description="‖ΔW‖/‖W‖ of the real optimizer step, per matrix")
    weight_norm: bool = Field(True, description="‖W‖ per matrix")
    probe_every: int = Field(100, ge=1, le=10_000_000, description="steps between explicit attention probes")


class Resources(Section):
    """Where the run may execute. Threads are part of the spec: results depend on them bit for bit."""

    pool: str = Field("cpu", pattern=r"^[a-z0-9][a-z0-9.-]{0,30}$", description="queue of a class of machine")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gpus: int = Field(0, ge=0, le=1, description="GPUs the run needs")
    threads: int = Field(2, ge=1, le=64, description="CPU threads of the trainer")


class BaseSpec(Section):
    """The sections every task shares."""

    seed: int = Field(0, ge=0, lt=2**31, description="seeds weights, data order and every other draw")
    optimizer: Optimizer = Optimizer()
    train: Train = Train()
    record: Record = Record()
    resources: Resources = Resources()


class SegmentSpec(BaseSpec):
    """Prompted segmentation: find what the prompt names, as boxes, masks and scores."""

    task: Literal["segment"]
    data: Annotated[ScenesData | DigitScenesData, Field(discriminator="dataset")]
    model: SegmenterModel = SegmenterModel()
    loss: SegmentLoss = SegmentLoss()


class ClassifySpec(BaseSpec):
    """Image classification."""

    task: Literal["classify"]
    data: DigitsData
    model: ClassifierModel = ClassifierModel()


Spec = SegmentSpec | ClassifySpec
TASKS: dict[str, type[SegmentSpec] | type[ClassifySpec]] = {"segment": SegmentSpec, "classify": ClassifySpec}
_TAGS = {"scenes", "digit-scenes", "digits", *TASKS}


@dataclass(frozen=True)
class FieldError:
    """One thing that is wrong: `path` leads to the field, `message` says what to do about it."""

    path: tuple[str | int, ...]
    message: str

    @property
    def dotted(self) -> str:
        return ".".join(str(part) for part in self.path)


class SpecError(ValueError):
    """The spec is not valid; `errors` lists every field that is wrong."""

    def __init__(self, errors: list[FieldError]) -> None:
        self.errors = errors
        super().__init__("; ".join(f"{error.dotted}: {error.message}" for error in errors))


def parse_spec(raw: object) -> Spec:
    """Validate a raw mapping. Raises SpecError that names every bad field."""
    if not isinstance(raw, Mapping):
        raise SpecError([FieldError((), "a spec is a mapping of sections")])
    task = raw.get("task")
    if not isinstance(task, str) or task not in TASKS:
        raise SpecError([FieldError(("task",), _unknown_choice(task, list(TASKS)))])
    try:
        return TASKS[task].model_validate(raw)
    except ValidationError as error:
        raise SpecError([_field_error(item, raw) for item in error.errors()]) from None


def resolved(spec: Spec) -> dict[str, Any]:
    """The spec with every default written out, as plain JSON types."""
    return spec.model_dump(mode="json")


def content_hash(spec: Spec) -> str:
    """SHA-256 of the resolved spec: equal hashes mean the same training, bit for bit."""
    canonical = json.dumps(resolved(spec), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted paths and leaves of a resolved spec, in order."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{path}.")
        else:
            yield path, value


def _field_error(item: ErrorDetails, raw: Mapping[str, Any]) -> FieldError:
    path = _without_tags(item["loc"], raw)
    return FieldError(path, _message(item, path))


def _without_tags(loc: tuple[str | int, ...], raw: object) -> tuple[str | int, ...]:
    """pydantic puts a union's tag into the location; a user never wrote it."""
    path: list[str | int] = []
    here = raw
    for part in loc:
        if part in _TAGS and not (isinstance(here, Mapping) and part in here):
            continue
        path.append(part)
        here = here.get(part) if isinstance(here, Mapping) else None
    return tuple(path)


def _message(item: ErrorDetails, path: tuple[str | int, ...]) -> str:
    context = item.get("ctx", {})
    given = f"; you gave {item['input']!r}" if not isinstance(item["input"], Mapping) else ""
    match item["type"]:
        case "greater_than_equal":
            return f"must be at least {context['ge']}{given}"
        case "greater_than":
            return f"must be greater than {context['gt']}{given}"
        case "less_than_equal":
            return f"must be at most {context['le']}{given}"
        case "less_than":
            return f"must be less than {context['lt']}{given}"
        case "extra_forbidden":
            return _unknown_field(path)
        case "missing":
            return "this field is required"
        case "literal_error" | "union_tag_invalid":
            expected = str(context.get("expected") or context.get("expected_tags"))
            return f"must be one of {expected}{given}"
        case "union_tag_not_found":
            return "names no dataset: set `dataset`"
        case "int_from_float" | "int_parsing" | "int_type":
            return f"must be a whole number{given}"
        case _:
            return item["msg"]


def _unknown_field(path: tuple[str | int, ...]) -> str:
    names = sorted(_known_names(path))
    close = difflib.get_close_matches(str(path[-1]), names, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else f"; known here: {', '.join(names)}" if names else ""
    return f"unknown field '{path[-1]}'{hint}"


def _known_names(path: tuple[str | int, ...]) -> set[str]:
    """Names that some task allows beside the unknown one."""
    models: list[Any] = list(TASKS.values())
    for part in path[:-1]:
        models = [sub for model in models for sub in _sections(model, str(part))]
    return {name for model in models for name in model.model_fields}


def _sections(model: type[BaseModel], name: str) -> list[type[BaseModel]]:
    field = model.model_fields.get(name)
    if field is None:
        return []
    candidates = [field.annotation, *get_args(field.annotation)]
    return [item for item in candidates if isinstance(item, type) and issubclass(item, BaseModel)]


def _unknown_choice(value: object, names: list[str]) -> str:
    close = difflib.get_close_matches(str(value), names, n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    return f"must be one of {', '.join(names)}; you gave {value!r}{hint}"
