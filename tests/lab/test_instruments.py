"""What probes read off a site, against maps and matrices whose answer is known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from experiments.spec import Attention as AttentionSpec
from tests.lab.collected import tiny, train_collected
from workers.trainer.attention import Attention, Tap
from workers.trainer.attention.hooks import tapped
from workers.trainer.attention.instruments import (
    Map,
    asymmetry,
    effective_rank,
    entropy,
    logit_max,
    object_mass,
    pointing,
    same_object,
    series_of,
    singular_values,
    spectral_norm,
    values_of,
)
from workers.trainer.attention.variants import VARIANTS, build_attention

M, H = 12, 3


def _site(**spec: object) -> Attention:
    torch.manual_seed(0)
    return build_attention(M, H, AttentionSpec.model_validate({"init": "xavier", **spec}), "self")


def _tap(site: Attention, x: Tensor, mask: Tensor | None = None) -> Tap:
    with tapped({"site": site}) as calls:
        site(x, mask=mask)
    return calls["site"]


def _map(weights: Tensor) -> Map:
    return Map(weights.log(), weights, torch.full_like(weights[..., 0], weights.shape[-1]))


def test_entropy_is_one_where_all_keys_weigh_the_same_and_zero_where_one_has_all() -> None:
    even, sure = torch.full((2, 1, 4, 4), 0.25), torch.eye(4).expand(2, 1, 4, 4)
    both = _map(torch.cat([even, sure], 1))
    torch.testing.assert_close(entropy(both), torch.tensor([1.0, 0.0]))
    masked = Map.of(_tap(_site(variant="uniform"), torch.randn(2, 5, M), torch.ones(5, 5, dtype=torch.bool).tril()))
    torch.testing.assert_close(entropy(masked), torch.full((H,), 0.8))  # the first token has nobody to choose from


def test_the_largest_logit_leaves_out_pairs_that_may_not_ask() -> None:
    site, x = _site(), torch.randn(1, 4, M)
    tap = _tap(site, x)
    logits = tap.q_BHTD @ tap.k_BHSD.mT * site.scale
    torch.testing.assert_close(logit_max(Map.of(tap)), logits.amax((0, 2, 3)))
    one = torch.zeros(4, 4, dtype=torch.bool)
    one[:, 2] = True
    torch.testing.assert_close(logit_max(Map.of(_tap(site, x, one))), logits[..., 2].amax((0, 2)))


def test_asymmetry_tells_asking_back_from_never_asking_back() -> None:
    mutual = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    ring = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    assert asymmetry(_map(mutual.expand(2, 1, 2, 2))).item() == 0
    assert asymmetry(_map(ring.expand(2, 1, 3, 3))).item() == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize("sizes", [{}, {"d_k": 2}, {"d_k": 20}])
@pytest.mark.parametrize("variant", ["full", "tied_qk"])
def test_singular_values_are_those_of_the_whole_product(variant: str, sizes: dict[str, int]) -> None:
    site = _site(variant=variant, **sizes)
    told = site.W_q if variant == "tied_qk" else site.W_k
    found = singular_values(site)
    for head in range(H):
        own = slice(head * site.d_k, (head + 1) * site.d_k)
        wanted = torch.linalg.svdvals(site.W_q[:, own].double() @ told[:, own].double().T)[: found.shape[1]]
        torch.testing.assert_close(found[head].double(), wanted, rtol=1e-4, atol=1e-5)


def test_an_identity_stands_for_a_matrix_that_a_variant_does_not_have() -> None:
    torch.testing.assert_close(singular_values(_site(variant="no_qk")), torch.ones(H, M // H))
    site = _site(variant="no_q")
    wanted = torch.linalg.svdvals(site.W_k.unflatten(1, (H, -1)).transpose(0, 1))
    torch.testing.assert_close(singular_values(site), wanted, rtol=1e-4, atol=1e-5)
    assert not _site(variant="const_q").bilinear
    assert not _site(variant="uniform").bilinear


def test_effective_rank_counts_directions_that_weigh_the_same() -> None:
    values = torch.tensor([[2.0, 2.0, 2.0, 0.0], [5.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(effective_rank(values), torch.tensor([3.0, 1.0, 0.0]))
    assert spectral_norm(values).tolist() == [2.0, 5.0, 0.0]


def test_mass_and_pointing_weigh_cells_by_what_the_object_covers() -> None:
    weights, cover = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]), torch.tensor([1.0, 0.5, 0.0])
    torch.testing.assert_close(object_mass(weights, cover), torch.tensor([0.65, 0.2]))
    assert pointing(weights, cover).tolist() == [1.0, 0.0]


def test_mass_on_the_same_object_of_even_attention_is_the_share_of_the_image_it_covers() -> None:
    cover = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(same_object(torch.full((2, 1, 4, 4), 0.25), cover), torch.tensor([0.5]))
    torch.testing.assert_close(same_object(torch.eye(4).expand(2, 1, 4, 4), cover), torch.tensor([1.0]))


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_every_variant_has_the_values_it_names_and_they_are_finite(variant: str) -> None:
    site = _site(variant=variant)
    values = values_of("encoder.0.self", site, _tap(site, torch.randn(2, 5, M)), per_head=True)
    assert list(values) == series_of("encoder.0.self", site, per_head=True)
    assert all(value.isfinite() and value.shape == () for value in values.values())


def test_broken_weights_are_seen_as_nan_and_do_not_end_the_probe() -> None:
    site, x = _site(), torch.randn(2, 5, M)
    with torch.no_grad():
        site.W_q[0, 0] = math.nan
    values = values_of("encoder.0.self", site, _tap(site, x), per_head=True)
    for measure in ("entropy", "logit_max", "asymmetry", "spectral_norm", "effective_rank"):
        assert values[f"attn/{measure}/encoder.0.self"].isnan()
        assert values[f"attn/{measure}/encoder.0.self/head.0"].isnan()
    assert values["attn/spectral_norm/encoder.0.self/head.2"].isfinite()


@pytest.mark.parametrize(
    ("task", "wanted"),
    [
        (
            "segment",
            {"attn/pointing/decoder.1.image", "attn/same_object/encoder.0.self", "attn/asymmetry/decoder.0.self"},
        ),
        ("pointer", {"attn/pointing/encoder.1.self", "attn/effective_rank/encoder.0.self/head.1"}),
        ("language", {"attn/spectral_norm/encoder.0.self", "attn/entropy/encoder.0.self/head.0"}),
    ],
)
def test_probes_of_a_run_carry_the_instruments(tmp_path: Path, task: str, wanted: set[str]) -> None:
    sink, _ = train_collected(tiny(task, train={"steps": 2}), tmp_path)
    probed = sink.series("probe")
    assert wanted <= probed.keys()
    assert not [name for name in probed if name.startswith("attn/asymmetry") and "image" in name]
    assert all(np.isfinite(values).all() for _, values in probed.values())
