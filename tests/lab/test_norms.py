"""Norms of finite gradients are finite and not 0, however large or small; the oracle is numpy's longdouble."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from experiments.spec import Record
from tests.lab.test_recording import rows
from workers.trainer.adapt import attach
from workers.trainer.recording import extreme_norms as norms
from workers.trainer.recording.norms import Norms, total_norm
from workers.trainer.recording.own_loop.record import recording

SITE, HEADS = "self_attn", 4
SIZES = [2.2e22, 1e19, 3e30, 1.0, 1e-9, 1e-15, 7e-27, 3e-38]


def model() -> nn.TransformerEncoderLayer:
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(16, HEADS, 32, dropout=0.0, batch_first=True)


def longdouble_norm(grad: Tensor) -> float:
    values = grad.detach().float().numpy().astype(np.longdouble)
    return float(np.sqrt((values**2).sum()))


def given(net: nn.Module, sizes: Tensor | float) -> None:
    """Gradients as if a loss had that size; of the fused weight each row its own."""
    for parameter in net.parameters():
        drawn = torch.randn_like(parameter)
        fitting = isinstance(sizes, float) or parameter.shape == (48, 16)
        parameter.grad = drawn * (sizes if fitting else 1.0)


def told(net: nn.Module) -> dict[str, float]:
    norms = Norms(net, Record())
    norms.before()
    return dict(zip(norms.names, norms.after().tolist(), strict=True))


@pytest.fixture(autouse=True, params=["cpu", "as on a device"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device's values are not at hand: there everything is computed twice, and chosen from."""
    if request.param != "cpu":
        monkeypatch.setattr(norms, "AT_HAND", set[str]())


@pytest.mark.parametrize("size", SIZES)
def test_norms_of_all_sizes_are_told(size: float) -> None:
    net = model()
    attach(net)
    given(net, size)
    found = told(net)
    fused = net.self_attn.in_proj_weight.grad
    assert fused is not None
    for place, matrix in enumerate(("W_q", "W_k", "W_v")):
        grad = fused[16 * place : 16 * (place + 1)]
        assert found[f"grad_norm/{SITE}/{matrix}"] == pytest.approx(longdouble_norm(grad), rel=1e-5, abs=0)
        for head, part in enumerate(grad.chunk(HEADS)):
            wanted = longdouble_norm(part)
            assert found[f"grad_norm/{SITE}/{matrix}/head.{head}"] == pytest.approx(wanted, rel=1e-5, abs=0)
    output = net.self_attn.out_proj.weight.grad
    assert output is not None
    for head, part in enumerate(output.chunk(HEADS, 1)):
        wanted = longdouble_norm(part)
        assert found[f"grad_norm/{SITE}/W_o/head.{head}"] == pytest.approx(wanted, rel=1e-5, abs=0)
    grads = [each.grad for each in net.parameters() if each.grad is not None]
    wanted = longdouble_norm(torch.cat([each.flatten() for each in grads]))
    assert float(total_norm(grads)) == pytest.approx(wanted, rel=1e-5, abs=0)


def test_a_small_head_beside_a_large_one_is_not_zero() -> None:
    net = model()
    attach(net)
    given(net, torch.tensor([1e-27, 1.0, 1e22, 1e-12]).repeat_interleave(4).repeat(3)[:, None])
    found, fused = told(net), net.self_attn.in_proj_weight.grad
    assert fused is not None
    assert found[f"grad_norm/{SITE}/W_q"] == pytest.approx(longdouble_norm(fused[:16]), rel=1e-5)
    for head, part in enumerate(fused[:16].chunk(HEADS)):
        wanted = longdouble_norm(part)
        assert found[f"grad_norm/{SITE}/W_q/head.{head}"] == pytest.approx(wanted, rel=1e-5, abs=0), head


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 0.0])
def test_what_is_no_number_stays_none_and_nothing_stays_nothing(value: float) -> None:
    net = model()
    attach(net)
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, value)
    grads = [each.grad for each in net.parameters() if each.grad is not None]
    single = [norm for name, norm in told(net).items() if name.startswith("grad_norm/")]
    assert len(single) > HEADS
    for norm in [*single, float(total_norm(grads))]:
        assert norm == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize("size", [1e15, 1.0, 1e-9, 1e-12])
def test_norms_of_ordinary_gradients_are_as_ever_to_the_bit(size: float) -> None:
    net = model()
    attach(net)
    given(net, size)
    found, grad = told(net), net.self_attn.out_proj.weight.grad
    assert grad is not None
    assert found[f"grad_norm/{SITE}/W_o"] == float(torch.linalg.vector_norm(grad[None], dim=(1, 2)))
    heads = torch.linalg.vector_norm(grad[None].unflatten(2, (HEADS, -1)), dim=(1, 3))[0]
    assert [found[f"grad_norm/{SITE}/W_o/head.{head}"] for head in range(HEADS)] == heads.tolist()
    grads = [each.grad for each in net.parameters() if each.grad is not None]
    single = torch.stack(torch._foreach_norm(grads, 2, dtype=torch.float32))
    assert torch.equal(total_norm(grads), torch.linalg.vector_norm(single))


@pytest.mark.parametrize("size", [2.2e22, 1.0, 7e-27])
def test_a_loss_of_any_size_is_recorded(size: float, tmp_path: Path) -> None:
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    with recording(net, tmp_path, optimizer) as record:
        loss = net(torch.randn(2, 5, 16)).square().mean() * size
        loss.backward()
        record(loss)
        wanted = longdouble_norm(torch.cat([each.grad.flatten() for each in net.parameters() if each.grad is not None]))
        optimizer.step()
    assert rows(tmp_path)["grad_norm/total"] == [pytest.approx(wanted, rel=1e-5, abs=0)]
