"""What stands under W_q is W_q: the layout that a model computes with, whatever its layers are called.

The oracles share nothing with what they check: the order of a fused weight is spelled out by index arithmetic here, and
with all tokens equal the output depends on V alone, so that gradients of W_q and W_k have to vanish."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.lab import foreign
from workers.trainer.adapt import attach, attention_notices

HEADS, SIZE, WIDTH = 4, 6, 24
Place = Callable[[int, int, int], int]  # of (role 0..2, head, column) the row of the fused weight
ORDERS: dict[str, Place] = {
    "(qkv h d)": lambda role, head, at: (role * HEADS + head) * SIZE + at,
    "(h qkv d)": lambda role, head, at: (head * 3 + role) * SIZE + at,
    "(h d qkv)": lambda role, head, at: (head * SIZE + at) * 3 + role,
    "(d h qkv)": lambda role, head, at: (at * HEADS + head) * 3 + role,
    "(qkv d h)": lambda role, head, at: (role * SIZE + at) * HEADS + head,
    "(d qkv h)": lambda role, head, at: (at * 3 + role) * HEADS + head,
    "(vqk h d)": lambda role, head, at: ((1, 2, 0)[role] * HEADS + head) * SIZE + at,
    "heads backwards": lambda role, head, at: (role * HEADS + HEADS - 1 - head) * SIZE + at,
}


class Fused(nn.Module):
    """Self-attention over one fused weight, laid out by `place`; `fused` says whether torch's kernel computes it."""

    def __init__(self, place: Place, *, fused: bool = True, told_heads: int = HEADS) -> None:
        super().__init__()
        self.num_heads, self.fused = told_heads, fused
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * HEADS * SIZE), nn.Linear(HEADS * SIZE, WIDTH)
        rows = [[[place(role, head, at) for at in range(SIZE)] for head in range(HEADS)] for role in range(3)]
        self.rows = torch.tensor(rows)  # [role, head, column]

    def forward(self, x_BTC: Tensor) -> Tensor:
        q, k, v = (self.qkv(x_BTC)[..., self.rows[role]].transpose(1, 2) for role in range(3))  # BHTD
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q @ k.transpose(-2, -1) * SIZE**-0.5).softmax(-1) @ v
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("order", ORDERS)
def test_a_fused_weight_is_read_in_the_order_that_the_module_computes_with(order: str, fused: bool) -> None:
    torch.manual_seed(0)
    model = Fused(ORDERS[order], fused=fused)
    (site,) = attach(model).sites.values()
    model(torch.randn(2, 5, WIDTH)).square().sum().backward()
    grad = model.qkv.weight.grad
    assert grad is not None
    for role, name in enumerate(("W_q", "W_k", "W_v")):
        part = site.parts[name]
        heads = [part.head(part.grad, head) for head in range(HEADS)]
        wanted = [grad[model.rows[role, head]] for head in range(HEADS)]
        for mine, theirs in zip(heads, wanted, strict=True):
            torch.testing.assert_close(mine.norm(), theirs.norm(), rtol=1e-6, atol=0)


def test_a_module_that_says_a_wrong_number_of_heads_is_read_with_the_heads_it_has() -> None:
    (site,) = attach(Fused(ORDERS["(qkv h d)"], told_heads=2)).sites.values()
    assert (site.heads, site.kv_heads) == (HEADS, HEADS)


class Named(nn.Module):
    """Separate layers under the names that are given for queries, keys and values."""

    def __init__(self, query: str, key: str, value: str, *, uses: str = "sdpa") -> None:
        super().__init__()
        self.heads, self.names, self.uses = HEADS, (query, key, value), uses
        for name in self.names:
            setattr(self, name, nn.Linear(WIDTH, HEADS * SIZE, bias=False))
        self.out_proj = nn.Linear(HEADS * SIZE, WIDTH)

    def forward(self, x_BTC: Tensor) -> Tensor:
        q, k, v = (getattr(self, name)(x_BTC).unflatten(-1, (HEADS, SIZE)).transpose(1, 2) for name in self.names)
        if self.uses == "gate":
            mixed = torch.sigmoid(q) * k + v
        elif self.uses == "einsum":
            mixed = torch.einsum("bhts,bhsd->bhtd", torch.einsum("bhtd,bhsd->bhts", q, k).softmax(-1), v)
        elif self.uses == "einsum of other letters":
            mixed = torch.einsum("bsij,bsjk->bsik", torch.einsum("bsij,bsjk->bsik", q, k.mT).softmax(-1), v)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


