"""What an instrument says is a function of the weights and the batch; looking leaves no trace in the training."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from experiments.spec import QuestionSpec, parse_spec
from tests.lab import foreign
from workers.trainer.adapt import attach
from workers.trainer.adapt.evaluating import evaluating
from workers.trainer.adapt.watch import watched
from workers.trainer.entry.answer import answer
from workers.trainer.inspection import maps
from workers.trainer.recording.probe import probe
from workers.trainer.task import Task
from workers.trainer.tasks.registry import build_task

VIT = {
    "task": "hf",
    "data": {"dataset": "digits"},
    "model": {
        "config": {
            "model_type": "vit",
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 32,
            "patch_size": 4,
            "hidden_dropout_prob": 0.3,
            "attention_probs_dropout_prob": 0.3,
        }
    },
}
ROLES = {"task": "roles", "data": {"dataset": "roles"}, "model": {"d_model": 8, "heads": 2, "ffn": 8}}


class Restless(nn.Module):
    """Two layers whose output depends on their mode: dropout, and a BatchNorm that the user has frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 2, 16, dropout=0.3, batch_first=True)
        self.norm = nn.BatchNorm1d(16)
        self.frozen = nn.BatchNorm1d(16).eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.frozen(self.norm(self.layer(x).transpose(1, 2))).transpose(1, 2)


def built(spec: dict[str, Any]) -> Task:
    return build_task(parse_spec(spec), torch.device("cpu"))


def test_a_probe_is_the_same_whatever_the_random_state() -> None:
    task = built(VIT)
    found = []
    for seed in (0, 1, 2):
        torch.manual_seed(seed)
        found.append(probe(task))
        assert task.model.training
    assert found[0] == found[1] == found[2]
    config = task.model.config  # type: ignore[attr-defined]
    for module in task.model.modules():  # the oracle: the same weights in a model that has no dropout
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    config.attention_probs_dropout_prob = 0.0
    for module in task.model.modules():
        if hasattr(module, "dropout_prob"):
            module.dropout_prob = 0.0
    assert probe(task) == found[0]


def _with_dropout(task: Task) -> None:
    """Our own models have none: a plugin's may."""
    for site in [module for module in task.model.modules() if hasattr(module, "W_v")]:
        site.register_forward_pre_hook(
            lambda module, args: (nn.functional.dropout(args[0], 0.3, module.training), *args[1:])
        )


def test_maps_answers_and_chains_of_a_model_with_dropout_are_the_same_whatever_the_random_state(tmp_path: Path) -> None:
    task = built(ROLES)
    _with_dropout(task)
    told = []
    for seed in (0, 1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        probed = probe(task)
        reply = answer(task, "roles", QuestionSpec(sample=0))
        files = [Path(artifact.path) for artifact in maps.write(task, "roles", seed, tmp_path)]
        stored = np.load(files[0])
        told.append((probed, reply, {name: stored[name].tobytes() for name in stored.files}))
        assert torch.equal(torch.get_rng_state(), state)
        assert all(module.training for module in task.model.modules())
    assert any(name.startswith("flow/") for name in told[0][0])
    assert told[0] == told[1] == told[2]


def test_modules_keep_their_modes_their_buffers_and_the_random_state() -> None:
    model = Restless()
    attach(model)
    before = copy.deepcopy(model.state_dict())
    state, modes = torch.get_rng_state(), [module.training for module in model.modules()]
    with torch.no_grad(), watched(model) as seen:
        model(torch.randn(4, 5, 16))
    assert list(seen) == ["layer.self_attn"]
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert not model.frozen.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_models_own_train_and_eval_are_not_called() -> None:
    """An adapter may merge itself into the weights there."""

    class Merging(nn.Linear):
        def train(self, mode: bool = True) -> Merging:
            if hasattr(self, "weight"):
                self.weight.data.mul_(2)
            return super().train(mode)

    model = nn.Sequential(Merging(3, 3))
    before = model[0].weight.clone()
    with evaluating(model):
        assert not model[0].training
    assert model[0].training
    assert torch.equal(model[0].weight, before)


def test_training_after_a_look_is_the_training_without_it() -> None:
    trained = []
    for looked in (False, True):
        torch.manual_seed(0)
        model = Restless()
        attach(model)
        optimizer = torch.optim.AdamW(model.parameters())
        for _ in range(3):
            x = torch.randn(4, 5, 16)
            if looked:
                with torch.no_grad(), watched(model):
                    model(x)
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        trained.append(model.state_dict())
    assert all(torch.equal(value, trained[1][name]) for name, value in trained[0].items())


def test_a_task_trains_on_after_probes_maps_and_evaluations_as_if_there_were_none() -> None:
    found = []
    for looked in (False, True):
        task = built(VIT)
        torch.manual_seed(0)
        losses = []
        for step in range(3):
            loss = task.losses(step)["total"]
            losses.append(loss.item())
            loss.backward()
            with torch.no_grad():
                for parameter in task.model.parameters():
                    if parameter.grad is not None:
                        parameter -= 0.01 * parameter.grad
            if looked:
                probe(task)
                with evaluating(task.model):
                    task.evaluate()
        found.append(losses)
    assert found[0] == found[1]


def test_watching_a_training_step_as_it_is_leaves_dropout_on() -> None:
    model, _ = foreign.bert()
    model.train()
    attach(model)
    with torch.no_grad(), watched(model, as_is=True):
        assert model.training
        one, other = (model(input_ids=torch.arange(3, 9)[None]).last_hidden_state for _ in range(2))
    assert not torch.equal(one, other)
