"""Our attention against PyTorch's two own implementations, forward and backward, masks included."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.spec import Attention as AttentionSpec
from experiments.spec.sections.attention_names import VARIANT_TABLE, Variant, absent
from workers.trainer.attention import Attention, Tap, attention_weights, fused_attention, plain_attention
from workers.trainer.attention.hooks import edited, tapped
from workers.trainer.attention.variants import VARIANTS, build_attention

B, T, S, M, H = 3, 7, 5, 16, 4
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def _attention(**spec: object) -> Attention:
    torch.manual_seed(0)
    return build_attention(M, H, AttentionSpec.model_validate({"init_std": 0.3, **spec}), "self")


def _inputs(cross: bool) -> tuple[Tensor, Tensor | None]:
    torch.manual_seed(1)
    x = torch.randn(B, T, M, requires_grad=True)
    return x, torch.randn(B, S, M, requires_grad=True) if cross else None


def _mask(kind: str, keys: int) -> Tensor | None:
    """True where asking is allowed; every row may ask somebody."""
    allowed = torch.rand(B, keys, generator=torch.Generator().manual_seed(2)) < 0.6
    allowed[:, 0] = True
    full = torch.rand(B, H, T, keys, generator=torch.Generator().manual_seed(3)) < 0.6
    full[..., 0] = True
    return {"none": None, "padding": allowed[:, None, None, :], "full": full}[kind]


@pytest.mark.parametrize("mask", ["none", "padding", "full"])
@pytest.mark.parametrize("cross", [False, True])
def test_plain_and_fused_attention_equal_torch_sdpa(cross: bool, mask: str) -> None:
    keys = S if cross else T
    torch.manual_seed(4)
    q, k, v = (torch.randn(B, H, n, M // H, requires_grad=True) for n in (T, keys, keys))
    allowed = _mask(mask, keys)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
    wanted = torch.autograd.grad(expected.square().mean(), (q, k, v))
    for path in (plain_attention, fused_attention):
        out = path(q, k, v, allowed, 1 / math.sqrt(M // H))
        torch.testing.assert_close(out, expected, **CLOSE)
        torch.testing.assert_close(torch.autograd.grad(out.square().mean(), (q, k, v)), wanted, **CLOSE)


def _torch_twin(ours: Attention) -> nn.MultiheadAttention:
    """torch.nn.MultiheadAttention with our weights: it keeps them transposed and stacked."""
    twin = nn.MultiheadAttention(M, H, bias=False, batch_first=True)
    with torch.no_grad():
        twin.in_proj_weight.copy_(torch.cat([ours.W_q.T, ours.W_k.T, ours.W_v.T]))
        twin.out_proj.weight.copy_(ours.W_o.T)
    return twin


@pytest.mark.parametrize("path", [plain_attention, fused_attention])
@pytest.mark.parametrize("mask", ["none", "padding", "full"])
@pytest.mark.parametrize("cross", [False, True])
def test_our_module_equals_torch_multihead_attention(cross: bool, mask: str, path: object) -> None:
    ours = _attention()
    ours.attend = path  # type: ignore[assignment]
    twin = _torch_twin(ours)
    x, y = _inputs(cross)
    source = x if y is None else y
    allowed = _mask(mask, source.shape[1])
    blocked = None if allowed is None else ~allowed.expand(B, H, T, source.shape[1]).flatten(0, 1)
    expected, _ = twin(x, source, source, attn_mask=blocked, need_weights=False)
    out = ours(x, y, allowed)
    torch.testing.assert_close(out, expected, **CLOSE)
    inputs = [x] if y is None else [x, y]
    wanted = torch.autograd.grad(expected.square().mean(), [*inputs, twin.in_proj_weight, twin.out_proj.weight])
    found = torch.autograd.grad(out.square().mean(), [*inputs, ours.W_q, ours.W_k, ours.W_v, ours.W_o])
    *dx, dq, dk, dv, do = found
    torch.testing.assert_close([*dx, torch.cat([dq.T, dk.T, dv.T]), do.T], list(wanted), **CLOSE)


@pytest.mark.parametrize("path", [plain_attention, fused_attention])
def test_a_row_that_may_ask_nobody_gets_zeros_and_no_nan(path: object) -> None:
    torch.manual_seed(5)
    q, k, v = (torch.randn(1, 1, 2, 4, requires_grad=True) for _ in range(3))
    allowed = torch.tensor([[True, True], [False, False]])
    out = path(q, k, v, allowed, 0.5)  # type: ignore[operator]
    assert out[0, 0, 1].abs().max() == 0
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(out.sum(), (q, k, v)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_gives_the_same_through_the_plain_and_the_fused_path(variant: str) -> None:
    ours = _attention(variant=variant)
    x, y = _inputs(cross=True)
    allowed = _mask("padding", S)
    fused = ours(x, y, allowed)
    ours.attend = plain_attention
    torch.testing.assert_close(fused, ours(x, y, allowed), **CLOSE)


@pytest.mark.parametrize(
    ("variant", "owned"),
    [
        ("full", {"W_q", "W_k", "W_v", "W_o"}),
        ("no_q", {"W_k", "W_v", "W_o"}),
        ("no_k", {"W_q", "W_v", "W_o"}),
        ("no_v", {"W_q", "W_k", "W_o"}),
        ("tied_qk", {"W_q", "W_v", "W_o"}),
        ("no_qk", {"W_v", "W_o"}),
        ("const_q", {"W_k", "W_v", "W_o", "query"}),
        ("uniform", {"W_v", "W_o"}),
    ],
)
def test_a_variant_owns_just_its_matrices(variant: str, owned: set[str]) -> None:
    assert {name for name, _ in _attention(variant=variant).named_parameters()} == owned


def _map(spec: dict[str, object]) -> Tensor:
    """The attention map of x on itself."""
    call = _call(_attention(**spec), _inputs(cross=False)[0])
    return attention_weights(call.q_BHTD, call.k_BHSD, call.mask, call.scale)


def _call(site: Attention, x: Tensor) -> Tap:
    with tapped({"site": site}) as calls:
        site(x)
    return calls["site"]


def test_uniform_weighs_every_key_the_same_and_const_q_asks_the_same_for_everybody() -> None:
    torch.testing.assert_close(_map({"variant": "uniform"}), torch.full((B, H, T, T), 1 / T))
    weights = _map({"variant": "const_q"})
    torch.testing.assert_close(weights, weights[:, :, :1].expand_as(weights))
    assert weights.std(-1).max() > 1e-3


def test_without_w_q_and_w_k_scores_are_symmetric() -> None:
    call = _call(_attention(variant="no_qk"), _inputs(cross=False)[0])
    logits = call.q_BHTD @ call.k_BHSD.transpose(-2, -1)
    torch.testing.assert_close(logits, logits.transpose(-2, -1))


def test_scale_none_and_qk_norm_change_the_logits_as_they_say() -> None:
    sharp, soft = _map({"scale": "none"}), _map({})
    logits, scaled = sharp.log(), soft.log() * math.sqrt(M // H)
    torch.testing.assert_close(logits - logits[..., :1], scaled - scaled[..., :1], rtol=1e-4, atol=1e-4)
    call = _call(_attention(qk_norm=True), _inputs(cross=False)[0] * 100)
    lengths = torch.linalg.vector_norm(call.q_BHTD, dim=-1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, math.sqrt(M // H)), rtol=1e-4, atol=1e-4)


def test_matrices_start_as_the_spec_says() -> None:
    torch.manual_seed(0)
    wide = build_attention(256, 4, AttentionSpec(), "self")
    assert wide.W_q.std().item() == pytest.approx(0.02, rel=0.02)
    assert abs(wide.W_q.mean().item()) < 1e-3
    square = build_attention(64, 4, AttentionSpec(init="orthogonal"), "self").W_k
    torch.testing.assert_close(square @ square.T, torch.eye(64), **CLOSE)
    assert build_attention(64, 4, AttentionSpec(init="zeros"), "self").W_v.abs().max() == 0
    limit = math.sqrt(6 / 128)
    xavier = build_attention(64, 4, AttentionSpec(init="xavier"), "self").W_o
    assert limit * 0.99 < xavier.abs().max() <= limit


def test_an_edit_takes_the_place_of_q_k_and_v_and_a_head_without_values_says_nothing() -> None:
    ours, x = _attention(d_k=3, d_v=5), _inputs(cross=False)[0]
    silent = torch.tensor([1.0, 1.0, 0.0, 1.0]).view(1, H, 1, 1)
    with tapped({"site": ours}) as calls:
        whole = ours(x)
        first = calls["site"]
        with edited([ours], lambda qkv: qkv._replace(v_BHSE=qkv.v_BHSE * silent)):
            without = ours(x)
    second = calls["site"]
    assert (first.q_BHTD.shape, first.v_BHSE.shape, first.mix_BTN.shape) == ((B, H, T, 3), (B, H, T, 5), (B, T, H * 5))
    assert second.mix_BTN[..., 10:15].abs().max() == 0
    torch.testing.assert_close(whole - without, first.mix_BTN[..., 10:15] @ ours.W_o[10:15], **CLOSE)
    assert first.out_BTM is whole
    assert first.x_BTM is x


def test_the_spec_knows_which_matrices_each_variant_owns_and_lacks() -> None:
    assert list(VARIANTS) == list(VARIANT_TABLE) == list(get_args(Variant))
    for name, variant in VARIANTS.items():
        assert VARIANT_TABLE[name].owned == variant.owned
        assert absent(name) == {"W_q", "W_k", "W_v", "W_o"} - set(variant.owned)
        parameters = dict(variant(8, 2, AttentionSpec()).named_parameters())
        assert VARIANT_TABLE[name].query_vector == ("query" in parameters)
