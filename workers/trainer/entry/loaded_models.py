"""Tasks with the weights of a checkpoint; the last few stay loaded."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from safetensors import safe_open

from experiments.spec import Spec, content_hash, parse_spec
from workers.inspection.protocol import QuestionMessage
from workers.trainer.data.digest import reading
from workers.trainer.task import Task
from workers.trainer.tasks.hf.config import trained_before
from workers.trainer.tasks.registry import build_task
from workers.trainer.training.checkpoint import WEIGHT, check_inputs, check_spec, facts_of

KEPT = 6
KEPT_BYTES = 512 * 2**20  # of weights


class Models:
    """A cache bounded by count and by the size of the weights; the least recently used is dropped first."""

    def __init__(self) -> None:
        self._loaded: OrderedDict[tuple[str, str], tuple[Task, int]] = OrderedDict()

    def get(self, question: QuestionMessage) -> Task:
        spec = parse_spec(question.spec, stored=True)
        key = content_hash(spec), question.sha256
        if key not in self._loaded:
            self._loaded[key] = _load(spec, Path(question.checkpoint))
        self._loaded.move_to_end(key)
        while len(self._loaded) > 1 and (len(self._loaded) > KEPT or self._bytes > KEPT_BYTES):
            self._loaded.popitem(last=False)
        return self._loaded[key][0]

    @property
    def _bytes(self) -> int:
        return sum(size for _, size in self._loaded.values())


def _load(spec: Spec, path: Path) -> tuple[Task, int]:
    """The task on the CPU in evaluation mode, and the bytes of its weights. The optimizer's state is not read."""
    facts = facts_of(path)
    check_spec(path, facts, spec)
    with trained_before(), reading() as inputs:
        task = build_task(spec, torch.device("cpu"))
    check_inputs(facts, inputs)
    with safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(WEIGHT)]  # noqa: SIM118 (not a dict)
        weights = {name.removeprefix(WEIGHT): file.get_tensor(name) for name in names}
    task.model.load_state_dict(weights)
    task.model.eval()
    for parameter in task.model.parameters():
        parameter.grad = None
    return task, sum(value.nbytes for value in weights.values())
