"""Loops that do to a model what a recording does not expect: what it says is right, or it says that it cannot."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from tests.lab.test_recording import rows
from workers.trainer.adapt import attach
from workers.trainer.adapt.watch import watched
from workers.trainer.recording.own_loop.record import Record, recording

SITE = "layers.0.self_attn"


def model() -> nn.TransformerEncoder:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 16, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def loss_of(net: nn.Module) -> Tensor:
    out: Tensor = net(torch.linspace(-1, 1, 160).reshape(2, 5, 16).sin())
    return (out * out.detach().roll(1, -1)).mean()


def weight_of(net: Any, layer: int) -> Tensor:
    """W_q of a layer."""
    fused: Tensor = net.layers[layer].self_attn.in_proj_weight
    return fused[:16]


def grad_of(net: Any, layer: int) -> float:
    grad = net.layers[layer].self_attn.in_proj_weight.grad
    return float(grad[:16].double().norm())


@contextmanager
def told(words: str) -> Iterator[None]:
    """Exactly one warning, which has these words; none where they are empty."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield
    texts = [str(each.message) for each in found if str(each.message).startswith("recording: ")]
    assert len(texts) == bool(words), texts
    assert words in "".join(texts)


@pytest.mark.parametrize("recorded_first", [True, False])
def test_a_model_of_two_optimizers_has_the_update_ratios_of_both(recorded_first: bool, tmp_path: Path) -> None:
    net = model()
    pair = [torch.optim.SGD(layer.parameters(), lr=10.0) for layer in net.layers]
    wanted: list[list[float]] = []
    with recording(net, tmp_path, pair[0]) as record:
        for _ in range(3):
            net.zero_grad()
            loss = loss_of(net)
            loss.backward()
            record(loss)
            before = [weight_of(net, layer).detach().clone() for layer in (0, 1)]
            for optimizer in pair if recorded_first else pair[::-1]:
                optimizer.step()
            moved = [float((weight_of(net, n).detach() - old).norm() / old.norm()) for n, old in enumerate(before)]
            wanted.append(moved)
    found = rows(tmp_path)
    for layer in (0, 1):
        ratios = found[f"update_ratio/layers.{layer}.self_attn/W_q"]
        assert ratios == pytest.approx([moved[layer] for moved in wanted], rel=1e-5)
        assert min(ratios) > 0
    assert "8 matrices belong to other optimizers" not in (tmp_path / "log.txt").read_text()
    assert "4 matrices belong to other optimizers" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize("unscaled_first", [True, False])
def test_rows_of_two_optimizers_lose_their_own_scale(unscaled_first: bool, tmp_path: Path) -> None:
    net, scaler = model(), torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1)  # doubles at each step
    pair = [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in net.layers]
    wanted = []
    with recording(net, tmp_path, pair[0]) as record:
        for _ in range(3):
            net.zero_grad()
            loss = loss_of(net)
            scaler.scale(loss).backward()
            wanted.append(grad_of(net, 0) / scaler.get_scale())
            if unscaled_first:
                scaler.unscale_(pair[0])
            record(loss)
            for optimizer in pair:
                scaler.step(optimizer)
            scaler.update()
    assert rows(tmp_path)[f"grad_norm/{SITE}/W_q"] == pytest.approx(wanted, rel=1e-5)


def another_layer(net: Any) -> None:
    net.layers[0] = copy.deepcopy(net.layers[0])


def another_parameter(net: Any) -> None:
    net.layers[0].self_attn.in_proj_weight = nn.Parameter(torch.randn(48, 16))


def pruned(net: Any) -> None:
    prune.l1_unstructured(net.layers[0].self_attn, "in_proj_weight", 0.5)


@pytest.mark.parametrize("replace", [another_layer, another_parameter, pruned])
def test_a_matrix_that_is_replaced_has_no_numbers_any_more(replace: Callable[[Any], None], tmp_path: Path) -> None:
    """The former one keeps its last gradient, which nothing zeroes any more."""
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    wanted = []
    with told(f"there is no {SITE}/W_q, {SITE}/W_k, {SITE}/W_v"), recording(net, tmp_path, optimizer) as record:
        for step in range(4):
            if step == 2:
                replace(net)
                optimizer.param_groups[0]["params"] = list(net.parameters())
            optimizer.zero_grad()
            loss = loss_of(net)
            loss.backward()
            wanted.append(grad_of(net, 1))
            record(loss)
            optimizer.step()
    found = rows(tmp_path)
    for name in (f"grad_norm/{SITE}/W_q", f"grad_norm/{SITE}/W_q/head.1", f"update_ratio/{SITE}/W_k"):
        assert [math.isnan(value) for value in found[name]] == [False, False, True, True], name
    assert found["grad_norm/layers.1.self_attn/W_q"] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("zeroed", [False, True])