@pytest.mark.parametrize("uses", ["sdpa", "einsum", "einsum of other letters"])
@pytest.mark.parametrize(
    "names",
    [
        ("q_proj", "k_proj", "v_proj"),
        ("W_q", "W_k", "W_v"),
        ("linear_q", "linear_k", "linear_v"),
        ("wanted", "offered", "content"),
        ("k_proj", "q_proj", "v_proj"),  # names that lie
        ("v_proj", "q_proj", "k_proj"),
    ],
)
def test_the_layer_that_makes_the_queries_is_w_q_whatever_it_is_called(names: tuple[str, str, str], uses: str) -> None:
    model = Named(*names, uses=uses)
    (site,) = attach(model).sites.values()
    for role, name in zip(("W_q", "W_k", "W_v"), names, strict=True):
        assert site.parts[role].parameter is getattr(model, name).weight, role
        assert site.parts[role].heads == HEADS, role


class Ordinary(nn.Module):
    """What people write: no head axis, heads first, or any letter for heads."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.num_heads = how, 1 if how.startswith("one head") else HEADS
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.out_proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x_BTC: Tensor) -> Tensor:
        q, k, v = self.q_proj(x_BTC), self.k_proj(x_BTC), self.v_proj(x_BTC)
        if self.how == "one head, fused":
            return self.out_proj(F.scaled_dot_product_attention(q, k, v))  # type: ignore[no-any-return]
        if self.how == "one head, by hand":
            return self.out_proj((q @ k.transpose(-2, -1)).softmax(-1) @ v)  # type: ignore[no-any-return]
        q, k, v = (each.unflatten(-1, (HEADS, SIZE)).transpose(1, 2) for each in (q, k, v))  # BHTD
        if self.how == "(h b t d)":
            q, k, v = (each.transpose(0, 1) for each in (q, k, v))
            mixed = ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(0, 1)
        elif self.how == "(h b) t d":
            q, k, v = (each.transpose(0, 1).flatten(0, 1) for each in (q, k, v))
            mixed = torch.bmm(torch.bmm(q, k.mT).softmax(-1), v).unflatten(0, (HEADS, -1)).transpose(0, 1)
        else:
            weights = torch.einsum("bmtd,bmsd->bmts", q, k).softmax(-1)
            mixed = torch.einsum("bmts,bmsd->bmtd", weights, v)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "how", ["one head, fused", "one head, by hand", "(h b t d)", "(h b) t d", "m for heads in einsum"]
)
def test_ordinary_modules_have_a_site(how: str) -> None:
    torch.manual_seed(0)
    model = Ordinary(how)
    found = attach(model, lambda: model(torch.randn(3, 5, WIDTH)))
    assert (found.skipped, found.unchecked) == ({}, {})
    (site,) = found.sites.values()
    model(torch.randn(3, 5, WIDTH)).square().sum().backward()
    for role, layer in (("W_q", model.q_proj), ("W_k", model.k_proj), ("W_v", model.v_proj), ("W_o", model.out_proj)):
        part, dim = site.parts[role], 1 if role == "W_o" else 0
        wanted = layer.weight.grad.chunk(model.num_heads, dim)  # type: ignore[union-attr]
        assert part.heads == model.num_heads
        for head, own in enumerate(wanted):
            torch.testing.assert_close(part.head(part.grad, head), own, rtol=0, atol=0)


class SharedKeys(nn.Module):
    """Heads of queries that share keys, on an axis that keys do not have, or among the tokens."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.num_heads, self.groups = how, HEADS, 2 if how == "(g r)" else 1
        self.q_proj, self.out_proj = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))
        self.k_proj, self.v_proj = (nn.Linear(WIDTH, self.groups * SIZE, bias=False) for _ in range(2))

    def forward(self, x_BTC: Tensor) -> Tensor:
        q, k, v = (each(x_BTC) for each in (self.q_proj, self.k_proj, self.v_proj))
        if self.how == "(g r)":
            q = q.unflatten(-1, (2, 2, SIZE))  # BTGRD
            k, v = (each.unflatten(-1, (2, SIZE)) for each in (k, v))
            weights = torch.einsum("btgrd,bsgd->bgrts", q, k).softmax(-1)
            return self.out_proj(torch.einsum("bgrts,bsgd->btgrd", weights, v).flatten(2))  # type: ignore[no-any-return]
        q = q.unflatten(-1, (HEADS, SIZE))
        if self.how == "(t h)":
            mixed = (q.flatten(1, 2) @ k.mT).softmax(-1) @ v
            return self.out_proj(mixed.reshape(x_BTC.shape))  # type: ignore[no-any-return]
        mixed = F.scaled_dot_product_attention(q.transpose(1, 2).flatten(1, 2), k, v)
        return self.out_proj(mixed.unflatten(1, (HEADS, -1)).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@pytest.mark.parametrize("tokens", [5, 80])
@pytest.mark.parametrize("how", ["(g r)", "(t h)", "(h t)"])
def test_heads_of_queries_that_share_keys_are_told_apart(how: str, tokens: int) -> None:
    torch.manual_seed(0)
    model, x = SharedKeys(how), torch.randn(2, tokens, WIDTH)
    found = attach(model, lambda: model(x))
    assert (found.skipped, found.unchecked) == ({}, {})
    (site,) = found.sites.values()
    model(x).square().sum().backward()
    for role, layer, heads in (
        ("W_q", model.q_proj, HEADS),
        ("W_k", model.k_proj, model.groups),
        ("W_v", model.v_proj, model.groups),
        ("W_o", model.out_proj, HEADS),
    ):
        part, wanted = site.parts[role], layer.weight.grad.chunk(heads, 1 if role == "W_o" else 0)  # type: ignore[union-attr]
        assert part.heads == heads, role
        for head, own in enumerate(wanted):
            torch.testing.assert_close(part.head(part.grad, head), own, rtol=0, atol=0)


class BetweenChannels(Ordinary):
    """Channels ask channels, summed over tokens (XCiT)."""

    def forward(self, x_BTC: Tensor) -> Tensor:
        layers = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (each(x_BTC).unflatten(-1, (HEADS, SIZE)).permute(0, 2, 3, 1) for each in layers)  # BHDT
        mixed = (q @ k.mT).softmax(-1) @ v
        return self.out_proj(mixed.permute(0, 3, 1, 2).flatten(2))  # type: ignore[no-any-return]


def test_channels_that_ask_channels_are_no_heads() -> None:
    model = BetweenChannels("between channels")
    found = attach(model, lambda: model(torch.randn(2, 5, WIDTH)))
    (site,) = found.sites.values()
    assert {role: part.heads for role, part in site.parts.items()} == dict.fromkeys(("W_q", "W_k", "W_v", "W_o"), HEADS)


def test_what_is_named_like_attention_and_computes_none_is_left_out_by_name() -> None:
    model = nn.Sequential(Named("q_proj", "k_proj", "v_proj"), Named("q_proj", "k_proj", "v_proj", uses="gate"))
    found = attach(model)
    assert list(found.sites) == ["0"]
    assert "computes no attention" in found.skipped["1"]
    (notice,) = attention_notices(model)
    assert notice.kind == "unseen_attention"
    assert notice.items == [f"1: {found.skipped['1']}"]


class Pooling(nn.Module):
    """Attention whose queries are learned and come from no input and no projection."""

    def __init__(self) -> None:
        super().__init__()
        self.latent, self.kv = nn.Parameter(torch.randn(1, HEADS, 2, SIZE)), nn.Linear(WIDTH, 2 * HEADS * SIZE)

    def forward(self, x_BTC: Tensor) -> Tensor:
        k, v = self.kv(x_BTC).unflatten(-1, (2, HEADS, SIZE)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(self.latent.expand(len(x_BTC), -1, -1, -1), k, v).sum()


def test_attention_without_three_weights_is_said_and_not_dropped() -> None:
    model = nn.ModuleDict({"body": Named("W_q", "W_k", "W_v"), "pool": Pooling()})
    found = attach(model, lambda: model["pool"](model["body"](torch.randn(2, 5, WIDTH))))
    assert list(found.sites) == ["body"]
    assert set(found.skipped) == {"pool"}


class Bare(nn.Module):
    def forward(self, x_BTC: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x_BTC, x_BTC, x_BTC)


def test_attention_that_no_weight_takes_part_in_is_said() -> None:
    model = nn.Sequential(Named("W_q", "W_k", "W_v"), Bare())
    found = attach(model)
    assert list(found.sites) == ["0"]
    assert len(found.skipped) == 1


SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
GPT = {"n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 16}
LATENT = {"kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8, "n_routed_experts": 4}
LATENT |= {"num_experts_per_tok": 2, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "q_lora_rank": 16}
KINDS: dict[str, dict[str, Any]] = {
    "codegen": GPT | {"n_ctx": 16, "rotary_dim": 4},
    "gpt_bigcode": GPT | {"multi_query": False},
    "gpt2": GPT,
    "deberta": SIZES,
    "deberta-v2": SIZES,
    "llama": SIZES | {"num_key_value_heads": 2},
    "phi3": SIZES,
    "olmo2": SIZES,
    "bloom": {"hidden_size": 32, "n_layer": 1, "n_head": 4},
    "falcon": SIZES | {"new_decoder_architecture": True, "num_kv_heads": 2},
    "xlnet": {"d_model": 32, "n_layer": 1, "n_head": 4, "d_inner": 64},
    "deepseek_v3": SIZES | LATENT | {"num_key_value_heads": 4},
}


@pytest.mark.parametrize("kind", KINDS)
def test_with_one_token_the_gradients_of_w_q_and_w_k_vanish(kind: str) -> None:
    tokens = {name: value for name, value in foreign.TOKENS.items() if kind != "xlnet" or "max" not in name}
    model, _ = foreign.hugging_face(kind, **KINDS[kind], **tokens)
    model.eval()
    found = attach(model)
    assert found.skipped == {}
    assert found.unchecked == {}
    (site,) = found.sites.values()
    out = model(input_ids=torch.tensor([[5], [7]])).last_hidden_state
    (out * torch.randn_like(out)).sum().backward()
    norms = {name: float(part.grad.norm()) for name, part in site.parts.items()}
    assert norms["W_v"] > 1e-4, norms
    assert max(norms["W_q"], norms["W_k"]) < 1e-5 * norms["W_v"], norms


def test_measuring_leaves_no_trace() -> None:
    model = nn.Sequential(Named("W_q", "W_k", "W_v"), nn.BatchNorm1d(5), nn.Dropout(0.5)).train()
    model[0].W_k.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    attach(model, lambda: model(torch.ones(2, 5, WIDTH)))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(each.grad is None for each in model.parameters())
    assert [each.training for each in model] == [True, True, True]
    assert not model[0].W_k.weight.requires_grad
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())


def test_names_alone_are_not_taken_for_a_check() -> None:
    """Inputs that nobody can make up: the site stays under its names, and that is said."""

    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Named("q_proj", "k_proj", "v_proj")

        def forward(self, *, secret: Tensor) -> Tensor:
            return self.inner(secret)  # type: ignore[no-any-return]

    model = Asking()
    found = attach(model)
    assert list(found.unchecked) == list(found.sites) == ["inner"]
    assert [notice.kind for notice in attention_notices(model)] == ["unchecked_attention"]
    assert attach(model, lambda: model(secret=torch.randn(1, 4, WIDTH))).unchecked == {}
