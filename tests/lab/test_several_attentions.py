"""A module that calls attention more than once has its whole matrices under W_q, W_k and W_v, or is told.

The oracle is the gradient that plain autograd leaves in the module's own parameters, sliced by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.lab import foreign
from workers.trainer.adapt import Attached, attach, attention_notices
from workers.trainer.adapt.watch import watched

HEADS, SIZE, WIDTH = 4, 6, 24
OWN = {"W_q": "q_proj", "W_k": "k_proj", "W_v": "v_proj"}
sdpa = F.scaled_dot_product_attention


class Layer(nn.Module):
    """Self-attention with the usual names; a subclass says how it is computed, BHTD."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = HEADS
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x_BTC: Tensor) -> Tensor:
        q, k, v = (each(x_BTC).unflatten(-1, (HEADS, -1)).transpose(1, 2) for each in self.layers)
        return self.out_proj(self.mixed(q, k, v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    @property
    def layers(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        return self.q_proj, self.k_proj, self.v_proj

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return sdpa(q, k, v)


class LocalAndGlobal(Layer):
    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.cat([sdpa(q[:, :2], k[:, :2], v[:, :2], is_causal=True), sdpa(q[:, 2:], k[:, 2:], v[:, 2:])], 1)


class Loop(Layer):
    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.cat([sdpa(q[:, h : h + 1], k[:, h : h + 1], v[:, h : h + 1]) for h in range(HEADS)], 1)


class LoopWithoutAxis(Layer):
    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.stack([sdpa(q[:, h], k[:, h], v[:, h]) for h in range(HEADS)], 1)


class LoopBackwards(Layer):
    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        found = {h: sdpa(q[:, h], k[:, h], v[:, h]) for h in reversed(range(HEADS))}
        return torch.stack([found[h] for h in range(HEADS)], 1)


class Differential(Layer):
    """Two softmaxes over halves of each head's queries and keys."""

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        one, other = ((a @ b.mT).softmax(-1) for a, b in zip(q.chunk(2, -1), k.chunk(2, -1), strict=True))
        return (one - 0.5 * other) @ v


class DifferentialOfMixes(Layer):
    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        one, other = (sdpa(a, b, v) for a, b in zip(q.chunk(2, -1), k.chunk(2, -1), strict=True))
        return one - 0.5 * other


class SumOfProducts(Layer):
    """Scores from two parts of each head, as where only one part is rotated."""

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        one, other = (a @ b.mT for a, b in zip(q.chunk(2, -1), k.chunk(2, -1), strict=True))
        return (one + other).softmax(-1) @ v


class ValuesInHalves(Layer):
    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = (q @ k.mT).softmax(-1)
        return torch.cat([weights @ half for half in v.chunk(2, -1)], -1)


class KeysFirst(Layer):
    """Scores of keys by queries, turned before the softmax."""

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (k @ q.mT).mT.softmax(-1) @ v


class OverTheRows(Layer):
    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (k @ q.mT).softmax(-2).mT @ v


class OfLogs(Layer):
    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.log_softmax(q @ k.mT, -1).exp() @ v


def gradients(model: nn.Module, x: Tensor) -> Mapping[str, Tensor]:
    model.zero_grad()
    out = model(x)
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    return {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


def assert_whole(found: Attached, model: nn.Module, site: str, names: Mapping[str, str], heads: int = HEADS) -> None:
    """Each head's entries are the rows of the layer that lie in the order of heads."""
    grads = gradients(model, torch.randn(2, 5, WIDTH))
    prefix = f"{site}." if dict(model.named_modules()).get(site) else ""
    for role, name in names.items():
        part, wanted = found.sites[site].parts[role], grads[f"{prefix}{name}.weight"]
        assert part.heads == heads, role
        dim = 1 if role == "W_o" else 0
        for head, own in enumerate(wanted.chunk(heads, dim)):
            torch.testing.assert_close(part.head(part.grad, head).norm(), own.norm(), rtol=1e-6, atol=0)


KINDS = [LocalAndGlobal, Loop, LoopWithoutAxis, LoopBackwards, Differential, DifferentialOfMixes, SumOfProducts]
KINDS += [ValuesInHalves, KeysFirst, OverTheRows, OfLogs]


@pytest.mark.parametrize("kind", KINDS)
def test_calls_over_parts_of_the_same_matrices_are_read_together(kind: type[Layer]) -> None:
    torch.manual_seed(0)
    model = kind()
    found = attach(model, lambda: model(torch.randn(2, 5, WIDTH)))
    assert found.skipped == {}
    assert_whole(found, model, "attention", {**OWN, "W_o": "out_proj"})


@pytest.mark.parametrize("kind", KINDS)
def test_without_names_the_same_is_measured(kind: type[Layer]) -> None:
    """Layers whose names say nothing."""

    class Unnamed(kind):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = self.q_proj, self.k_proj, self.v_proj
            del self.q_proj, self.k_proj, self.v_proj

        @property
        def layers(self) -> tuple[nn.Module, nn.Module, nn.Module]:
            return self.one, self.two, self.three

    torch.manual_seed(0)
    model = Unnamed()
    found = attach(model, lambda: model(torch.randn(2, 5, WIDTH)))
    grads = gradients(model, torch.randn(2, 5, WIDTH))
    for role, name in zip(OWN, ("one", "two", "three"), strict=True):
        part = found.sites["attention"].parts[role]
        assert part.heads == HEADS
        torch.testing.assert_close(part.grad.norm(), grads[f"{name}.weight"].norm(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", [Layer, Loop, LoopWithoutAxis, LoopBackwards, OfLogs])
def test_entropy_and_the_largest_logit_are_of_all_calls_in_a_run(kind: type[Layer]) -> None:
    """The oracle is the map of all heads by hand."""
    torch.manual_seed(0)
    model, x = kind(), torch.randn(2, 5, WIDTH)
    attach(model, lambda: model(x))
    with torch.no_grad(), watched(model) as seen:
        model(torch.randn(2, 5, WIDTH))  # an earlier run of the site does not count
        model(x)
        q, k = (each(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for each in (model.q_proj, model.k_proj))
        logits = q @ k.mT * (1 if kind is OfLogs else SIZE**-0.5)
        entropy = -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean() / math.log(5)
    torch.testing.assert_close(seen["attention"].entropy, entropy)
    torch.testing.assert_close(seen["attention"].logit_max, logits.max())


class Second(Layer):
    """Another attention over weights of its own, before the one that the names say."""

    def __init__(self) -> None:
        super().__init__()
        self.q2, self.k2, self.v2 = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x_BTC: Tensor) -> Tensor:
        q, k, v = (each(x_BTC).unflatten(-1, (HEADS, -1)).transpose(1, 2) for each in (self.q2, self.k2, self.v2))
        return super().forward(x_BTC + sdpa(q, k, v).transpose(1, 2).flatten(2))


def test_the_attention_that_names_say_stays_and_another_in_the_module_is_told() -> None:
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("attn", Second())
    found = attach(model, lambda: model(torch.randn(2, 5, WIDTH)))
    assert list(found.skipped) == ["attn (q2, k2, v2)"]
    assert_whole(found, model, "attn", {**OWN, "W_o": "out_proj"})
    (notice,) = attention_notices(model)
    assert "q2, k2, v2" in notice.items[0]


class OwnForEachHead(nn.Module):
    """Each head has layers of its own; no name says which is which."""

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.ModuleList(nn.Linear(WIDTH, 3 * SIZE) for _ in range(HEADS))

    def forward(self, x_BTC: Tensor) -> Tensor:
        return torch.cat([sdpa(*layer(x_BTC)[:, None].chunk(3, -1)).squeeze(1) for layer in self.each], -1)


def test_calls_over_different_weights_are_told_where_no_name_tells_one_of_them() -> None:
    model = nn.Sequential(Layer(), OwnForEachHead())
    found = attach(model, lambda: model(torch.randn(2, 5, WIDTH)))
    assert list(found.sites) == ["0"]
    assert "4 attentions over different weights" in found.skipped["1"]
    assert "each.3" in found.skipped["1"]


@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_differential_llama_has_whole_values(kernel: str, kv_heads: int) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
    model, _ = foreign.hugging_face("diffllama", **sizes, num_key_value_heads=kv_heads, **foreign.TOKENS)
    model.set_attn_implementation(kernel)
    found = attach(model.eval())
    (site,) = found.sites.values()
    out = model(input_ids=torch.tensor([[5, 7, 6], [3, 4, 9]])).last_hidden_state
    (out * torch.randn_like(out)).sum().backward()
    for role, name in OWN.items():
        weight = site.module.get_submodule(name).weight
        torch.testing.assert_close(site.parts[role].grad, weight.grad, rtol=0, atol=0)
    assert site.kv_heads == kv_heads


def test_the_queries_between_words_and_entities_of_luke_are_told() -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    sizes |= {"entity_vocab_size": 8, "entity_emb_size": 32}
    model, _ = foreign.hugging_face("luke", **sizes, use_entity_aware_attention=True, **foreign.TOKENS)
    ids = torch.randint(3, 9, (2, 5))
    entities = {"entity_ids": torch.ones(2, 3).long(), "entity_position_ids": torch.zeros(2, 3, 4).long()}
    found = attach(model.eval(), lambda: model(input_ids=ids, **entities))
    assert len(found.sites) == 2
    told = " ".join(found.skipped)
    assert all(f"0.attention.self ({name}_query)" in told for name in ("w2e", "e2w", "e2e"))