def test_a_call_after_the_optimizers_step_is_told(zeroed: bool, tmp_path: Path) -> None:
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with told("of step 0 was called after the optimizer's step"), recording(net, tmp_path, optimizer) as record:
        for _ in range(3):
            optimizer.zero_grad()
            loss = loss_of(net)
            loss.backward()
            optimizer.step()
            if zeroed:
                optimizer.zero_grad()
            record(loss)
    found = rows(tmp_path)
    for name in ("grad_norm/total", f"grad_norm/{SITE}/W_q"):  # gradients that are gone are no zeros
        assert [math.isnan(value) for value in found[name]] == [zeroed] * 3


def test_weights_that_are_moved_by_hand_have_no_norm_of_zero(tmp_path: Path) -> None:
    """Gradients of `torch.autograd.grad` lie in no parameter."""
    net = model()
    with recording(net, tmp_path, torch.optim.SGD(net.parameters(), lr=0.1)) as record:
        for _ in range(2):
            loss = loss_of(net)
            gradients = torch.autograd.grad(loss, list(net.parameters()))
            record(loss)
            with torch.no_grad():
                for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                    parameter -= gradient
    found = rows(tmp_path)
    for name in ("grad_norm/total", f"grad_norm/{SITE}/W_q"):
        assert all(math.isnan(value) for value in found[name]), name


@pytest.mark.parametrize("every", [1, 3])
def test_rows_of_some_steps_are_told_of_nothing(every: int, tmp_path: Path) -> None:
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    wanted = []
    with told(""), recording(net, tmp_path, optimizer) as record:
        for step in range(7):
            optimizer.zero_grad()
            for _ in range(2):
                loss = loss_of(net)
                loss.backward()
            if step % every == 0:
                wanted.append(grad_of(net, 0))
                record(loss, step)
            optimizer.step()
    found = rows(tmp_path)
    assert found["step"] == list(range(0, 7, every))
    assert found[f"grad_norm/{SITE}/W_q"] == pytest.approx(wanted, rel=1e-5)


def test_matrices_that_are_made_for_each_call_are_left_out_by_name() -> None:
    net = model()
    parametrizations.weight_norm(net.layers[0].self_attn, "in_proj_weight")
    found = attach(net)
    assert list(found.sites) == ["layers.1.self_attn"]
    assert found.skipped[SITE]


def test_a_compiled_model_is_seen_as_it_is_written() -> None:
    plain = model()
    attach(plain)
    with watched(plain) as wanted, torch.no_grad():
        loss_of(plain)
    compiled: Any = torch.compile(model(), backend="aot_eager")
    with torch.no_grad():
        loss_of(compiled.eval())  # its graph is there before anybody looks
    found = attach(compiled)
    assert not found.skipped
    assert not found.unchecked
    with watched(compiled) as seen, torch.no_grad():
        loss_of(compiled)
    assert {name.removeprefix("_orig_mod."): each.entropy for name, each in seen.items()} == {
        name: each.entropy for name, each in wanted.items()
    }


def _recorded(net: nn.Module, record: Record | None, optimizer: torch.optim.Optimizer) -> None:
    for _ in range(2):
        optimizer.zero_grad()
        loss = loss_of(net)
        loss.backward()
        if record:
            record(loss)
        optimizer.step()


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda net: torch.compile(net, backend="aot_eager")])
def test_a_wrapped_model_trains_as_without_a_record(wrap: Callable[[nn.Module], Any], tmp_path: Path) -> None:
    ends = []
    for folder in (None, tmp_path):
        inner = model()
        net, optimizer = wrap(inner), torch.optim.SGD(inner.parameters(), lr=0.1)
        if folder is None:
            _recorded(net, None, optimizer)
        else:
            with told(""), recording(net, folder, optimizer) as record:
                _recorded(net, record, optimizer)
        ends.append((inner.state_dict(), grad_of(inner, 0)))
    assert all(torch.equal(value, ends[1][0][name]) for name, value in ends[0][0].items())
    name = next(name for name in rows(tmp_path) if name.endswith(f"{SITE}/W_q") and name.startswith("grad_norm"))
    assert rows(tmp_path)[name][1] == pytest.approx(ends[0][1], rel=1e-5)


