"""The registry of tasks."""

from __future__ import annotations

from typing import Any

import torch

from experiments.spec import Spec
from workers.trainer.plugins import load
from workers.trainer.task import Task
from workers.trainer.tasks.classify import ClassifyTask
from workers.trainer.tasks.hf.task import hf_task
from workers.trainer.tasks.language import LanguageTask
from workers.trainer.tasks.lookup.pointer import PointerTask
from workers.trainer.tasks.lookup.roles import RolesTask
from workers.trainer.tasks.segment.task import SegmentTask

TASKS: dict[str, Any] = {
    "classify": ClassifyTask,
    "hf": hf_task,
    "language": LanguageTask,
    "pointer": PointerTask,
    "roles": RolesTask,
    "segment": SegmentTask,
}


def build_task(spec: Spec, device: torch.device) -> Task:
    """A task of ours, or of a package installed here."""
    task: Task = (TASKS.get(spec.task) or load("tasks", spec.task))(spec, device)
    return task
