"""Parameters that no loss reaches are named and left as they start."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

from tests.lab.collected import Collected, tiny, train_collected
from workers.protocol import Checkpoint, Started
from workers.trainer.attention import Attention
from workers.trainer.recording.recorder import Recorder
from workers.trainer.tasks import registry as tasks
from workers.trainer.tasks.classify import ClassifyTask
from workers.trainer.training.loop import Session


class Spare(ClassifyTask):
    """With a site that nothing asks, a buffer that every training pass moves, dropout, and a layer that is skipped
    at random."""

    def build(self) -> nn.Module:
        model = super().build()
        model.spare = nn.Linear(4, 4)
        model.seldom = nn.Linear(10, 10)
        model.moving = nn.BatchNorm1d(10, affine=False)
        return model

    def logits(self, images: Tensor) -> Tensor:
        logits = nn.functional.dropout(super().logits(images), 0.1, self.model.training)
        seldom: Any = self.model.seldom
        if not self.model.training or torch.rand(()) < 0.5:
            logits = logits + seldom(logits)
        moving: Any = self.model.moving
        normed: Tensor = moving(logits)
        return normed


@pytest.fixture
def spare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tasks.TASKS, "classify", Spare)


@pytest.mark.usefixtures("spare")
def test_weight_decay_leaves_alone_what_no_loss_reaches_and_the_start_names_it(tmp_path: Path) -> None:
    spec = tiny(optimizer={"lr": 0.1, "weight_decay": 0.5, "warmup_steps": 0})
    before = Session(spec, Recorder(Collected(), lambda: 0.0), tmp_path).task.model.get_parameter("spare.weight")
    sink, _ = train_collected(spec, tmp_path)
    after = load_file(sink.of(Checkpoint)[-1].path)["weight/spare.weight"]
    np.testing.assert_array_equal(after, before.detach().numpy())
    notices = sink.of(Started)[0].notices
    assert [(each.kind, each.items) for each in notices] == [("unreached", ["spare.weight", "spare.bias"])]


@pytest.mark.usefixtures("spare")
def test_looking_for_them_changes_neither_buffers_nor_modes_nor_random_numbers(tmp_path: Path) -> None:
    session = Session(tiny(), Recorder(Collected(), lambda: 0.0), tmp_path)
    assert torch.equal(session.task.model.get_buffer("moving.running_mean"), torch.zeros(10))
    assert all(module.training for module in session.task.model.modules())
    drawn = torch.rand(3)
    torch.manual_seed(tiny().seed)
    assert torch.equal(drawn, torch.rand(3))


@pytest.mark.usefixtures("spare")
def test_a_run_with_such_parameters_resumes_to_the_same_bits(tmp_path: Path) -> None:
    whole, _ = train_collected(tiny(), tmp_path / "whole")
    first, _ = train_collected(tiny(), tmp_path / "first", stop_after=3)
    rest, _ = train_collected(tiny(), tmp_path / "rest", checkpoint=Path(first.of(Checkpoint)[-1].path))
    one, other = (load_file(sink.of(Checkpoint)[-1].path) for sink in (whole, rest))
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


@pytest.mark.parametrize("task", ["classify", "segment", "pointer", "roles", "language"])
def test_every_parameter_of_our_own_models_is_reached(task: str, tmp_path: Path) -> None:
    assert not Session(tiny(task), Recorder(Collected(), lambda: 0.0), tmp_path).unreached


def test_an_attention_site_that_nothing_asks_keeps_its_series_at_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SpareSite(ClassifyTask):
        """With a site that runs and whose output nobody reads."""

        def build(self) -> nn.Module:
            model = super().build()
            model.add_module("spare_attention", _another(model))
            model.register_forward_pre_hook(_ask_in_vain)
            return model

    monkeypatch.setitem(tasks.TASKS, "classify", SpareSite)
    sink, _ = train_collected(tiny(record={"update_ratio": True}), tmp_path)
    assert not sink.values("grad_norm/spare/W_q").any()
    assert not sink.values("update_ratio/spare/W_q").any()
    assert "spare_attention.W_q" in sink.of(Started)[0].notices[0].items


def _another(model: nn.Module) -> nn.Module:

    return deepcopy(next(module for module in model.modules() if isinstance(module, Attention)))


def _ask_in_vain(model: nn.Module, given: tuple[Tensor, ...]) -> None:
    site = model.get_submodule("spare_attention")
    site(torch.ones(len(given[0]), 4, 16).to(next(site.parameters())))