@contextmanager
def scaled_by_its_own(net: nn.Module, folder: Path, recorded: int) -> Iterator[tuple[Any, Any, Any]]:
    """A model whose two layers have an optimizer each, under one scaler."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1)
    pair: list[torch.optim.Optimizer] = [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in net.layers]  # type: ignore[union-attr,arg-type]
    with recording(net, folder, pair[recorded]) as record:
        yield record, pair, scaler


def wanted_of(net: nn.Module, loss: Tensor) -> list[float]:
    """Norms of W_q in both layers, and of all gradients, without any scale."""
    grads = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
    named = {name: grad.double() for (name, _), grad in zip(net.named_parameters(), grads, strict=True)}
    single = [float(named[f"layers.{n}.self_attn.in_proj_weight"][:16].norm()) for n in (0, 1)]
    return [*single, math.sqrt(sum(float(grad.square().sum()) for grad in named.values()))]


def told_of(folder: Path) -> list[list[float]]:
    found = rows(folder)
    names = [*(f"grad_norm/layers.{n}.self_attn/W_q" for n in (0, 1)), "grad_norm/total"]
    return [list(row) for row in zip(*(found[name] for name in names), strict=True)]


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("unscaled", [(), (0,), (1,), (0, 1), (1, 0)])
@pytest.mark.parametrize("recorded", [0, 1])
def test_either_optimizer_may_be_unscaled_before_the_row(
    recorded: int, unscaled: tuple[int, ...], keep: bool, tmp_path: Path
) -> None:
    net, wanted = model(), []
    with told(""), scaled_by_its_own(net, tmp_path, recorded) as (record, pair, scaler):
        for _ in range(3):
            net.zero_grad(set_to_none=not keep)
            loss = loss_of(net)
            wanted.append(wanted_of(net, loss))
            scaler.scale(loss).backward()
            for each in unscaled:
                scaler.unscale_(pair[each])
            record(loss)
            for optimizer in pair:
                scaler.step(optimizer)
            scaler.update()
    assert told_of(tmp_path) == [pytest.approx(row, rel=1e-5) for row in wanted]


def test_gradients_that_wait_for_a_later_step_have_no_scale_either(tmp_path: Path) -> None:
    """The second optimizer steps at every third iteration, and the scale does not change meanwhile."""
    net, wanted = model(), []
    with told(""), scaled_by_its_own(net, tmp_path, 1) as (record, pair, scaler):
        scaler.set_growth_interval(100)
        losses: list[Tensor] = []
        for step in range(7):
            pair[0].zero_grad()
            losses.append(loss_of(net))
            wanted.append(wanted_of(net, sum(losses[1:], losses[0]))[1])
            scaler.scale(losses[-1]).backward(retain_graph=True)
            record(losses[-1])
            if step % 3 == 0:
                scaler.step(pair[1])
                pair[1].zero_grad()
                losses = []
                scaler.update()
    assert [row[1] for row in told_of(tmp_path)] == pytest.approx(wanted, rel=1e-5)


def test_gradients_with_two_scales_are_no_number(tmp_path: Path) -> None:
    """The other optimizer's gradients are unscaled, and the pass of the row adds scaled ones to them."""
    net = model()
    told_mixed = told("step 0 on norms of gradients of another optimizer are NaN")
    with told_mixed, scaled_by_its_own(net, tmp_path, 0) as (record, pair, scaler):
        for _ in range(2):
            net.zero_grad()
            scaler.scale(loss_of(net)).backward()
            scaler.step(pair[1])
            pair[0].zero_grad()
            loss = loss_of(net)
            wanted = wanted_of(net, loss)[0]
            scaler.scale(loss).backward()
            record(loss)
            scaler.step(pair[0])
            scaler.update()
    for first, second, total in told_of(tmp_path):
        assert math.isfinite(first)
        assert math.isnan(second)
        assert math.isnan(total)
    assert told_of(tmp_path)[1][0] == pytest.approx(wanted, rel=1e-5)


def test_other_gradients_under_several_scalers_are_told(tmp_path: Path) -> None:
    """Nobody was heard to unscale the second layer, and it may be under either scaler."""
    net = model()
    scalers = [torch.amp.GradScaler("cpu", init_scale=scale) for scale in (1024.0, 64.0)]
    head = torch.optim.SGD([net.layers[0].linear1.weight], lr=0.1)
    attention = torch.optim.SGD(net.layers[0].self_attn.parameters(), lr=0.1)
    with told("several GradScalers"), recording(net, tmp_path, attention) as record:
        for _ in range(2):
            net.zero_grad()
            loss = loss_of(net)
            wanted = wanted_of(net, loss)[0]
            scalers[0].scale(loss).backward()
            scalers[0].unscale_(attention)
            scalers[1].scale(torch.zeros(()))
            scalers[1].unscale_(head)
            record(loss)
            for scaler, optimizer in zip(scalers, (attention, head), strict=True):
                scaler.step(optimizer)
                scaler.update()
    for row in told_of(tmp_path):
        assert [math.isnan(each) for each in row] == [False, True, True]
    assert told_of(tmp_path)[1][0] == pytest.approx(wanted, rel=1e-5)
