"""The presets: predefined experiments, one YAML file each in `experiments/presets/`. Pure, no Django."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from experiments.spec.yaml_text import load

_FOLDER = Path(__file__).parents[1] / "presets"


class Words(BaseModel):
    """The same sentence in two languages."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    en: str
    zh: str


class Also(BaseModel):
    """A further definition of a preset: another task or another length, with the preset's seeds."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    spec: dict[str, Any]
    matrix: dict[str, list[Any]] = {}


class Preset(BaseModel):
    """An experiment that tests a claim of the notes and can be submitted unchanged."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    title: Words
    claim: Words
    section: str  # of the notes
    minutes: float  # measured: all its runs, one after another, on one CPU core
    order: int  # in the gallery
    demo: bool = False
    spec: dict[str, Any]
    matrix: dict[str, list[Any]] = {}
    also: list[Also] = []  # submitted too, with the same overrides; `Plan.left_out` lists what is left out
    seeds: list[int] = [0]


@cache
def presets() -> dict[str, Preset]:
    """All presets by name, in the order of the gallery."""
    every = [Preset.model_validate(load(path.read_text("utf-8"))) for path in _FOLDER.glob("*.yaml")]
    return {preset.name: preset for preset in sorted(every, key=lambda preset: (preset.order, preset.name))}
