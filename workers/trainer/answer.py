"""`python -m workers.trainer answer`: stay warm, answer questions to checkpoints one after the other."""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

import torch

from experiments.spec import Ask, parse_spec
from workers.explore_protocol import Put, Reply, Warm
from workers.protocol import PIPE_FD
from workers.trainer.answer_figures import described, line
from workers.trainer.answer_given import Given, Read
from workers.trainer.answer_models import Models
from workers.trainer.answer_scenes import read_scene
from workers.trainer.answer_taps import Seen, Views, watched
from workers.trainer.answer_tokens import read_language, read_pointer, read_roles
from workers.trainer.evaluating import evaluating
from workers.trainer.task import Task
from workers.trainer.tasks import build_task

READERS: dict[str, Read] = {
    "roles": read_roles,
    "pointer": read_pointer,
    "language": read_language,
    "segment": read_scene,
}
THREADS = 2


def serve() -> int:
    """Say `Warm`, then a `Reply` to every `Put`, until the input ends."""
    descriptor = int(os.environ[PIPE_FD])
    os.set_inheritable(descriptor, False)
    torch.set_num_threads(THREADS)
    models = Models()
    warm_up()
    with os.fdopen(descriptor, "wb") as pipe, open(sys.stdin.fileno(), "rb", closefd=False) as told:
        pipe.write(Warm().bytes())
        pipe.flush()
        for text in told:
            pipe.write(reply(models, Put.model_validate_json(text)).bytes())
            pipe.flush()
    return 0


def warm_up() -> None:
    """One question to a model of the smallest size: loads every lazy import and kernel."""
    tiny = {"d_model": 8, "heads": 1, "ffn": 8}
    for name, dataset in (("roles", "roles"), ("segment", "digit-scenes")):
        spec = parse_spec({"task": name, "data": {"dataset": dataset}, "model": tiny})
        look(build_task(spec, torch.device("cpu")), name, Ask(sample=0))


def reply(models: Models, put: Put) -> Reply:
    """The answer, or why there is none; a bug here refuses one question and not the next."""
    try:
        found = look(models.get(put), put.spec["task"], Ask.model_validate(put.ask))
        text = json.dumps(found, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError as error:  # the asker's mistake, or a checkpoint of another spec
        return Reply(question=put.question, problem=str(error))
    except Exception as error:
        traceback.print_exc()
        return Reply(question=put.question, problem=f"the model could not be asked: {error!r}")
    size = len(text.encode())
    if size > put.most_bytes:
        return Reply(question=put.question, problem=f"the answer has {size:,} bytes, {put.most_bytes:,} are allowed")
    return Reply(question=put.question, answer=text)


@torch.no_grad()
def look(task: Task, name: str, ask: Ask) -> dict[str, Any]:
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


def _other(ask: Ask) -> Ask:
    """What patches take from: another sentence, or another prompt about the same image."""
    return ask.model_copy(update={"text": ask.other, "prompt": ask.other})


def _run(task: Task, given: Given, ask: Ask | None = None, source: Views | None = None) -> tuple[dict[str, Seen], Any]:
    with evaluating(task.model), watched(task.model, ask.edits if ask else (), source) as seen:
        raw = given.run(task.model)
    return seen, raw


def _told(given: Given, ask: Ask, seen: Views, raw: Any) -> dict[str, Any]:
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
