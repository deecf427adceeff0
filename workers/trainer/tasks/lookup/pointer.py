"""The task `pointer`: every token names the payload of the token that it refers to."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from experiments.spec import PointerSpec
from workers.trainer.attention.sites import matrices, sites, trained
from workers.trainer.data.draws import Split, below, draws
from workers.trainer.data.tokens import pointer
from workers.trainer.data.tokens.lookups import Ints, Lookups
from workers.trainer.tasks.lookup.swaps import ROLES, Pairs
from workers.trainer.tasks.lookup.task import Batch, LookupTask, cross_entropy


class PointerTask(LookupTask):
    """Only attention can solve it: a token's own fields and position do not tell its class."""

    finals = (
        "accuracy",
        "mode_guess",
        "untrained/accuracy",
        *(f"swap/{role}" for role in ROLES),
        *(f"untrained/swap/{role}" for role in ROLES),
        "gold_mass",
        "untrained/gold_mass",
        "sgd_delta",
    )
    spec: PointerSpec

    def __init__(self, spec: PointerSpec, device: torch.device) -> None:
        data = spec.data
        super().__init__(spec, device, sizes=pointer.sizes(data), length=data.tokens, classes=data.payloads)

    def lookups(self, split: Split, indices: Ints) -> Lookups:
        return pointer.batch(self.spec.data, split, indices)

    def labels(self, fields_TF: Ints) -> list[str]:
        return [f"{name}?{target}={payload}" for name, target, payload in fields_TF.tolist()]

    def final(self) -> dict[str, float]:
        test, untrained = self.test(), self.untrained().to(self.device).eval()
        pairs = any_two(test)
        swaps = {f"swap/{role}": self.swap(self.model, test, pairs, role) for role in ROLES}
        swaps |= {f"untrained/swap/{role}": self.swap(untrained, test, pairs, role) for role in ROLES}
        scores = self.scores(self.model, test) | self.scores(untrained, test, "untrained/")
        return (
            swaps
            | scores
            | {
                "mode_guess": pointer.mode_guess(test, self.spec.data.payloads),
                "sgd_delta": self._sgd_delta(Batch.of(test.rows(slice(0, self.spec.train.batch_size)), self.device)),
            }
        )

    @torch.enable_grad()
    def _sgd_delta(self, drawn: Batch) -> float:
        """See `sgd_delta`; on a copy, so that the trained model stays unchanged."""
        model = self.untrained().to(self.device)
        model.load_state_dict(self.model.state_dict())
        cross_entropy(model(drawn.fields, drawn.mask), drawn).backward()
        moving = {id(parameter) for parameter in trained(model).values()}
        by_site = (matrices(site) for site in sites(model).values())
        qkv = [matrix for by_name in by_site for name, matrix in by_name.items() if name != "W_o"]
        return sgd_delta([matrix for matrix in qkv if id(matrix) in moving])


def any_two(lookups: Lookups) -> Pairs:
    """Two different positions in each sequence."""
    count = lookups.fields.shape[1]
    words = draws("test", np.arange(len(lookups.fields)), 2)
    first = below(words[:, 0], count)
    return Pairs(first, (first + 1 + below(words[:, 1], count - 1)) % count)


@torch.no_grad()
def sgd_delta(weights: list[nn.Parameter]) -> float:
    """The largest ‖ΔW + lr·G‖ ÷ ‖lr·G‖ over the weights for one step of plain SGD on their gradients; NaN if no
    weight has one. The rate is the smallest at which every weight moves by its own norm: a smaller
    step would drown in the rounding of W."""
    pairs = [(weight, weight.grad.clone()) for weight in weights if weight.grad is not None and weight.grad.any()]
    if not pairs:
        return math.nan
    lr = max(float(weight.norm() / gradient.norm()) for weight, gradient in pairs) or 1.0
    before = [weight.clone() for weight, _ in pairs]
    torch.optim.SGD([weight for weight, _ in pairs], lr=lr).step()
    return max(
        float((weight - old + lr * gradient).norm() / (lr * gradient).norm())
        for old, (weight, gradient) in zip(before, pairs, strict=True)
    )
