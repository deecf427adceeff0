"""The validated description of one training run: pure pydantic, no Django, no torch.

All three worlds import this module, so its bounds hold in the form, in REST, in the worker and in a trainer that runs
without the service. A spec is data and never code: every choice is a name from a closed list. Its sections are in
`experiments/spec/sections/`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from experiments.spec.errors import FieldError, SpecError, message, unknown_choice
from experiments.spec.sections.base import Section, is_stored
from experiments.spec.sections.data import (
    CocoData,
    DigitScenesData,
    DigitsData,
    PointerData,
    RolesData,
    ScenesData,
    TextData,
)
from experiments.spec.sections.hf import HfModel
from experiments.spec.sections.models import ClassifierModel, SegmenterModel, TokenModel
from experiments.spec.sections.plugins import PluginData, PluginLoss, PluginModel, is_plugin
from experiments.spec.sections.training import Optimizer, Record, Resources, SegmentLoss, Train


class BaseSpec(Section):
    """The sections that every task shares."""

    seed: int = Field(0, ge=0, lt=2**31, description="seed of weights, data order and every other random choice")
    optimizer: Optimizer = Optimizer()
    train: Train = Field(Train(), validate_default=True)  # a warm-up may be longer than the default's steps
    record: Record = Record()
    resources: Resources = Resources()

    @field_validator("train")
    @classmethod
    def _is_long_enough_to_warm_up(cls, train: Train, info: ValidationInfo) -> Train:
        """An explicit warm-up must fit into the run; `resolved` clamps the default."""
        optimizer = info.data.get("optimizer")
        if optimizer is None or is_stored(info) or "warmup_steps" not in optimizer.model_fields_set:
            return train
        if optimizer.warmup_steps > train.steps:
            message = "must be at most train.steps ({steps}), or the run ends during its warm-up; you gave {given}"
            context = {"at": "optimizer.warmup_steps", "steps": train.steps, "given": optimizer.warmup_steps}
            raise PydanticCustomError("long_warm_up", message, context)
        return train


class SegmentSpec(BaseSpec):
    """Prompted segmentation: find what the prompt names, as boxes, masks and scores."""

    task: Literal["segment"]
    data: Annotated[ScenesData | DigitScenesData | CocoData, Field(discriminator="dataset")]
    model: SegmenterModel = SegmenterModel()
    loss: SegmentLoss = SegmentLoss()


class ClassifySpec(BaseSpec):
    """Image classification."""

    task: Literal["classify"]
    data: DigitsData
    model: ClassifierModel = ClassifierModel()


class PointerSpec(BaseSpec):
    """Look up the payload of the token that each token names."""

    task: Literal["pointer"]
    data: PointerData
    model: TokenModel = TokenModel()


class RolesSpec(BaseSpec):
    """Find the governor of every token of a sentence."""

    task: Literal["roles"]
    data: RolesData
    model: TokenModel = TokenModel()


class LanguageSpec(BaseSpec):
    """Predict the next character."""

    task: Literal["language"]
    data: TextData
    model: TokenModel = TokenModel()


class HfSpec(BaseSpec):
    """Train a model of the library transformers: a language model on text, an image classifier on digits, SAM 3 on
    scenes."""

    task: Literal["hf"]
    data: Annotated[TextData | DigitsData | ScenesData | DigitScenesData, Field(discriminator="dataset")]
    model: HfModel
    loss: SegmentLoss = SegmentLoss()

    @field_validator("model")
    @classmethod
    def _fits_the_data(cls, model: HfModel, info: ValidationInfo) -> HfModel:
        data, config = info.data.get("data"), model.config or {}
        if isinstance(data, ScenesData | DigitScenesData) and config.get("model_type", "sam3") != "sam3":
            raise PydanticCustomError(
                "no_segmenter", "must be 'sam3' on prompted images", {"field": "config.model_type"}
            )
        words = config.get("vocab_size")
        if isinstance(data, TextData) and isinstance(words, int) and words < data.characters:
            message = "must be at least data.characters ({characters}); leave it out to use exactly that"
            raise PydanticCustomError(
                "few_words", message, {"field": "config.vocab_size", "characters": data.characters}
            )
        return model


class PluginSpec(BaseSpec):
    """A task of an operator's package, which checks data, model and loss itself."""

    task: str
    data: PluginData
    model: PluginModel = PluginModel()
    loss: PluginLoss = PluginLoss()


