"""The oracles of `make models` refute what is wrong: claims with Q and K swapped, heads rotated, blocks permuted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.lab.models.changes import Claim, Claims, wrong_by_changes
from tests.lab.models.equal_tokens import Applies, wrong_by_equal_tokens
from tests.lab.models.seeing import seeing

HEADS, SIZE, WIDTH, TOKENS = 4, 6, 20, 7


class Layer(nn.Module):
    """Self-attention of one kind: causal or not, with keys' heads shared or not, turned by place or not."""

    def __init__(self, how: str, kv_heads: int = HEADS) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how, self.kv_heads = how, kv_heads
        self.q, self.k, self.v = (nn.Linear(WIDTH, heads * SIZE) for heads in (HEADS, kv_heads, kv_heads))
        self.o = nn.Linear(HEADS * SIZE, WIDTH)
        if how == "sinks":
            self.sinks = nn.Parameter(torch.randn(HEADS, 1, 1))

    def forward(self, x_BTC: Tensor) -> Tensor:
        q, k, v = (each(x_BTC).unflatten(-1, (-1, SIZE)).transpose(1, 2) for each in (self.q, self.k, self.v))
        k, v = (each.repeat_interleave(HEADS // self.kv_heads, 1) for each in (k, v))
        if self.how == "turned":
            turn = torch.arange(x_BTC.shape[1])[:, None] * torch.tensor([1.0, 0.3, 0.1])
            q, k = (_turned(each, turn) for each in (q, k))
        if self.how == "fused":
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            logits = q @ k.transpose(-2, -1) * SIZE**-0.5
            if self.how == "causal":
                logits = logits + torch.full(logits.shape[-2:], -1e9).triu(1)
            if self.how == "sinks":
                logits = torch.cat([logits, self.sinks.expand(len(x_BTC), -1, x_BTC.shape[1], 1)], -1)
                logits = logits - logits.amax(-1, keepdim=True)
            mixed = logits.softmax(-1)[..., : x_BTC.shape[1]] @ v
        out: Tensor = self.o(mixed.transpose(1, 2).flatten(2))
        return out


def _turned(x: Tensor, angle: Tensor) -> Tensor:
    one, other = x.chunk(2, -1)
    return torch.cat([one * angle.cos() - other * angle.sin(), one * angle.sin() + other * angle.cos()], -1)


def _claims(layer: Layer) -> Claims:
    places = {role: torch.arange(each.weight.numel()).view(-1, SIZE * WIDTH) for role, each in _layers(layer).items()}
    return {role: Claim(each.weight, list(places[role])) for role, each in _layers(layer).items()}


def _layers(layer: Layer) -> dict[str, nn.Linear]:
    return {"W_q": layer.q, "W_k": layer.k, "W_v": layer.v}


def _rotated(claim: Claim) -> Claim:
    return Claim(claim.parameter, [*claim.heads[1:], claim.heads[0]])


MUTATIONS: dict[str, Callable[[Claims], Claims]] = {
    "Q and K swapped": lambda claims: {**claims, "W_q": claims["W_k"], "W_k": claims["W_q"]},
    "K and V swapped": lambda claims: {**claims, "W_v": claims["W_k"], "W_k": claims["W_v"]},
    "Q and V swapped": lambda claims: {**claims, "W_v": claims["W_q"], "W_q": claims["W_v"]},
    "blocks in turn": lambda claims: {"W_q": claims["W_k"], "W_k": claims["W_v"], "W_v": claims["W_q"]},
    "heads of Q rotated": lambda claims: {**claims, "W_q": _rotated(claims["W_q"])},
    "heads of K rotated": lambda claims: {**claims, "W_k": _rotated(claims["W_k"])},
    "heads of V rotated": lambda claims: {**claims, "W_v": _rotated(claims["W_v"])},
}
KINDS = {"plain": HEADS, "causal": HEADS, "fused": 2, "turned": HEADS, "sinks": 2}
STILL = {"heads of Q rotated", "heads of K rotated", "heads of V rotated"}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_right_is_not_refuted(kind: str) -> None:
    model, x = Layer(kind, KINDS[kind]), torch.randn(2, TOKENS, WIDTH)
    assert wrong_by_changes(model, lambda: model(x), "", _claims(model)) == ""
    if kind == "sinks":
        with pytest.raises(Applies, match="sum to 1"):
            wrong_by_equal_tokens(model, lambda: model(x), "", _claims(model))
    else:
        assert wrong_by_equal_tokens(model, lambda: model(x), "", _claims(model)) == ""


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_wrong_is_refuted_by_changes(kind: str, mutation: str) -> None:
    model, x = Layer(kind, KINDS[kind]), torch.randn(2, TOKENS, WIDTH)
    claims = MUTATIONS[mutation](_claims(model))
    assert wrong_by_changes(model, lambda: model(x), "", claims)
    whole = wrong_by_changes(model, lambda: model(x), "", claims, heads_apart=False)
    assert bool(whole) == (mutation not in STILL)


@pytest.mark.parametrize("mutation", ["K and V swapped", "Q and V swapped", "blocks in turn"])
def test_values_under_another_name_are_refuted_by_equal_tokens(mutation: str) -> None:
    model, x = Layer("plain"), torch.randn(2, TOKENS, WIDTH)
    assert wrong_by_equal_tokens(model, lambda: model(x), "", MUTATIONS[mutation](_claims(model)))


def test_all_ways_to_compute_attention_are_seen_and_no_other_softmax() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain, self.fused = Layer("plain"), Layer("fused")
            self.torchs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
            self.router = nn.Linear(WIDTH, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.fused(self.plain(x))
            x = self.torchs(x, x, x, need_weights=False)[0]
            return x * self.router(x).softmax(-1)[..., :1]

    model = Several().eval()
    with torch.no_grad(), seeing(model) as seen:
        model(torch.randn(2, TOKENS, WIDTH))
    assert [each.modules[-1] for each in seen.softmaxes if each.is_attention] == ["plain", "fused", "torchs"]
