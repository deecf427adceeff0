"""Models that recompute, or compile, parts of themselves are attached to as they are written."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import checkpoint as torchs
from torch.utils.checkpoint import checkpoint

from tests.lab.test_attention_notices import WIDTH, Layer
from workers.trainer.adapt import Attached, attach
from workers.trainer.adapt.watch import watched

Call = Callable[..., Tensor]


class Block(nn.Module):
    """A residual block whose attention is called through `call`."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.inp, self.attn, self.out = nn.Linear(WIDTH, WIDTH), Layer(), nn.Linear(WIDTH, WIDTH)
        self.call = call

    def forward(self, x_BTC: Tensor) -> Tensor:
        out: Tensor = self.out(self.call(self.attn, self.inp(x_BTC)))
        return out


def plainly(layer: Any, x: Tensor) -> Tensor:
    out: Tensor = layer(x)
    return out


def imported(layer: Any, x: Tensor, *, reentrant: bool) -> Tensor:
    out: Tensor = checkpoint(layer, x, use_reentrant=reentrant)
    return out


def looked_up(layer: Any, x: Tensor, *, reentrant: bool) -> Tensor:
    out: Tensor = torchs.checkpoint(layer, x, use_reentrant=reentrant)
    return out


def in_sequence(layer: Any, x: Tensor, *, reentrant: bool) -> Tensor:
    out: Tensor = torchs.checkpoint_sequential([layer, nn.Identity()], 1, x, use_reentrant=reentrant)
    return out


def within(layer: Any, x: Tensor, *, reentrant: bool) -> Tensor:
    return imported(lambda each: imported(layer, each, reentrant=reentrant), x, reentrant=reentrant)


def block(call: Call) -> Block:
    torch.manual_seed(0)
    return Block(call)


def gradients(net: nn.Module) -> dict[str, Tensor]:
    net.zero_grad()
    net(torch.linspace(-1, 1, 10 * WIDTH).reshape(2, 5, WIDTH).sin()).square().mean().backward()
    return {name: each.grad.clone() for name, each in net.named_parameters() if each.grad is not None}


def read(found: Attached) -> dict[str, Tensor]:
    return {
        f"{name}/{matrix}": part.grad.clone()
        for name, site in found.sites.items()
        for matrix, part in site.parts.items()
    }


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("how", [imported, looked_up, in_sequence, within])
def test_attention_that_is_recomputed_is_checked_and_read(how: Any, reentrant: bool, given: bool) -> None:
    net = block(lambda layer, x: how(layer, x, reentrant=reentrant))
    x = torch.randn(2, 5, WIDTH)
    found = attach(net, (lambda: net(x)) if given else None)
    assert list(found.sites) == ["attn"]
    assert not found.skipped
    assert not found.unchecked
    wanted = gradients(block(plainly))
    assert all(torch.equal(grad, wanted[name]) for name, grad in gradients(net).items())
    assert read(found).keys() == {f"attn/{matrix}" for matrix in ("W_q", "W_k", "W_v", "W_o")}
    for name, grad in read(found).items():
        layer = {"W_q": "q_proj", "W_k": "k_proj", "W_v": "v_proj", "W_o": "out_proj"}[name.partition("/")[2]]
        assert torch.equal(grad, wanted[f"attn.{layer}.weight"]), name


def test_recomputing_is_as_it_was_after_attaching() -> None:
    """The layer runs again in the backward pass."""
    calls: list[int] = []
    net = block(lambda layer, x: imported(layer, x, reentrant=False))
    attach(net)
    net.attn.register_forward_pre_hook(lambda *_: calls.append(1))
    gradients(net)
    assert len(calls) == 2


class Own(torch.autograd.Function):
    """Somebody's own way to recompute, which no tracer sees through."""

    @staticmethod
    def forward(ctx: Any, layer: nn.Module, x: Tensor) -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(x)
        out: Tensor = layer(x)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            ctx.layer(leaf).backward(gradient)
        return None, leaf.grad


def test_another_way_to_recompute_leaves_the_site_unchecked_with_the_reason() -> None:
    found = attach(block(Own.apply))  # type: ignore[arg-type]
    assert list(found.sites) == ["attn"]
    assert found.unchecked == {"attn": "its attention ran without gradients"}


def compiled_in_place(net: nn.Module) -> nn.Module:
    net.compile(backend="aot_eager")
    return net


def compiled_around(net: nn.Module) -> Any:
    return torch.compile(net, backend="aot_eager")


def compiled_inside(net: Any) -> nn.Module:
    net.attn = torch.compile(net.attn, backend="aot_eager")
    return net  # type: ignore[no-any-return]


@pytest.mark.parametrize("compiled", [compiled_in_place, compiled_around, compiled_inside])
@pytest.mark.parametrize("ran", [False, True])
def test_a_compiled_model_has_the_names_and_layouts_of_what_is_written(
    compiled: Callable[[nn.Module], nn.Module], ran: bool
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = compiled(block(plainly))
        if ran:
            gradients(net)
        x = torch.randn(2, 5, WIDTH)
        found = attach(net, lambda: net(x))
        assert list(found.sites) == ["attn"]
        assert not found.skipped
        assert not found.unchecked
        wanted = gradients(block(plainly))
        gradients(net)
        with watched(net) as seen, torch.no_grad():
            net(x)
    assert list(seen) == ["attn"]
    assert torch.allclose(read(found)["attn/W_q"], wanted["attn.q_proj.weight"])


def test_the_sites_of_a_model_are_those_of_its_compiled_wrapper() -> None:
    net = block(plainly)
    attach(net)
    with watched(torch.compile(net, backend="aot_eager")) as seen, torch.no_grad():  # type: ignore[arg-type]
        net(torch.randn(2, 5, WIDTH))
    assert list(seen) == ["attn"]
