"""Whether a language model sees the future: later tokens are changed, earlier logits must stay.

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

# Of the change at the tokens themselves. A leak through attention is 1e-4 of it and more, other orders of summation
# (measured at 1e-7 of the logits) are less.
TOLERANCE = 1e-5
ROUNDING = 1e-6  # of the largest logit


def sees_future(model: nn.Module, logits: Callable[[Ints], Tensor], length: int, characters: int) -> int | None:
    """The first position whose logits [B, T, C] change when tokens after it do; None where there is none. `logits`
    takes token ids [B, T]. Costs one forward pass of four sequences; leaves the model and random state alone."""
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
        told = logits(np.stack(rows)).double()
    for position, row in zip(positions, told[1:], strict=True):
        change = (row - told[0]).abs().amax(-1)  # T
        allowed = TOLERANCE * change[position + 1 :].max() + ROUNDING * told[0].abs().max()
        leaks = (change[: position + 1] > allowed).nonzero()
        if len(leaks):
            return int(leaks[0])
    return None


@contextmanager
def _no_zeros(model: nn.Module) -> Iterator[None]:
    """A matrix that starts at zero lets nothing through yet, a leak neither: such matrices are drawn inside."""
    zeros = [each for each in model.parameters() if each.is_floating_point() and not bool(each.any())]
    generator = torch.Generator().manual_seed(0)
    try:
        for parameter in zeros:
            drawn = torch.randn(parameter.shape, generator=generator) * 0.02
            parameter.copy_(drawn.to(parameter))
        yield
    finally:
        for parameter in zeros:
            parameter.zero_()
