"""Attention that has no site of its own, or none that could be checked, is named with the reason and ends nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workers.trainer.adapt import attach, attention_notices

HEADS, SIZE, WIDTH = 4, 6, 24


class Layer(nn.Module):
    """Self-attention; a subclass says what is done with queries, keys and values, BHTD."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = HEADS
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(WIDTH, HEADS * SIZE) for _ in range(3))
        self.out_proj = nn.Linear(HEADS * SIZE, WIDTH)

    def forward(self, x_BTC: Tensor) -> Tensor:
        q, k, v = (
            each(x_BTC).unflatten(-1, (HEADS, SIZE)).transpose(1, 2) for each in (self.q_proj, self.k_proj, self.v_proj)
        )
        out: Tensor = self.out_proj(self.mixed(q, k, v).transpose(1, 2).flatten(2))
        return out

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


class Talking(Layer):
    """Heads are mixed between the scores and the softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(HEADS, HEADS)

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = self.mix((q @ k.transpose(-2, -1)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return scores.softmax(-1) @ v


class TalkingByConvolution(Talking):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(HEADS, HEADS, 1)  # type: ignore[assignment]

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.mix(q @ k.transpose(-2, -1)).softmax(-1) @ v  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [Talking, TalkingByConvolution])
def test_heads_that_are_mixed_before_the_softmax_are_told(kind: type[Layer]) -> None:
    found = attach(nn.Sequential(Layer(), kind()))
    assert list(found.sites) == ["0"]
    assert "mixed" in found.skipped["1"]


class Twice(Layer):
    """Attention over a second triple of weights in one module."""

    def __init__(self) -> None:
        super().__init__()
        self.far_q, self.far_k, self.far_v = (nn.Linear(SIZE, SIZE) for _ in range(3))

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        near = super().mixed(q, k, v)
        return near + F.scaled_dot_product_attention(self.far_q(v), self.far_k(v), self.far_v(v))


class SameTwice(Layer):
    """One triple of weights, half of the queries at a time."""

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        halves = [super(SameTwice, self).mixed(half, k, v) for half in q.chunk(2, 2)]
        return torch.cat(halves, 2)


def test_a_second_attention_of_a_module_over_other_weights_is_told() -> None:
    found = attach(nn.Sequential(Layer(), Twice(), SameTwice()))
    assert list(found.sites) == ["0", "1", "2"]
    assert list(found.skipped) == ["1 (far_q, far_k, far_v)"]


class EfficientAttention(nn.Module):
    """Called attention, and no softmax of products: queries and keys have a softmax each."""

    def __init__(self) -> None:
        super().__init__()
        self.keys, self.asks, self.values = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x_BTC: Tensor) -> Tensor:
        context = self.keys(x_BTC).softmax(1).transpose(1, 2) @ self.values(x_BTC)
        return self.asks(x_BTC).softmax(-1) @ context


def test_a_module_called_attention_in_which_none_is_seen_is_told() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.mixer = nn.LayerNorm(WIDTH), EfficientAttention()

        def forward(self, x_BTC: Tensor) -> Tensor:
            return self.mixer(self.norm(x_BTC))

    found = attach(nn.Sequential(Layer(), Block()))
    assert list(found.sites) == ["0"]
    assert list(found.skipped) == ["1.mixer"]


class Outlook(nn.Module):
    """Attention weights from a layer, as in VOLO."""

    def __init__(self) -> None:
        super().__init__()
        self.v, self.attn, self.proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 5), nn.Linear(WIDTH, WIDTH)

    def forward(self, x_BTC: Tensor) -> Tensor:
        return self.proj(self.attn(x_BTC).softmax(-1) @ self.v(x_BTC))  # type: ignore[no-any-return]


def test_attention_weights_that_come_from_a_layer_are_told() -> None:
    model = nn.Sequential(Layer(), Outlook())
    found = attach(model, lambda: model(torch.randn(2, 5, WIDTH)))
    assert list(found.sites) == ["0"]
    assert found.skipped == {"1": "its attention weights come from a layer, not from products of queries and keys"}


class BesideAnother(Layer):
    """Attention, and a part of the output that a layer weighs, as in ConvBERT."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Linear(HEADS * SIZE, 5)

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = self.kernel(q.transpose(1, 2).flatten(2)).softmax(-1)
        return super().mixed(q, k, v) + weights[:, None] @ v


def test_a_softmax_of_a_layer_beside_attention_is_told_and_the_attention_stays() -> None:
    model = nn.Sequential(BesideAnother())
    found = attach(model, lambda: model(torch.randn(2, 5, WIDTH)))
    assert list(found.sites) == ["0"]
    assert "0 (another softmax)" in found.skipped


class Unfollowed(Layer):
    """A softmax ran, and what it weighs is no product."""

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return ((q @ k.mT).softmax(-1)[..., None] * v[:, :, None]).sum(3)


class Sigmoid(Layer):
    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.sigmoid(q @ k.mT) @ v


def test_a_softmax_that_ran_and_was_not_followed_is_told_apart_from_none() -> None:
    model = nn.Sequential(Layer(), Unfollowed(), Sigmoid())
    found = attach(model, lambda: model(torch.randn(2, 5, WIDTH)))
    assert "a softmax ran in it" in found.skipped["1"]
    assert "no softmax ran in it" in found.skipped["2"]


class WithoutGradients(nn.Module):
    """Runs for inference alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Layer()

    def forward(self, x_BTC: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise NotImplementedError("no backward pass")
        return self.layer(x_BTC)


def test_a_model_that_runs_only_without_gradients_is_attached_unchecked() -> None:
    model = WithoutGradients()
    found = attach(model, lambda: model(torch.randn(2, 5, WIDTH)))
    assert list(found.sites) == ["layer"]
    assert "no backward pass" in found.unchecked["layer"]
    assert [notice.kind for notice in attention_notices(model)] == ["unchecked_attention"]