Spec = SegmentSpec | ClassifySpec | PointerSpec | RolesSpec | LanguageSpec | HfSpec | PluginSpec
TASKS: dict[str, type[Spec]] = {
    "segment": SegmentSpec,
    "classify": ClassifySpec,
    "pointer": PointerSpec,
    "roles": RolesSpec,
    "language": LanguageSpec,
    "hf": HfSpec,
}
_DATASETS = {"scenes", "digit-scenes", "coco", "digits", "pointer", "roles", "text"}
_TAGS = {*_DATASETS, *TASKS}
MAX_ERRORS = 100  # reported for one spec
HASHED = 1  # raised whenever a default changes: hashes leave defaults out


def parse_spec(raw: object, *, stored: bool = False) -> Spec:
    """Validate a raw mapping. Raises SpecError that names every wrong field. `stored`: the spec was accepted before and
    is read as it was trained, although newer checks would refuse a contradiction in it."""
    if not isinstance(raw, Mapping):
        raise SpecError([FieldError((), "must be a mapping of sections, such as `task`, `data` and `model`")])
    task = raw.get("task")
    if not isinstance(task, str) or (task not in TASKS and not is_plugin(task)):
        raise SpecError([FieldError(("task",), unknown_choice(task, list(TASKS)))])
    try:
        return TASKS.get(task, PluginSpec).model_validate(raw, context={"stored": stored})
    except ValidationError as error:
        raise SpecError([_field_error(details, raw) for details in error.errors()[:MAX_ERRORS]]) from None


def resolved(spec: Spec) -> dict[str, Any]:
    """The spec with every default written out, as plain JSON types. Parsed again, it gives the same spec."""
    tree = spec.model_dump(mode="json")
    if _warms_up_throughout(spec):
        tree["optimizer"]["warmup_steps"] = spec.train.steps
    return tree


def content_hash(spec: Spec) -> str:
    """SHA-256 of what the spec sets: equal hashes mean the same training, bit for bit. Values equal to their default
    are left out, so that a field added later changes no hash."""
    tree = spec.model_dump(mode="json", exclude_defaults=True)
    if _warms_up_throughout(spec):
        tree.setdefault("optimizer", {})["warmup_steps"] = spec.train.steps
    canonical = json.dumps([HASHED, tree], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _warms_up_throughout(spec: Spec) -> bool:
    """Whether no warm-up was set and the default would not fit into the run."""
    optimizer = spec.optimizer
    return "warmup_steps" not in optimizer.model_fields_set and optimizer.warmup_steps > spec.train.steps


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted paths and leaves of a resolved spec, in order."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{path}.")
        else:
            yield path, value


def _field_error(details: Any, raw: Mapping[str, Any]) -> FieldError:
    path = _path(details, raw)
    return FieldError(path, message(details, path, raw, TASKS))


def _path(details: Any, raw: Mapping[str, Any]) -> tuple[str | int, ...]:
    """A check of two sections names the field to change in its context, as `at`."""
    if field := details.get("ctx", {}).get("at"):
        return tuple(str(field).split("."))
    return (*_without_tags(details["loc"], raw), *_inner(details))


def _inner(details: Any) -> tuple[str, ...]:
    """A check of a whole section names the wrong field in its context, as `field`."""
    field = details.get("ctx", {}).get("field")
    return () if field is None else tuple(str(field).split("."))


def _without_tags(loc: tuple[str | int, ...], raw: object) -> tuple[str | int, ...]:
    """The location without tags of unions: pydantic adds them, users do not write them."""
    path: list[str | int] = []
    here = raw
    for part in loc:
        if part in _TAGS and not (isinstance(here, Mapping) and part in here):
            continue
        path.append(part)
        here = here.get(part) if isinstance(here, Mapping) else None
    return tuple(path)
