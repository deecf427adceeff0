"""The answer to a question about a model: what it says and who looks at whom."""

from __future__ import annotations

from typing import Any

import torch

from experiments.spec import QuestionSpec
from workers.trainer.adapt.evaluating import evaluating
from workers.trainer.inspection.figures import described, line
from workers.trainer.inspection.given import Given
from workers.trainer.inspection.readers import READERS
from workers.trainer.inspection.views import Seen, Views, watched
from workers.trainer.task import Task


@torch.no_grad()
def look(task: Task, name: str, ask: QuestionSpec) -> dict[str, Any]:
    """What the model says and who looks at whom; with edits, both again as they change it."""
    if name not in READERS:
        raise ValueError(f"models of the task '{name}' cannot be asked yet")
    read = READERS[name]
    given = read(task, ask)
    plain, raw = _run(task, given)
    answer = {"task": name, **given.about, **_told(given, ask, plain, raw)}
    if ask.edits:
        source = None if ask.other is None else _run(task, read(task, _other(ask)))[0]
        changed, raw = _run(task, given, ask, source)
        answer["edited"] = _told(given, ask, changed, raw)
    return answer


def _other(ask: QuestionSpec) -> QuestionSpec:
    """What patches take from: another sentence, or another prompt about the same image."""
    return ask.model_copy(update={"text": ask.other, "prompt": ask.other})


def _run(
    task: Task, given: Given, ask: QuestionSpec | None = None, source: Views | None = None
) -> tuple[dict[str, Seen], Any]:
    with evaluating(task.model), watched(task.model, ask.edits if ask else (), source) as seen:
        raw = given.run(task.model)
    return seen, raw


def _told(given: Given, ask: QuestionSpec, seen: Views, raw: Any) -> dict[str, Any]:
    told: dict[str, Any] = {
        "output": given.output(raw),
        "sites": described(seen, {site: given.axes(site) for site in seen}, ask.site),
    }
    if ask.site is not None:
        if ask.site not in seen:
            raise ValueError(f"there is no site '{ask.site}'; there are: {', '.join(seen)}")
        told["focus"] = {"site": ask.site, "asker": ask.asker, "answerer": ask.answerer}
        told["focus"] |= line(seen[ask.site], ask.asker, ask.answerer)
    return told
