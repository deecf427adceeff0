"""The registry of tasks."""

from __future__ import annotations

from typing import Any

import torch

from experiments.spec import Spec
from workers.trainer.classify import ClassifyTask
from workers.trainer.hf import hf_task
from workers.trainer.language import LanguageTask
from workers.trainer.plugins import load
from workers.trainer.pointer import PointerTask
from workers.trainer.roles import RolesTask
from workers.trainer.segment import SegmentTask
from workers.trainer.task import Task

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
