"""Loss terms of one micro-batch that add up over a step to those of one large batch."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature

from torch import Tensor

from workers.trainer.task import Task


def accumulated(task: Task, micro_step: int, step: range) -> Mapping[str, Tensor]:
    """Loss terms of `micro_step` whose sum over `step` is the mean over the step. A task that takes `step` divides by
    the counts of the whole step; terms of other tasks are divided by the number of micro-batches. A step of one
    micro-batch takes the same operations as without accumulation."""
    if len(step) > 1 and "step" in signature(task.losses).parameters:
        losses: Mapping[str, Tensor] = task.losses(micro_step, step=step)  # type: ignore[call-arg]  # checked above
        return losses
    return {name: value / len(step) for name, value in task.losses(micro_step).items()}
