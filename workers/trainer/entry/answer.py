"""The answer to a question about a model: its output and the attention of every site."""

from __future__ import annotations

from typing import Any

import torch

from experiments.spec import QuestionSpec
from workers.trainer.adapt.evaluating import evaluating
from workers.trainer.inspection.figures import described, focused
from workers.trainer.inspection.model_input import ModelInput
from workers.trainer.inspection.readers import READERS
from workers.trainer.inspection.views import Views, watched
from workers.trainer.task import Task


@torch.no_grad()
def answer(task: Task, name: str, question: QuestionSpec) -> dict[str, Any]:
    """Output and attention; with edits, both a second time after them. Raises ValueError for a user's mistake."""
    if name not in READERS:
        raise ValueError(f"task '{name}': models of this task cannot answer questions yet")
    read = READERS[name]
    model_input = read(task, question)
    views, raw = _run(task, model_input)
    reply = {"task": name, **model_input.about, **_described(model_input, question, views, raw)}
    if question.edits:
        source = None if question.other is None else _run(task, read(task, _other(question)))[0]
        views, raw = _run(task, model_input, question, source)
        reply["edited"] = _described(model_input, question, views, raw)
    return reply


def _other(question: QuestionSpec) -> QuestionSpec:
    """What patches take from: another sentence, or another prompt about the same image."""
    return question.model_copy(update={"text": question.other, "prompt": question.other})


def _run(
    task: Task, model_input: ModelInput, question: QuestionSpec | None = None, source: Views | None = None
) -> tuple[Views, Any]:
    with evaluating(task.model), watched(task.model, question.edits if question else (), source) as views:
        raw = model_input.run(task.model)
    return views, raw


def _described(model_input: ModelInput, question: QuestionSpec, views: Views, raw: Any) -> dict[str, Any]:
    site = question.site
    parts: dict[str, Any] = {
        "output": model_input.output(raw),
        "sites": described(views, {name: model_input.axes(name) for name in views}, site),
    }
    if site is not None:
        if site not in views:
            raise ValueError(f"there is no site '{site}'; choose one of: {', '.join(views)}")
        parts["focus"] = {"site": site, "asker": question.asker, "answerer": question.answerer}
        parts["focus"] |= focused(views[site], question.asker, question.answerer)
    return parts
