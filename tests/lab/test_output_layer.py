"""W_o is the layer that the heads' mixes go into, and W_o of a head the entries that this head feeds.

Oracles: gradients of the module's own parameter sliced by hand, and a finite change: where the entries of one head
are zero, the output no longer depends on that head's values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.lab.test_several_attentions import HEADS, SIZE, WIDTH, Layer, gradients, sdpa
from workers.trainer.adapt import attach
from workers.trainer.adapt.attachment import Attached
from workers.trainer.adapt.parts import entries

CONTIGUOUS = [list(range(head * SIZE, head * SIZE + SIZE)) for head in range(HEADS)]
STRIDED = [list(range(head, WIDTH, HEADS)) for head in range(HEADS)]


class Merging(Layer):
    """Merged as (d h): the columns of a head lie apart."""

    def forward(self, x_BTC: Tensor) -> Tensor:
        q, k, v = (each(x_BTC).unflatten(-1, (HEADS, -1)).transpose(1, 2) for each in self.layers)
        return self.out_proj(sdpa(q, k, v).permute(0, 2, 3, 1).flatten(2))  # type: ignore[no-any-return]


class Before(Layer):
    """What is called `proj` is a layer before attention, and the output layer is called `dense`."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.proj = self.out_proj, nn.Linear(WIDTH, WIDTH)
        del self.out_proj

    def forward(self, x_BTC: Tensor) -> Tensor:
        q, k, v = (each(self.proj(x_BTC)).unflatten(-1, (HEADS, -1)).transpose(1, 2) for each in self.layers)
        return self.dense(sdpa(q, k, v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Gated(Layer):
    """A gate from the input on the merged mix."""

    def forward(self, x_BTC: Tensor) -> Tensor:
        q, k, v = (each(x_BTC).unflatten(-1, (HEADS, -1)).transpose(1, 2) for each in self.layers)
        return self.out_proj(sdpa(q, k, v).transpose(1, 2).flatten(2) * x_BTC.sigmoid())  # type: ignore[no-any-return]


def taken(model: nn.Module) -> Attached:
    return attach(model, lambda: model(torch.randn(2, 5, WIDTH)))


@pytest.mark.parametrize(
    ("kind", "name", "columns"),
    [
        (Layer, "out_proj", CONTIGUOUS),
        (Merging, "out_proj", STRIDED),
        (Before, "dense", CONTIGUOUS),
        (Gated, "out_proj", CONTIGUOUS),
    ],
)
def test_a_head_has_the_columns_that_its_mix_goes_into(kind: type[Layer], name: str, columns: list[list[int]]) -> None:
    torch.manual_seed(0)
    model = kind()
    part = taken(model).sites["attention"].parts["W_o"]
    wanted = gradients(model, torch.randn(2, 5, WIDTH))[f"{name}.weight"]
    assert part.heads == HEADS
    for head, own in enumerate(columns):
        torch.testing.assert_close(part.head(part.grad, head).norm(), wanted[:, own].norm(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", [Layer, Merging, Before, Gated])
def test_without_its_entries_of_w_o_a_head_changes_nothing(kind: type[Layer]) -> None:
    torch.manual_seed(0)
    model, x = kind(), torch.randn(2, 5, WIDTH)
    part = taken(model).sites["attention"].parts["W_o"]
    for head, places in enumerate(entries(part)):
        with torch.no_grad():
            kept = part.parameter.clone()
            part.parameter.view(-1)[list(places)] = 0.0
            was, values = model(x), model.v_proj.weight.clone()
            for other in range(HEADS):
                model.v_proj.weight[other * SIZE : (other + 1) * SIZE] += 1.0
                changed = not torch.allclose(was, model(x), atol=1e-6)
                assert changed == (other != head)
                model.v_proj.weight.copy_(values)
            part.parameter.copy_(kept)


class NormAcross(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.LayerNorm(WIDTH)

    def forward(self, x_BTC: Tensor) -> Tensor:
        q, k, v = (each(x_BTC).unflatten(-1, (HEADS, -1)).transpose(1, 2) for each in self.layers)
        return self.out_proj(self.inner(sdpa(q, k, v).transpose(1, 2).flatten(2)))  # type: ignore[no-any-return]


def test_heads_that_a_norm_mixes_have_no_entries_of_w_o_of_their_own_and_that_is_told() -> None:
    torch.manual_seed(0)
    model = NormAcross()
    found = taken(model)
    part = found.sites["attention"].parts["W_o"]
    wanted = gradients(model, torch.randn(2, 5, WIDTH))["out_proj.weight"]
    assert part.heads == 0
    torch.testing.assert_close(part.grad, wanted, rtol=0, atol=0)
    assert found.sites["attention"].heads == HEADS
    assert "mixed" in " ".join(found.skipped.values())


class Elsewhere(Layer):
    """`out_proj` has the width of the heads and does not take what they mix."""

    def forward(self, x_BTC: Tensor) -> Tensor:
        q, k, v = (each(x_BTC).unflatten(-1, (HEADS, -1)).transpose(1, 2) for each in self.layers)
        return self.out_proj(x_BTC) + sdpa(q, k, v).transpose(1, 2).flatten(2)  # type: ignore[no-any-return]


def test_a_layer_that_the_mix_does_not_go_into_is_no_w_o_and_that_is_told() -> None:
    found = taken(Elsewhere())
    assert list(found.sites["attention"].parts) == ["W_q", "W_k", "W_v"]
    (why,) = found.skipped.values()
    assert "no layer" in why
