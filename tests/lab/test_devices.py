"""Everything that a run computes stays on its device, and says the same there as on the CPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.lab import foreign
from tests.lab.collected import Collected, tiny, train_collected
from tests.lab.pretend_cuda import STEP_MS, DeviceMixUp, pretend_cuda
from workers.protocol import Checkpoint, Started
from workers.trainer.adapt import attach
from workers.trainer.adapt.evaluating import evaluating
from workers.trainer.adapt.watch import watched
from workers.trainer.nets.tokens import TokenModel
from workers.trainer.recording.own_loop.record import recording
from workers.trainer.recording.recorder import Recorder
from workers.trainer.recording.ring import Ring
from workers.trainer.training.loop import Session

EXEMPT = ("time/", "system/")


def _same(one: Collected, other: Collected) -> None:
    for group in ("train", "eval", "probe", "test"):
        for name, (steps, values) in one.series(group).items():
            if not name.startswith(EXEMPT) and "chain_error" not in name:  # rounding alone
                np.testing.assert_array_equal(other.series(group)[name][0], steps)
                np.testing.assert_allclose(other.series(group)[name][1], values, rtol=1e-5, atol=1e-7, err_msg=name)


def test_what_mixes_devices_fails_here_as_on_a_gpu() -> None:
    with pretend_cuda():
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        assert (there.device, here.device) == (torch.device("cuda", 0), torch.device("cpu"))
        assert (there * 2 + torch.tensor(1.0)).is_cuda  # a single number of the host is allowed
        assert there.view(3, 1).is_cuda
        assert not there.cpu().is_cuda
        assert here.to("cuda").is_cuda
        for mixed in (
            lambda: there + here,
            lambda: torch.stack([there, here]),
            lambda: torch.where(here > 0, there, 0.0),
        ):
            with pytest.raises(DeviceMixUp):
                mixed()
        with pytest.raises(DeviceMixUp):
            there.numpy()
        layer = nn.Linear(3, 2).to("cuda")
        layer(there).sum().backward()
        assert layer.weight.grad is not None
        assert layer.weight.grad.is_cuda


LOOKS: dict[str, Any] = {
    "train": {"steps": 2, "eval_every": 2, "checkpoint_every": 2, "predictions": 1},
    "record": {"probe_every": 2, "maps_every": 2},
}
CUDA = {"device": "cuda"}


@pytest.mark.parametrize(
    "task", ["pointer", "roles", "language", "classify", pytest.param("segment", marks=pytest.mark.slow)]
)
def test_a_whole_run_stays_on_its_device(task: str, tmp_path: Path) -> None:
    """Training, evaluation, pictures, probes, maps, histograms, last scores, checkpoint."""
    plain, _ = train_collected(tiny(task, **LOOKS), tmp_path / "cpu")
    with pretend_cuda() as device:
        there, _ = train_collected(tiny(task, **LOOKS, resources=CUDA), tmp_path / "cuda")
        assert device.operations > 100
    started = there.of(Started)[0]
    assert (started.device, started.device_kind, started.notices) == ("Pretend", "cuda", [])
    _same(plain, there)


@pytest.mark.parametrize("train", [{"precision": "fp16", "accumulate": 2}, {"ema": 0.9, "recompute": True}], ids=str)
def test_ways_of_training_stay_there_and_resume_there(train: dict[str, Any], tmp_path: Path) -> None:
    spec = tiny("pointer", train={"steps": 6, **train}, resources=CUDA)
    with pretend_cuda():
        whole, _ = train_collected(spec, tmp_path / "whole")
        saved = Path(whole.of(Checkpoint)[0].path)
        second, _ = train_collected(spec, tmp_path / "second", checkpoint=saved)
    for name, (steps, values) in second.series().items():
        if not name.startswith(EXEMPT):
            np.testing.assert_array_equal(whole.values(name)[steps], values, err_msg=name)


@pytest.mark.parametrize("make", [foreign.llama, foreign.timm_vit, foreign.multihead])
def test_what_watches_other_models_stays_on_their_device(make: Callable[[], foreign.Made], tmp_path: Path) -> None:
    foreign.transformers()
    with pretend_cuda():
        torch.manual_seed(0)
        with torch.device("cuda"):
            model, loss_of = make()
        found = attach(model)
        assert not found.skipped
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            with recording(model, tmp_path, optimizer) as record:
                for _ in range(2):
                    optimizer.zero_grad()
                    loss = loss_of(model)
                    loss.backward()
                    record(loss)
                    optimizer.step()
        with watched(model, maps=list(found.sites)) as seen, torch.no_grad():
            loss_of(model)
        assert seen.keys() == found.sites.keys()
        assert all(each.entropy.is_cuda for each in seen.values())


def _flags() -> tuple[bool, bool]:
    """Deterministic kernels, and only warned of where there is none."""
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


@pytest.mark.parametrize(("wanted", "inside"), [(True, (True, False)), (False, (False, True))])
def test_training_on_a_gpu_asks_for_kernels_that_repeat_themselves(
    wanted: bool, inside: tuple[bool, bool], tmp_path: Path
) -> None:
    """With `warn_only` the backward passes of fused attention stay as they are (ATen, attention_backward.cu)."""
    told: list[tuple[bool, bool]] = []
    spec = tiny("pointer", train={"steps": 2, "deterministic": wanted}, resources=CUDA)
    with pretend_cuda():
        session = Session(spec, Recorder(Collected(), lambda: 0.0), tmp_path)
        session.task.model.head.register_forward_hook(lambda *_: told.append(_flags()))  # type: ignore[union-attr]
        next(session.task.model.parameters()).register_hook(lambda _grad: told.append(_flags()))
        session.backward(0)
        assert told == [inside, inside]
        session.task.evaluate()
        assert told[2] == (wanted, True)
        assert not torch.backends.cudnn.allow_tf32  # convolutions of fp32 are of fp32


def test_a_gpu_run_whose_operations_cannot_repeat_themselves_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = TokenModel.forward

    def forward(model: TokenModel, *args: Any) -> Tensor:
        logits = plain(model, *args)
        return logits.clone().put_(torch.zeros(1, dtype=torch.long, device=logits.device), logits.flatten()[:1])

    monkeypatch.setattr(TokenModel, "forward", forward)
    with pretend_cuda():
        told, done = train_collected(tiny("pointer", resources=CUDA), tmp_path / "there")
    (notice,) = told.of(Started)[0].notices
    assert notice.kind == "not_deterministic"
    assert notice.text.endswith("put_ does not have a deterministic implementation")
    assert done.step == 6
    on_cpu, _ = train_collected(tiny("pointer"), tmp_path / "here")
    assert not on_cpu.of(Started)[0].notices


def test_the_time_of_a_step_on_a_gpu_is_what_its_stream_took(tmp_path: Path) -> None:
    with pretend_cuda():
        there, _ = train_collected(tiny("pointer", resources=CUDA), tmp_path / "there")
    assert there.values("time/step_ms").tolist() == [STEP_MS] * 6
    here, _ = train_collected(tiny("pointer"), tmp_path / "here")
    assert (here.values("time/step_ms") > 0).all()


def test_rows_have_arrived_when_the_stream_of_their_own_device_has_copied_them() -> None:
    """The current device may be another, whose stream is done at once."""
    with pretend_cuda():
        ring = Ring(2, torch.device("cuda", 0))
        ring.write(0, 0.0, torch.ones(2, device="cuda"))
        taken = ring.take()
    assert taken.done is not None
    assert taken.done.stream == "stream of cuda:0"  # type: ignore[attr-defined]


def test_a_run_that_goes_on_on_another_kind_of_device_says_so(tmp_path: Path) -> None:
    spec = tiny("pointer")
    first, _ = train_collected(spec, tmp_path / "first", stop_after=3)
    saved = Path(first.of(Checkpoint)[-1].path)
    same, _ = train_collected(spec, tmp_path / "same", checkpoint=saved)
    assert not same.of(Started)[0].notices
    with pretend_cuda():
        there, _ = train_collected(spec, tmp_path / "there", checkpoint=saved)
    (notice,) = there.of(Started)[0].notices
    assert notice.kind == "other_device"
    assert "the first 3 steps were trained on cpu and the rest is on cuda" in notice.text


def test_looking_puts_back_the_random_state_of_every_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretend_cuda():
        states = [torch.zeros(1, dtype=torch.uint8), torch.zeros(1, dtype=torch.uint8)]
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[int(device)].clone())
        monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states[int(device)].copy_(state))
        with evaluating(nn.Linear(1, 1)):
            states[1] += 1
        assert [int(state) for state in states] == [0, 0]
