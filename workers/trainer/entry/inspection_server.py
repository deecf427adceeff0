"""`python -m workers.trainer answer`: answers questions about checkpoints, one after the other."""

from __future__ import annotations

import json
import os
import sys
import traceback

import torch

from experiments.spec import QuestionSpec, parse_spec
from workers.inspection.protocol import AnswerMessage, QuestionMessage, Warm
from workers.protocol import PIPE_FD
from workers.trainer.entry.answer import answer
from workers.trainer.entry.loaded_models import Models
from workers.trainer.tasks.registry import build_task

THREADS = 2


def serve() -> int:
    """Send `Warm`, then an `AnswerMessage` to every `QuestionMessage`, until the input ends."""
    descriptor = int(os.environ[PIPE_FD])
    os.set_inheritable(descriptor, False)
    torch.set_num_threads(THREADS)
    models = Models()
    warm_up()
    with os.fdopen(descriptor, "wb") as pipe, open(sys.stdin.fileno(), "rb", closefd=False) as questions:
        pipe.write(Warm().bytes())
        pipe.flush()
        for line in questions:
            pipe.write(reply(models, QuestionMessage.model_validate_json(line)).bytes())
            pipe.flush()
    return 0


def warm_up() -> None:
    """Ask a minimal model one question of each kind: loads lazy imports and kernels."""
    tiny = {"d_model": 8, "heads": 1, "ffn": 8}
    for name, dataset in (("roles", "roles"), ("segment", "digit-scenes")):
        spec = parse_spec({"task": name, "data": {"dataset": dataset}, "model": tiny})
        answer(build_task(spec, torch.device("cpu")), name, QuestionSpec(sample=0))


def reply(models: Models, question: QuestionMessage) -> AnswerMessage:
    """The answer, or why there is none. Whatever fails refuses this question alone."""
    try:
        reply_content = answer(models.get(question), question.spec["task"], QuestionSpec.model_validate(question.ask))
        text = json.dumps(reply_content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError as error:  # an invalid question, or a checkpoint of another spec
        return AnswerMessage(question=question.question, problem=str(error))
    except Exception as error:
        traceback.print_exc()
        return AnswerMessage(question=question.question, problem=f"the model could not answer: {error!r}")
    size = len(text.encode())
    if size > question.most_bytes:
        problem = f"the answer has {size:,} bytes; at most {question.most_bytes:,} are allowed"
        return AnswerMessage(question=question.question, problem=problem)
    return AnswerMessage(question=question.question, answer=text)
