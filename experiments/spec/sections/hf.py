"""A model of the library transformers: built from a configuration, or loaded from the operator's folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field, JsonValue, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from .base import BelowRoot, Section, as_set

LARGEST_CONFIG = 20_000  # characters of JSON
LARGEST_NUMBER = 10_000_000
# Fields of a configuration that name code, or files to download: a spec is data.
REFUSED = {
    "attn_implementation",
    "auto_map",
    "custom_pipelines",
    "quantization_config",
    "trust_remote_code",
    "use_pretrained_backbone",
}


class HfModel(Section):
    """Either `config`, with random initial weights, or `path`, with stored weights."""

    config: dict[str, JsonValue] | None = Field(
        None, description='a configuration, such as {"model_type": "gpt2", "n_embd": 64}; the data determine the rest'
    )
    path: BelowRoot | None = Field(None, description="folder below the models root, with config.json and safetensors")
    frozen: tuple[str, ...] = Field(
        (), max_length=50, description="modules that keep their values and are not recorded, such as vision_encoder"
    )

    @field_validator("frozen")
    @classmethod
    def _is_a_set(cls, frozen: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        return as_set(frozen, info)

    @field_validator("config")
    @classmethod
    def _is_data(cls, config: dict[str, JsonValue] | None) -> dict[str, JsonValue] | None:
        if config is None:
            return None
        if not isinstance(config.get("model_type"), str):
            raise PydanticCustomError("model_type", "names no model: set `model_type`", {"field": "model_type"})
        try:
            size = len(json.dumps(config, allow_nan=False))
        except ValueError:
            raise PydanticCustomError("not_json", "holds NaN or an infinite number, which JSON cannot store") from None
        if size > LARGEST_CONFIG:
            raise PydanticCustomError("too_long", "must be at most {most} characters of JSON", {"most": LARGEST_CONFIG})
        for path, value in _leaves(config):
            _check_leaf(path, value)
        return config

    @model_validator(mode="after")
    def _one_of_both(self) -> HfModel:
        if (self.config is None) == (self.path is None):
            raise PydanticCustomError("one_of_both", "set exactly one of `config` and `path`", {"field": "config"})
        return self


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted paths and values, sections included."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield f"{path}{key}", value
            yield from _leaves(value, f"{path}{key}.")
    elif isinstance(tree, list):
        for place, value in enumerate(tree):
            yield from _leaves(value, f"{path}{place}.")


def _check_leaf(path: str, value: Any) -> None:
    name = path.rpartition(".")[2]
    if name.startswith("_") or name in REFUSED:
        message = "is not allowed in a spec: it names code, or files to download"
        raise PydanticCustomError("refused", message, {"field": path})
    numbers = value if isinstance(value, list) else [value]
    if any(isinstance(number, int | float) and abs(number) > LARGEST_NUMBER for number in numbers):
        raise PydanticCustomError("too_large", "must be at most {most}", {"field": path, "most": LARGEST_NUMBER})
