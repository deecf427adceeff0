"""Questions to models of tokens: a typed sentence, or a validation sample, and what is said at every place.

Shapes: T places, F fields of a token, C classes.
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
from workers.trainer.data.tokens.lookups import Ints
from workers.trainer.data.tokens.roles_grammar import CASES, VOCABULARY, read
from workers.trainer.inspection.figures import figures
from workers.trainer.nets.tokens import causal
from workers.trainer.tasks.language import LanguageTask
from workers.trainer.tasks.lookup.pointer import PointerTask
from workers.trainer.tasks.lookup.roles import RolesTask
from workers.trainer.tasks.lookup.task import LookupTask

LONGEST = 64  # places of a sentence
BEST = 5  # guesses a place
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
        """The best guesses at every place with their probabilities."""
        shares = raw.float().softmax(-1)
        best = shares.topk(min(BEST, shares.shape[-1]), -1)
        told = [[self.classes[index] for index in row] for row in best.indices.tolist()]
        return {"guesses": [list(zip(*row, strict=True)) for row in zip(told, figures(best.values), strict=True)]}

    def axes(self, site: str) -> tuple[str, str]:
        return "token", "token"


def read_roles(task: RolesTask, ask: QuestionSpec) -> Tokens:
    if ask.text is None:
        return _sample(task, ask, VOCABULARY)
    sentence = read(ask.text)
    fields = torch.tensor([sentence.words, sentence.cases]).T[None]
    about = {"tokens": list(sentence.labels), "marks": list(sentence.markers), "unknown": list(sentence.unknown)}
    return Tokens(fields, None, VOCABULARY, about)


def read_pointer(task: PointerTask, ask: QuestionSpec) -> Tokens:
    data = task.spec.data
    classes = [str(payload) for payload in range(data.payloads)]
    if ask.text is None:
        return _sample(task, ask, classes)
    tokens = np.array([_token(chunk) for chunk in ask.text.split()] or [(-1, -1, -1)])
    if not 1 <= len(tokens) <= data.tokens or (tokens < 0).any() or (tokens >= pointer.sizes(data)).any():
        names, payloads = data.tokens, data.payloads
        raise ValueError(
            f"type 1 to {names} tokens such as 0?2=5 (name 0 asks for name 2 and carries payload 5); names are below "
            f"{names}, payloads below {payloads}"
        )
    return Tokens(torch.from_numpy(tokens)[None], None, classes, {"tokens": task.labels(tokens)})


def _token(chunk: str) -> tuple[int, ...]:
    found = _POINTER.fullmatch(chunk)
    return tuple(min(int(part), 10**6) for part in found.groups()) if found else (-1, -1, -1)


def _sample(task: LookupTask, ask: QuestionSpec, classes: Sequence[str]) -> Tokens:
    """A validation sequence without its padding, with the truth."""
    index = ask.sample or 0
    size = task.spec.data.val_size
    if index >= size:
        raise ValueError(f"sample: there are {size} validation samples")
    drawn = task.lookups("val", np.array([index]))
    length = int(drawn.present[0].sum())
    fields: Ints = drawn.fields[:, :length]
    about = {
        "tokens": task.labels(fields[0]),
        "truth": [classes[answer] for answer in drawn.answers()[0, :length]],
        "asked": drawn.asked[0, :length].tolist(),
    }
    if isinstance(task, RolesTask):
        about["marks"] = [CASES[case] for case in fields[0, :, roles.CASE]]
    return Tokens(torch.from_numpy(fields), None, classes, about)


def read_language(task: LanguageTask, ask: QuestionSpec) -> Tokens:
    named = task.text.characters
    room = min(LONGEST, task.spec.data.context)
    if ask.text is None:
        val = task.text.parts["val"]
        start = (ask.sample or 0) * room
        if start + room > len(val):
            raise ValueError(f"sample: there are {len(val) // room} stretches of {room} characters")
        ids = val[start : start + room]
    else:
        known = {character: index for index, character in enumerate(named)}
        ids = np.array([known.get(character, 0) for character in ask.text[-room:]], np.int64)
        if not len(ids):
            raise ValueError("type some text: the model says what comes next")
    typed = ask.text[-room:] if ask.text else [named[index] for index in ids]
    about: dict[str, Any] = {"tokens": ["␣" if character.isspace() else character for character in typed]}
    if ask.text is not None:
        about |= {"unknown": sorted(set(typed) - set(named)), "cut": len(ask.text) > room}
    return Tokens(torch.from_numpy(ids)[None, :, None], causal(len(ids), torch.device("cpu")), named, about)
