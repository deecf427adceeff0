"""The task `hf`: a model of the library transformers under our recorder, queue, checkpoints and pages."""

from __future__ import annotations

from typing import Any

import torch

from experiments.spec import DigitsData, HfSpec, Section, TextData
from workers.trainer.task import Task
from workers.trainer.tasks.hf.digits import HfDigitsTask
from workers.trainer.tasks.hf.scenes import HfScenesTask
from workers.trainer.tasks.hf.text import HfTextTask

KINDS: dict[type[Section], Any] = {TextData: HfTextTask, DigitsData: HfDigitsTask}  # others are prompted images


def hf_task(spec: HfSpec, device: torch.device) -> Task:
    """The data choose the kind of model."""
    task: Task = KINDS.get(type(spec.data), HfScenesTask)(spec, device)
    return task
