"""The recorded series: complete, and the numbers plain PyTorch finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from experiments.spec import ClassifySpec
from tests.lab.collected import Collected, tiny, train_collected
from workers.protocol import Checkpoint, Flush, Started
from workers.trainer.attention.sites import initialize_weights
from workers.trainer.data.images import digits
from workers.trainer.data.order import batch_indices
from workers.trainer.nets.classifier import Classifier
from workers.trainer.recording.recorder import NonFinite

NAMES = ("W_q", "W_k", "W_v", "W_o")
Norms = dict[str, list[float]]


def _plain_pytorch(spec: ClassifySpec) -> Norms:
    """The same training written out with nothing of ours but the model: autograd, clip_grad_norm_, AdamW."""
    torch.set_num_threads(1)
    model = Classifier(spec.model, side=8, channels=1, classes=10)
    initialize_weights(model, spec.seed)
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": spec.optimizer.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=spec.optimizer.lr, foreach=False, fused=False)
    images, labels = digits.digits()
    rows, _ = digits.split(spec.data.val_share)
    size = spec.train.batch_size
    x, y = torch.from_numpy(images[rows]).unsqueeze(1), torch.from_numpy(labels[rows])
    found: Norms = {}
    for step in range(spec.train.steps):
        optimizer.zero_grad()
        for micro in range(step * spec.train.accumulate, (step + 1) * spec.train.accumulate):
            at = torch.from_numpy(batch_indices(spec.seed, micro * size, size, len(y)))
            (F.cross_entropy(model(x[at]), y[at]) / spec.train.accumulate).backward()
        _measure(model, spec.model.heads, found)
        weights = {name: p.detach().clone() for name, p in model.named_parameters()}
        total = torch.nn.utils.clip_grad_norm_(model.parameters(), spec.optimizer.clip_norm or float("inf"))
        found.setdefault("grad_norm/total", []).append(total.item())
        optimizer.step()
        for site in range(spec.model.layers):
            for name in NAMES:
                new = getattr(model.encoder[site].self_attention, name).detach()
                old = weights[f"encoder.{site}.self_attention.{name}"]
                at_name = f"encoder.{site}.self/{name}"
                found.setdefault(f"update_ratio/{at_name}", []).append(((new - old).norm() / old.norm()).item())
                found.setdefault(f"weight_norm/{at_name}", []).append(new.norm().item())
    return found


def _measure(model: Classifier, heads: int, found: Norms) -> None:
    """Norms of each matrix's gradient and of each head's slice, one at a time, before clipping."""
    for site, layer in enumerate(model.encoder):
        for name in NAMES:
            gradient = getattr(layer.self_attention, name).grad
            width = gradient.shape[0] // heads
            key = f"grad_norm/encoder.{site}.self/{name}"
            found.setdefault(key, []).append(gradient.norm().item())
            for head in range(heads):
                columns = slice(head * width, (head + 1) * width)
                part = gradient[columns] if name == "W_o" else gradient[:, columns]
                found.setdefault(f"{key}/head.{head}", []).append(part.norm().item())


@pytest.mark.parametrize("accumulate", [1, 3])
def test_gradient_norms_are_those_that_plain_pytorch_finds(tmp_path: Path, accumulate: int) -> None:
    optimizer = {"schedule": "constant", "warmup_steps": 0}
    spec = tiny(train={"accumulate": accumulate}, model={"attention": {"init_std": 0.1}}, optimizer=optimizer)
    assert isinstance(spec, ClassifySpec)
    sink, _ = train_collected(spec, tmp_path)
    expected = _plain_pytorch(spec)
    recorded = {name for name in sink.series() if name.startswith(("grad_norm/", "update_ratio/", "weight_norm/"))}
    assert recorded - {"grad_norm/clip_scale"} == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(sink.values(name), values, rtol=1e-5, err_msg=name)
    scale = np.minimum(1, 0.1 / np.array(expected["grad_norm/total"]))
    np.testing.assert_allclose(sink.values("grad_norm/clip_scale"), scale, rtol=1e-4)


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_squared_head_norms_add_up_to_the_squared_matrix_norm(tmp_path: Path, task: str) -> None:
    sink, _ = train_collected(tiny(task), tmp_path)
    [started] = sink.of(Started)
    assert started.sites
    for site in started.sites:
        assert site.matrices
        for matrix in site.matrices:
            whole = sink.values(f"grad_norm/{site.name}/{matrix}").astype(np.float64)
            heads = [sink.values(f"grad_norm/{site.name}/{matrix}/head.{head}") for head in range(site.heads)]
            np.testing.assert_allclose(np.square(np.float64(heads)).sum(0), whole**2, rtol=1e-5)


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_every_series_has_one_value_at_every_step(tmp_path: Path, task: str) -> None:
    spec = tiny(task, train={"steps": 7})
    sink, outcome = train_collected(spec, tmp_path)
    assert outcome.step == 7
    assert {"loss/total", "grad_norm/total"} < sink.series("train").keys()
    for name, (steps, values) in sink.series("train").items():
        assert steps.tolist() == list(range(7)), name
        assert np.isfinite(values).all(), name
    assert sink.series("eval")["eval/loss"][0].tolist() == [2, 5, 6]
    probed = sink.series("probe")
    assert next(iter(probed.values()))[0].tolist() == [0, 2, 4, 6]
    assert all(np.isfinite(values).all() for _, values in probed.values())


def test_the_sites_of_sam3_lite_have_their_names_and_all_three_gradients(tmp_path: Path) -> None:
    sink, _ = train_collected(tiny("segment", train={"steps": 2}), tmp_path)
    names = {site.name for site in sink.of(Started)[0].sites}
    layers = {f"decoder.{layer}.{kind}" for layer in (0, 1) for kind in ("self", "text", "image")}
    assert names == {"text.0.self", "encoder.0.self", "encoder.0.text"} | layers
    one_word = {site for site in names if site.startswith("text.") or site.endswith(".text")}
    for site in names:  # a prompt of one word leaves W_q and W_k of the text sites nothing to choose
        matrices = ("W_v", "W_o") if site in one_word else NAMES
        assert all(sink.values(f"grad_norm/{site}/{matrix}").min() > 0 for matrix in matrices), site


def test_coarser_recording_keeps_its_grid_and_the_last_step(tmp_path: Path) -> None:
    sink, _ = train_collected(tiny(train={"steps": 8}, record={"every": 3, "per_head": False}), tmp_path)
    assert sink.series()["loss/total"][0].tolist() == [0, 3, 6, 7]
    assert not any("head." in name for name in sink.series())


def test_flushes_cover_the_run_without_gap_and_reach_each_checkpoint_first(tmp_path: Path) -> None:
    sink, _ = train_collected(tiny(), tmp_path)
    reached = 0
    for message in sink.messages:
        if isinstance(message, Flush):
            assert message.lo == reached
            reached = message.hi
        if isinstance(message, Checkpoint):
            assert message.step == reached
    assert reached == 6


def exploding(**train: object) -> dict[str, Any]:
    return {
        "optimizer": {"name": "sgd", "lr": 10.0, "clip_norm": None, "warmup_steps": 0},
        "model": {"attention": {"init_std": 1.0, "scale": "none"}},
        "train": {"steps": 60, "eval_every": 60, "checkpoint_every": 60, **train},
    }


def test_a_loss_that_breaks_ends_the_run_at_that_step_and_the_break_is_recorded(tmp_path: Path) -> None:
    spec = tiny(**exploding())
    sink = Collected()
    with pytest.raises(NonFinite) as caught:
        _train_into(sink, spec, tmp_path)
    steps, values = sink.series()["loss/total"]
    assert steps[-1] == caught.value.step
    assert not np.isfinite(values[-1])
    assert np.isfinite(values[:-1]).all()
    assert not sink.of(Checkpoint)


def test_a_run_may_go_on_recording_a_broken_loss(tmp_path: Path) -> None:
    sink, outcome = train_collected(tiny(**exploding(on_nan="record")), tmp_path)
    assert outcome.step == 60
    steps, values = sink.series()["loss/total"]
    assert steps.tolist() == list(range(60))
    assert np.isnan(values).any()


def _train_into(sink: Collected, spec: object, scratch: Path) -> None:
    from workers.trainer.recording.recorder import Recorder
    from workers.trainer.training.loop import train

    train(spec, Recorder(sink, lambda: 0.0), lambda: None, scratch=scratch)  # type: ignore[arg-type]


def test_a_frozen_matrix_stays_and_still_shows_its_gradient(tmp_path: Path) -> None:
    sink, _ = train_collected(tiny(model={"attention": {"frozen": ["W_q"]}}), tmp_path)
    site = "encoder.0.self"
    assert sink.values(f"update_ratio/{site}/W_q").max() == 0
    assert sink.values(f"update_ratio/{site}/W_k").min() > 0
    assert sink.values(f"grad_norm/{site}/W_q").min() > 0
    total = sink.values("grad_norm/total")
    assert (total > 0).all()
