"""Questions to models of tokens: a typed sentence or a validation sample, and the best guesses at every position.

Shapes: T positions, F fields of a token, C classes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from experiments.spec import QuestionSpec
from workers.trainer.data.tokens import pointer, roles
from workers.trainer.data.tokens.grammar import CASES, VOCABULARY, read
from workers.trainer.data.tokens.lookups import Ints
from workers.trainer.inspection.figures import figures
from workers.trainer.nets.tokens import causal
from workers.trainer.tasks.language import LanguageTask
from workers.trainer.tasks.lookup.pointer import PointerTask
from workers.trainer.tasks.lookup.roles import RolesTask
from workers.trainer.tasks.lookup.task import LookupTask

LONGEST = 64  # tokens of a sentence
BEST = 5  # guesses for each position
_POINTER = re.compile(r"(\d+)\?(\d+)=(\d+)")


@dataclass
class Tokens:
    """A sequence as the model reads it."""

    fields_1TF: Tensor
    mask: Tensor | None
    classes: Sequence[str]
    about: dict[str, Any]

    def run(self, model: nn.Module) -> Tensor:
        device = next(model.parameters()).device
        logits: Tensor = model(self.fields_1TF.to(device), None if self.mask is None else self.mask.to(device))
        return logits[0]  # TC

    def output(self, raw: Tensor) -> dict[str, Any]:
        """The best guesses at every position with their probabilities."""
        shares = raw.float().softmax(-1)
        best = shares.topk(min(BEST, shares.shape[-1]), -1)
        names = ([self.classes[index] for index in row] for row in best.indices.tolist())
        rows = zip(names, figures(best.values), strict=True)
        return {"guesses": [list(zip(*row, strict=True)) for row in rows]}

    def axes(self, site: str) -> tuple[str, str]:
        return "token", "token"


def read_roles(task: RolesTask, question: QuestionSpec) -> Tokens:
    if question.text is None:
        return _sample(task, question, VOCABULARY)
    sentence = read(question.text)
    fields = torch.tensor([sentence.words, sentence.cases]).T[None]
    about = {"tokens": list(sentence.labels), "marks": list(sentence.markers), "unknown": list(sentence.unknown)}
    return Tokens(fields, None, VOCABULARY, about)


def read_pointer(task: PointerTask, question: QuestionSpec) -> Tokens:
    data = task.spec.data
    classes = [str(payload) for payload in range(data.payloads)]
    if question.text is None:
        return _sample(task, question, classes)
    tokens = np.array([_token(chunk) for chunk in question.text.split()] or [(-1, -1, -1)])
    if not 1 <= len(tokens) <= data.tokens or (tokens < 0).any() or (tokens >= pointer.sizes(data)).any():
        names, payloads = data.tokens, data.payloads
        raise ValueError(
            f"type 1 to {names} tokens such as 0?2=5 (name 0 refers to name 2 and carries payload 5); names are below "
            f"{names}, payloads below {payloads}"
        )
    return Tokens(torch.from_numpy(tokens)[None], None, classes, {"tokens": task.labels(tokens)})


def _token(chunk: str) -> tuple[int, ...]:
    match = _POINTER.fullmatch(chunk)
    return tuple(min(int(part), 10**6) for part in match.groups()) if match else (-1, -1, -1)


def _sample(task: LookupTask, question: QuestionSpec, classes: Sequence[str]) -> Tokens:
    """A validation sequence without its padding, with the right answers."""
    index = question.sample or 0
    size = task.spec.data.val_size
    if index >= size:
        raise ValueError(f"sample: {index} is out of range; there are {size} validation samples, numbered from 0")
    drawn = task.lookups("val", np.array([index]))
    length = int(drawn.present[0].sum())
    fields: Ints = drawn.fields[:, :length]
    about = {
        "tokens": task.labels(fields[0]),
        "truth": [classes[answer] for answer in drawn.truth()[0, :length]],
        "asked": drawn.targets[0, :length].tolist(),
    }
    if isinstance(task, RolesTask):
        about["marks"] = [CASES[case] for case in fields[0, :, roles.CASE]]
    return Tokens(torch.from_numpy(fields), None, classes, about)


def _stretch(val: Ints, index: int, room: int) -> Ints:
    count = len(val) // room
    if index >= count:
        raise ValueError(f"sample: {index} is out of range; there are {count} stretches of {room} characters")
    return val[index * room : (index + 1) * room]


def read_language(task: LanguageTask, question: QuestionSpec) -> Tokens:
    characters, text = task.text.characters, question.text
    room = min(LONGEST, task.spec.data.context)
    if text is None:
        ids = _stretch(task.text.parts["val"], question.sample or 0, room)
        return _characters(ids, [characters[index] for index in ids], characters, {})
    if not text:
        raise ValueError("text: it is empty; type some text, and the model predicts the next character")
    known = {character: index for index, character in enumerate(characters)}
    typed = list(text[-room:])
    ids = np.array([known.get(character, 0) for character in typed], np.int64)
    about = {"unknown": sorted(set(typed) - set(characters)), "cut": len(text) > room}
    return _characters(ids, typed, characters, about)


def _characters(ids: Ints, typed: list[str], classes: Sequence[str], about: dict[str, Any]) -> Tokens:
    about = {"tokens": ["␣" if character.isspace() else character for character in typed], **about}
    return Tokens(torch.from_numpy(ids)[None, :, None], causal(len(ids), torch.device("cpu")), classes, about)
