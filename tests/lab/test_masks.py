"""Which keys count as allowed, whatever number a library masks with. The oracle is a boolean mask."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.lab import foreign
from workers.trainer.adapt import attach
from workers.trainer.adapt.watch import AttentionStats, of_call, watched
from workers.trainer.attention.instruments import Map, asymmetry, entropy, logit_max
from workers.trainer.tasks.hf.library import transformers

NUMBERS = [-1e4, -65504.0, -1e9, torch.finfo(torch.float32).min, -math.inf]
CAUSAL = torch.ones(6, 6, dtype=torch.bool).tril()
Add = Callable[[Tensor, Tensor, float], Tensor]


def plain(scores: Tensor, allowed: Tensor, number: float) -> Tensor:
    return scores + torch.zeros(allowed.shape).masked_fill(~allowed, number)


def arithmetic(scores: Tensor, allowed: Tensor, number: float) -> Tensor:
    """As OpenAI's first GPT has it."""
    keep = allowed.float()
    return scores * keep + number * (1 - keep)


def subtracted(scores: Tensor, allowed: Tensor, number: float) -> Tensor:
    return scores - torch.zeros(allowed.shape).masked_fill(~allowed, -number)


def filled(scores: Tensor, allowed: Tensor, number: float) -> Tensor:
    return scores.masked_fill(~allowed, number)


def chosen(scores: Tensor, allowed: Tensor, number: float) -> Tensor:
    return torch.where(allowed, scores, torch.tensor(number))


class Eager(nn.Module):
    """Attention that masks as `add` does and, where `folded`, has batch and heads in one dimension at the softmax."""

    num_heads = 2

    def __init__(self, add: Add, number: float, allowed: Tensor, folded: bool = False) -> None:
        super().__init__()
        self.add, self.number, self.allowed, self.folded = add, number, allowed, folded
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(8, 8, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.split(layer(x)) for layer in (self.q_proj, self.k_proj, self.v_proj))
        scores = self.add(q @ k.transpose(-2, -1), self.allowed, self.number)
        weights = F.softmax(scores.flatten(0, 1) if self.folded else scores, dim=-1)
        return (weights.view_as(scores) @ v).transpose(1, 2).flatten(-2)

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (2, 4)).transpose(1, 2)

    def by_hand(self, x: Tensor, allowed: Tensor) -> tuple[float, float]:
        """Entropy and the largest logit, query by query."""
        scores = self.split(self.q_proj(x)) @ self.split(self.k_proj(x)).transpose(-2, -1)
        shares, logits = [], []
        for batch in scores.detach().double():
            for head in batch:
                for row, keys in zip(head, allowed, strict=True):
                    if keys.any():
                        p = row[keys].softmax(0)
                        shares.append(float(-(p * p.log()).sum() / math.log(max(2, int(keys.sum())))))
                        logits.append(row[keys].max().item())
        return sum(shares) / len(shares), max(logits)


def seen(model: nn.Module, x: Tensor) -> AttentionStats:
    attach(model)
    with torch.no_grad(), watched(model) as found:
        model(x)
    return next(iter(found.values()))


@pytest.mark.parametrize("number", [*NUMBERS, -100.0])
@pytest.mark.parametrize("add", [plain, subtracted, filled, chosen, arithmetic], ids=lambda add: add.__name__)
def test_a_masked_key_is_not_allowed_whatever_number_masks_it(add: Add, number: float) -> None:
    if add is arithmetic and number == -math.inf:
        number = -1e30  # 0 · ∞ would be no mask
    torch.manual_seed(0)
    x = torch.randn(3, 6, 8)
    for folded in (False, True):
        model = Eager(add, number, CAUSAL, folded)
        found, wanted = seen(model, x), model.by_hand(x, CAUSAL)
        assert found.entropy.item() == pytest.approx(wanted[0], abs=1e-5)
        assert found.logit_max.item() == pytest.approx(wanted[1], abs=1e-5)


@pytest.mark.parametrize("number", NUMBERS)
def test_queries_without_a_key_are_left_out_of_the_mean(number: float) -> None:
    torch.manual_seed(0)
    x, allowed = torch.randn(3, 6, 8), CAUSAL.clone()
    allowed[1:3] = False
    model = Eager(plain, number, allowed)
    found, wanted = seen(model, x), model.by_hand(x, allowed)
    assert found.entropy.item() == pytest.approx(wanted[0], abs=1e-5)
    assert found.logit_max.item() == pytest.approx(wanted[1], abs=1e-5)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("bias", ["none", "alibi", "random"])
