"""The bound on what rounding does to the gradient chain: derived right, kept, and passed by any wrong link."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from experiments.spec import Attention as AttentionSpec
from tests.lab.collected import tiny
from workers.trainer.attention import Attention, Tap, by_hand
from workers.trainer.attention.gradient_chain import bound as chain_bound
from workers.trainer.attention.gradient_chain import chain as chain_module
from workers.trainer.attention.gradient_chain.chain import Chained, chain, chain_names
from workers.trainer.attention.gradient_chain.max_error import largest
from workers.trainer.attention.variants import build_attention
from workers.trainer.tasks.registry import build_task

CPU = torch.device("cpu")
TASKS = ("pointer", "roles", "language", "classify", "segment")
Links = dict[str, Tensor]


def _task(name: str, seed: int = 0, **attention: object) -> Chained:
    spec = tiny(name, model={"attention": {"init": "xavier", **attention}})
    return build_task(spec.model_copy(update={"seed": seed}), CPU)  # type: ignore[return-value]


def _ratios(task: Chained) -> list[float]:
    values = chain(task, task.model)
    return [float(value) for name, value in values.items() if name.endswith("/of_bound")]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("task", TASKS)
def test_rounding_stays_within_the_bound_and_uses_a_good_part_of_it(task: str, seed: int) -> None:
    ratios = [ratio for ratio in _ratios(_task(task, seed)) if ratio]  # a site with a single key has no gradient
    assert len(ratios) >= 1
    assert all(1e-3 < ratio <= 1 for ratio in ratios)


def _scaled(factor: float) -> Callable[..., Links]:
    def follow(site: Attention, tap: Tap, d_out: Tensor) -> Links:
        links = TRUE(site, tap, d_out)
        return {**links, "W_q": links["W_q"] * factor}

    return follow


def _without_a_head(site: Attention, tap: Tap, d_out: Tensor) -> Links:
    links = TRUE(site, tap, d_out)
    d_w = links["W_q"].clone()
    d_w[:, : site.d_k] = 0
    return {**links, "W_q": d_w}


def _unscaled(site: Attention, tap: Tap, d_out: Tensor) -> Links:
    return TRUE(site, replace(tap, scale=1.0), d_out)


TRUE = chain_module.follow
WRONG = {
    "no 1/√d": _unscaled,
    "sign": _scaled(-1.0),
    "a head is missing": _without_a_head,
    "the end off by 0.1 %": _scaled(1.001),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_chain_passes_the_bound(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    built = _task("segment")
    monkeypatch.setattr(chain_module, "follow", WRONG[name])
    assert largest(chain(built, built.model), "fp32_of_bound") > 1


@pytest.mark.parametrize(
    ("link", "call"), [("softmax", 0), ("through_softmax", 0), *(("product", call) for call in range(4))]
)
def test_one_link_that_is_off_by_a_thousandth_passes_the_bound(
    monkeypatch: pytest.MonkeyPatch, link: str, call: int
) -> None:
    """`product` makes Q·Kᵀ, dO·W_oᵀ, dA and dQ, in this order, at each site."""
    built, right = _task("segment"), getattr(by_hand, link)
    calls = iter(range(10**6))

    def off(*arguments: Tensor) -> Tensor:
        result: Tensor = right(*arguments)
        return result * 1.001 if link != "product" or next(calls) % 5 == call else result

    monkeypatch.setattr(chain_module, link, off)
    assert largest(chain(built, built.model), "fp32_of_bound") > 1


@pytest.mark.parametrize("change", ["logit", "d_weights", "weight", "d_mix"])
def test_what_a_rounding_does_to_dq_is_the_derivative_that_autograd_finds(change: str) -> None:
    """The coefficients of the bound, squared and summed, against Jacobians of dQ."""
    torch.manual_seed(1)
    queries, keys, wide, tall = 3, 5, 4, 2  # T, S, D, E
    k, v = torch.randn(keys, wide).double(), torch.randn(keys, tall).double()
    start = {
        "logit": torch.randn(queries, keys).double(),
        "d_mix": torch.randn(queries, tall).double(),
        "d_weights": torch.zeros(queries, keys).double(),
        "weight": torch.ones(queries, keys).double(),
    }
    rounds = torch.rand(*start[change].shape).double()

    def d_q(value: Tensor) -> Tensor:
        at = {**start, change: value}
        weights = at["logit"].softmax(-1) * at["weight"]
        d_weights = at["d_mix"] @ v.T + at["d_weights"]
        return (weights * (d_weights - (weights * d_weights).sum(-1, keepdim=True))) @ k

    jacobian = torch.autograd.functional.jacobian(d_q, start[change])  # T, D, T, changed
    expected = (jacobian.square() * rounds).sum((-1, -2))
    weights, d_weights = start["logit"].softmax(-1), start["d_mix"] @ v.T
    d_logits = weights * (d_weights - (weights * d_weights).sum(-1, keepdim=True))
    seen, moved = weights @ k, d_logits @ k
    coefficients = {
        "logit": (d_logits, -d_logits, -weights),
        "d_weights": (weights, -weights, None),
        "weight": (d_logits, -weights * d_weights, None),
    }
    if change == "d_mix":
        one = [each[None, None] for each in (weights, k, v, seen, rounds)]
        found = chain_bound.through_values(*one)[0, 0]
    else:
        found = chain_bound.spread(coefficients[change], k, seen, moved, rounds)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_where_the_chain_is_another_there_is_no_bound_and_no_series_of_one() -> None:
    for attention in ({"variant": "tied_qk"}, {"qk_norm": True}):
        assert not [name for name in chain_names(_task("roles", **attention)) if name.endswith("/of_bound")]
    site = build_attention(8, 2, AttentionSpec(), "self")
    assert chain_bound.is_bounded(site)

    class Own(type(site)):  # type: ignore[misc]
        def gradient_of_W_q(self, *given: Tensor) -> Tensor:
            return 2 * super().gradient_of_W_q(*given)

    assert not chain_bound.is_bounded(Own(8, 2, AttentionSpec()))


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 200])
def test_the_product_adds_every_term_once(length: int) -> None:
    torch.manual_seed(length)
    a, b = torch.randn(2, 3, length).double(), torch.randn(2, length, 4).double()
    torch.testing.assert_close(by_hand.product(a, b), a @ b, rtol=1e-12, atol=1e-12)
