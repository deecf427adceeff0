"""The registry of tasks."""

from __future__ import annotations

from typing import Any

import torch

from experiments.spec import DigitsData, HfSpec, Section, Spec, TextData
from workers.trainer.plugins import load
from workers.trainer.task import Task
from workers.trainer.tasks.classify import ClassifyTask
from workers.trainer.tasks.hf.digits import HfDigitsTask
from workers.trainer.tasks.hf.scenes import HfScenesTask
from workers.trainer.tasks.hf.text import HfTextTask
from workers.trainer.tasks.language import LanguageTask
from workers.trainer.tasks.lookup.pointer import PointerTask
from workers.trainer.tasks.lookup.roles import RolesTask
from workers.trainer.tasks.segment.task import SegmentTask

HF_TASKS: dict[type[Section], Any] = {TextData: HfTextTask, DigitsData: HfDigitsTask}  # others are prompted images


def hf_task(spec: HfSpec, device: torch.device) -> Task:
    """The data determine the kind of model."""
    task: Task = HF_TASKS.get(type(spec.data), HfScenesTask)(spec, device)
    return task


TASKS: dict[str, Any] = {
    "classify": ClassifyTask,
    "hf": hf_task,
    "language": LanguageTask,
    "pointer": PointerTask,
    "roles": RolesTask,
    "segment": SegmentTask,
}


def build_task(spec: Spec, device: torch.device) -> Task:
    """A task of ours, or of an installed package."""
    task: Task = (TASKS.get(spec.task) or load("tasks", spec.task))(spec, device)
    return task