def test_a_fused_call_with_a_bias_and_a_mask_in_one_tensor_knows_its_keys(number: float, bias: str) -> None:
    """ALiBi falls to −4095 here without a gap: a far key is an allowed key."""
    torch.manual_seed(0)
    count = 4096 if bias == "alibi" else 64
    far = torch.arange(count, dtype=torch.float32)
    added = {"none": torch.zeros(count, count), "alibi": -(far[:, None] - far).abs(), "random": torch.randn(64, 64)}[
        bias
    ]
    allowed = torch.ones(count, count, dtype=torch.bool).tril()
    rows = torch.tensor([0, 1, count // 2, count - 1])
    q, k = torch.randn(1, 1, 4, 4), torch.randn(1, 1, count, 4)
    told = of_call(q, k, k, added[rows].masked_fill(~allowed[rows], number))
    logits = (q @ k.transpose(-2, -1) / 2 + added[rows]).masked_fill(~allowed[rows], -math.inf).double()
    nats = torch.special.entr(logits.softmax(-1)).sum(-1)
    wanted = nats / allowed[rows].sum(-1).clamp(min=2).log()
    assert told.entropy.item() == pytest.approx(wanted.mean().item(), abs=1e-5)
    assert told.logit_max.item() == pytest.approx(logits.max().item(), abs=1e-5)


@pytest.mark.parametrize("mask", [torch.zeros(4, 4, dtype=torch.bool), *(torch.full((4, 4), n) for n in NUMBERS)])
def test_where_everything_is_masked_there_is_no_number(mask: Tensor) -> None:
    q = torch.randn(1, 2, 4, 4)
    told = of_call(q, q, q, mask)
    assert told.entropy.isnan()
    assert told.logit_max.isnan()


def test_a_broken_logit_stays_visible() -> None:
    q = torch.randn(1, 2, 4, 4)
    q[0, 0, 0, 0] = math.nan
    told = of_call(q, q, q, CAUSAL[:4, :4])
    assert told.entropy.isnan()
    assert told.logit_max.isnan()


@pytest.mark.parametrize("kind", ["gpt2", "openai-gpt", "bloom"])
def test_with_equal_weights_every_library_model_counts_the_same_keys(kind: str) -> None:
    """W_q = W_k = 0: every query weighs its allowed keys alike; 7 of 8 have more than one."""
    library = transformers()
    sizes = {"n_embd": 32, "hidden_size": 32, "n_layer": 1, "n_head": 4, "n_positions": 16}
    model = library.AutoModel.from_config(library.AutoConfig.for_model(kind, **sizes, **foreign.TOKENS))
    attach(model)
    for name, weight in model.named_parameters():
        if "c_attn" in name or "query_key_value" in name:
            nn.init.zeros_(weight)
    with torch.no_grad(), watched(model) as found:
        model(input_ids=torch.arange(3, 11).unsqueeze(0))
    assert found
    for one in found.values():
        if kind == "bloom":  # ALiBi weighs them by distance
            assert 0.8 < one.entropy.item() < 0.875
        else:
            assert one.entropy.item() == pytest.approx(0.875, abs=1e-5)


def test_our_own_attention_leaves_queries_without_a_key_out_too() -> None:
    q = torch.randn(2, 3, 4, 5)
    mask = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    mask[0, :, 1] = False  # one query has no key
    logits = (q @ q.transpose(-2, -1)).masked_fill(~mask, -math.inf)
    own = Map(
        logits,
        logits.softmax(-1).masked_fill(~mask.any(-1, keepdim=True), 0.0),
        mask.expand_as(logits).sum(-1).float(),
    )
    rows = [logits[b, 0, t].softmax(0) for b in range(2) for t in range(4) if (b, t) != (0, 1)]
    wanted = sum(torch.special.entr(row).sum().item() / math.log(4) for row in rows) / 7
    assert entropy(own)[0].item() == pytest.approx(wanted, abs=1e-6)
    nothing = Map(torch.full_like(logits, -math.inf), torch.zeros_like(logits), torch.zeros(2, 3, 4))
    assert entropy(nothing).isnan().all()
    assert logit_max(nothing).isnan().all()
    assert asymmetry(nothing).isnan().all()
