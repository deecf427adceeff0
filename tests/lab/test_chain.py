"""The gradient's way to W_q, worked out by hand, against autograd."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from experiments.spec import Attention as AttentionSpec
from experiments.spec.sections.attention_names import STATIONS
from tests.lab.collected import tiny, train_collected
from workers.trainer.attention import Tap, fused_attention
from workers.trainer.attention.gradient_chain.chain import (
    Chained,
    chain,
    chained_sites,
    exact_errors,
    follow,
    relative_error,
)
from workers.trainer.attention.gradient_chain.max_error import MaxChainError, largest
from workers.trainer.attention.variants import build_attention
from workers.trainer.nets.tokens import causal
from workers.trainer.tasks.registry import build_task

CPU = torch.device("cpu")
ASKING = ("full", "no_q", "no_k", "no_v", "tied_qk", "no_qk", "const_q")


def _task(name: str, **attention: object) -> Chained:
    return build_task(tiny(name, model={"attention": attention}), CPU)  # type: ignore[return-value]


@pytest.mark.parametrize("variant", ASKING)
@pytest.mark.parametrize("task", ["pointer", "roles", "language", "classify", "segment"])
def test_the_chain_by_hand_equals_autograd_in_both_precisions(task: str, variant: str) -> None:
    built = _task(task, variant=variant, init="xavier", qk_norm=task == "roles", d_v=5 if variant != "no_v" else None)
    values = chain(built, built.model)
    assert 0 < largest(values, "fp32") <= 1e-5
    assert 0 < _exact(built) <= 1e-10
    stations = {name.rpartition("/")[2] for name in values if name.startswith("flow/")}
    assert stations == set(STATIONS) - (set() if variant in ("full", "no_k", "no_v", "tied_qk") else {"W_q"})


def test_the_bound_holds_where_one_key_has_nearly_all_the_weight() -> None:
    """dA and its row sum cancel there: two orders of summation were 6e-5 apart in trained runs."""
    built = _task("segment", init="xavier")
    with torch.no_grad():
        for site in chained_sites(built.model).values():
            site.W_q.mul_(40)
    values = chain(built, built.model)
    assert 0 < largest(values, "fp32") <= 1e-4
    assert 1e-4 < largest(values, "fp32_of_bound") <= 1
    assert 0 < _exact(built) <= 1e-10
    assert all(site.attend is fused_attention for site in chained_sites(built.model).values())


def test_every_station_is_the_gradient_that_autograd_finds_there() -> None:
    torch.manual_seed(0)
    site = build_attention(12, 3, AttentionSpec(init="xavier", d_k=5, d_v=2), "self").double()
    x, mask = torch.randn(2, 6, 12, dtype=torch.float64), causal(6, CPU)
    q, k, v = site.split(site.queries(x)), site.split(site.keys(x)), site.split(site.values(x))
    logits = (q @ k.transpose(-2, -1) * site.scale).masked_fill(~mask, -math.inf)
    weights = logits.softmax(-1)
    mix = site.merge(weights @ v)
    loss = (mix @ site.W_o).sin().sum()
    d_mix, d_weights, d_logits, d_q, d_w = torch.autograd.grad(loss, [mix, weights, logits, q, site.W_q])
    d_out = (mix @ site.W_o).cos()
    links = follow(site, Tap(x, x, q, k, v, mask, site.scale, mix, mix), d_out.detach())
    expected = {"mix": d_mix, "weights": d_weights.masked_fill(~mask, 0), "logits": d_logits, "Q": d_q, "W_q": d_w}
    for station, gradient in expected.items():
        torch.testing.assert_close(links[station], gradient, rtol=1e-12, atol=1e-14)


def test_a_wrong_chain_is_an_error_and_a_gradient_that_cancels_is_none() -> None:
    truth = torch.tensor([3.0, 4.0])
    assert relative_error(truth * 1.5, truth, torch.tensor(1e-7)).item() == pytest.approx(0.5)
    assert relative_error(truth * 0, truth, torch.tensor(1e-7)).item() == 1
    assert relative_error(truth * 0, truth * 1e-9, torch.tensor(1e-7)).item() == 0
    assert math.isnan(relative_error(truth, truth * math.nan, torch.tensor(1e-7)).item())
    assert math.isnan(largest({"chain_error/a": 0.1, "chain_error/b": math.nan}, "fp32"))


def test_the_last_step_reports_the_largest_error_of_all_probes(tmp_path: Path) -> None:
    sink, _ = train_collected(tiny("segment", record={"probe_every": 1}), tmp_path)
    probed, final = sink.series("probe"), sink.series("test")
    assert {f"flow/encoder.0.self/{station}" for station in STATIONS} <= probed.keys()
    sites = [name for name in probed if re.fullmatch(r"chain_error/[^/]+", name)]
    of = {
        "fp32": sites,
        "fp32_of_bound": [f"{name}/of_bound" for name in sites],
        "fp64_probes": [f"{name}/fp64" for name in sites],
        "from_loss_fp64": ["chain_error/from_loss/fp64"],
    }
    for kind, names in of.items():
        errors = np.stack([probed[name][1] for name in names])
        assert errors.shape == (len(names), 6)
        assert errors.max() > errors[:, -1].max()  # one that the last probe does not have
        assert final[f"test/chain_error/{kind}"][1].tolist() == [errors.max()]
    assert 0 < final["test/chain_error/fp64_probes"][1].item() <= 1e-10
    assert 0 < final["test/chain_error/fp32_of_bound"][1].item() <= 1


def test_an_error_before_a_resume_counts_after_it_and_one_that_was_not_kept_is_not_known(tmp_path: Path) -> None:
    built = _task("segment")
    before, after = MaxChainError.of(built), MaxChainError.of(built)
    assert before
    assert after
    before.update({"chain_error/a": 0.5, "chain_error/a/of_bound": 0.25, "chain_error/a/fp64": 1e-3})
    after.restore(before.state())
    after.update({"chain_error/a": 0.1, "chain_error/a/of_bound": 0.1, "chain_error/a/fp64": 1e-15})
    assert after.finals() == {
        "chain_error/fp32": 0.5,
        "chain_error/fp32_of_bound": 0.25,
        "chain_error/fp64_probes": 1e-3,
        "chain_error/from_loss_fp64": 0.0,
    }
    after.restore({"error": torch.tensor(0.0)})  # of a checkpoint from before the bound
    after.update({"chain_error/a": 0.1})
    assert all(math.isnan(error) for error in after.finals().values())


def test_a_probe_leaves_gradients_weights_and_random_state_as_they_are(tmp_path: Path) -> None:
    often, _ = train_collected(tiny("segment", record={"probe_every": 1}), tmp_path / "often")
    never, _ = train_collected(tiny("segment", record={"probe_every": 1000}), tmp_path / "never")
    for name, (_, values) in never.series().items():
        if not name.startswith("time/"):
            np.testing.assert_array_equal(often.values(name), values, err_msg=name)


def test_where_nobody_asks_there_is_no_chain(tmp_path: Path) -> None:
    sink, _ = train_collected(tiny("pointer", model={"attention": {"variant": "uniform"}}), tmp_path)
    assert not [name for name in (*sink.series("probe"), *sink.series("test")) if "chain" in name or "flow" in name]


def _exact(task: Chained) -> float:
    return largest(exact_errors(task), "fp64_probes")


def _norm(gradient: Tensor) -> float:
    return float(torch.linalg.vector_norm(gradient))


def test_the_norm_at_pred_is_that_of_the_loss_by_its_output() -> None:
    built = _task("classify")
    logits = built.passed(built.model)[1].detach()
    labels = built.val_labels[: len(logits)]  # type: ignore[attr-defined]
    wanted = (logits.softmax(-1) - nn.functional.one_hot(labels, 10)) / len(logits)
    found = chain(built, built.model)["flow/encoder.0.self/pred"]
    assert float(found) == pytest.approx(_norm(wanted), rel=1e-5)
