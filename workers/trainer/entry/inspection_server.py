"""`python -m workers.trainer answer`: stay warm, answer questions to checkpoints one after the other."""

from __future__ import annotations

import json
import os
import sys
import traceback

import torch

from experiments.spec import QuestionSpec, parse_spec
from workers.inspection.protocol import Put, Reply, Warm
from workers.protocol import PIPE_FD
from workers.trainer.entry.loaded_models import Models
from workers.trainer.inspection.answer import answer
from workers.trainer.tasks.registry import build_task

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
        answer(build_task(spec, torch.device("cpu")), name, QuestionSpec(sample=0))


def reply(models: Models, put: Put) -> Reply:
    """The answer, or why there is none; a bug here refuses one question and not the next."""
    try:
        reply_content = answer(models.get(put), put.spec["task"], QuestionSpec.model_validate(put.ask))
        text = json.dumps(reply_content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError as error:  # the asker's mistake, or a checkpoint of another spec
        return Reply(question=put.question, problem=str(error))
    except Exception as error:
        traceback.print_exc()
        return Reply(question=put.question, problem=f"the model could not be asked: {error!r}")
    size = len(text.encode())
    if size > put.most_bytes:
        return Reply(question=put.question, problem=f"the answer has {size:,} bytes, {put.most_bytes:,} are allowed")
    return Reply(question=put.question, answer=text)
