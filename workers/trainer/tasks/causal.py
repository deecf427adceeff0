"""Whether a language model sees the future: earlier logits must not change with later tokens.

Shapes: B sequences, T tokens, C characters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from workers.trainer.adapt.evaluating import evaluating
from workers.trainer.data.tokens.lookups import Ints

# Relative to the change at the tokens themselves. A leak through attention is at least 1e-4 of it; other orders of
# summation change the logits by 1e-7.
TOLERANCE = 1e-5
ROUNDING = 1e-6  # relative to the largest logit


def sees_future(model: nn.Module, logits: Callable[[Ints], Tensor], length: int, characters: int) -> int | None:
    """The first position whose logits [B, T, C] change with later tokens; None if there is none. `logits`
    takes token ids [B, T]. Costs one forward pass of four sequences; model and random state stay as they are."""
    if length < 2 or characters < 2:
        return None
    draw = np.random.default_rng(0)
    plain = draw.integers(0, characters, length)
    positions = sorted({0, length // 2 - 1, length - 2})
    rows = [plain]
    for position in positions:
        changed = plain.copy()
        later = changed[position + 1 :]
        changed[position + 1 :] = (later + draw.integers(1, characters, len(later))) % characters
        rows.append(changed)
    with torch.no_grad(), evaluating(model), _no_zeros(model):
        plain_logits, *changed_logits = logits(np.stack(rows)).double()
    for position, row in zip(positions, changed_logits, strict=True):
        change = (row - plain_logits).abs().amax(-1)  # T
        allowed = TOLERANCE * change[position + 1 :].max() + ROUNDING * plain_logits.abs().max()
        leaks = (change[: position + 1] > allowed).nonzero()
        if len(leaks):
            return int(leaks[0])
    return None


@contextmanager
def _no_zeros(model: nn.Module) -> Iterator[None]:
    """Inside, parameters of zeros are random: a matrix that is initialized to zero would hide a leak."""
    zeros = [parameter for parameter in model.parameters() if parameter.is_floating_point() and not parameter.any()]
    generator = torch.Generator().manual_seed(0)
    try:
        for parameter in zeros:
            drawn = torch.randn(parameter.shape, generator=generator) * 0.02
            parameter.copy_(drawn.to(parameter))
        yield
    finally:
        for parameter in zeros:
            parameter.zero_()
