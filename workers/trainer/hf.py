"""The task `hf`: a model of the library transformers under our recorder, queue, checkpoints and pages."""

from __future__ import annotations

from typing import Any

import torch

from experiments.spec import DigitsData, HfSpec, Section, TextData
from workers.trainer.hf_digits import HfDigitsTask
from workers.trainer.hf_scenes import HfScenesTask
from workers.trainer.hf_text import HfTextTask
from workers.trainer.task import Task

KINDS: dict[type[Section], Any] = {TextData: HfTextTask, DigitsData: HfDigitsTask}  # others are prompted images


def hf_task(spec: HfSpec, device: torch.device) -> Task:
    """The data choose the kind of model."""
    task: Task = KINDS.get(type(spec.data), HfScenesTask)(spec, device)
    return task
