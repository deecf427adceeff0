"""Loops of one's own under `recording`: norms are those that plain torch computes, the loop is unharmed."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from tests.lab import foreign
from workers.trainer.recording import recorder
from workers.trainer.recording.folder import FolderSink
from workers.trainer.recording.own_loop.hf_trainer import recording_trainer
from workers.trainer.recording.own_loop.record import Record, recording
from workers.trainer.tasks.hf.library import transformers

Rows = dict[str, list[float]]
SITE, HEAD = "self_attn", 8  # of `model()`: two heads of 8


def rows(folder: Path) -> Rows:
    with pa.ipc.open_stream(str(folder / "train.arrow")) as reader:
        table = reader.read_all()
    names = table.schema.metadata[b"names"].decode().split("\n")
    values = list(zip(*table["values"].to_pylist(), strict=True))
    return {"step": table["step"].to_pylist(), **{name: list(v) for name, v in zip(names, values, strict=True)}}


def model(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(16, 2, 16, dropout=0.1, batch_first=True, dtype=dtype)


def norms_of(net: nn.Module, scale: float = 1.0) -> dict[str, float]:
    """By hand, in double precision: everything, W_k, and the first head of W_q."""
    grads = [p.grad.to_dense().double() / scale for p in net.parameters() if p.grad is not None]
    fused = next(p.grad for name, p in net.named_parameters() if name.endswith("in_proj_weight"))
    fused = torch.zeros(48, 16) if fused is None else fused
    return {
        "grad_norm/total": math.sqrt(sum(g.square().sum().item() for g in grads)),
        f"grad_norm/{SITE}/W_k": (fused[16:32].double() / scale).norm().item(),
        f"grad_norm/{SITE}/W_q/head.0": (fused[:HEAD].double() / scale).norm().item(),
    }


def same(found: Rows, wanted: list[dict[str, float]]) -> None:
    assert len(found["step"]) == len(wanted)
    for row, told in enumerate(wanted):
        for name, value in told.items():
            assert found[name][row] == pytest.approx(value, rel=1e-6, nan_ok=True), (name, row)


def unharmed(
    train: Callable[[nn.Module, Any], None], optimizer: Callable[..., Any], tmp_path: Path, make: Any = model
) -> Rows:
    """Train with and without a record; the weights are equal to the last bit, and nothing was warned of."""
    ends = []
    for folder in (None, tmp_path):
        net = make()
        steps = optimizer(net.parameters())
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            with recording(net, folder, steps) if folder else nullcontext(lambda *_, **__: None) as record:
                torch.manual_seed(1)
                train(net, (record, steps))
        ends.append(net.state_dict())
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    return rows(tmp_path)


def sgd(parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)


def fused(parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.01, fused=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_norms_in_either_precision_are_those_of_autograd(dtype: torch.dtype, tmp_path: Path) -> None:
    told: list[dict[str, float]] = []

    def train(net: nn.Module, given: Any) -> None:
        record, optimizer = given
        told.clear()
        for _ in range(4):
            optimizer.zero_grad()
            loss = net(torch.randn(2, 5, 16, dtype=dtype)).square().mean()
            loss.backward()
            told.append(norms_of(net) | {"loss/total": loss.item(), "lr": 0.1})
            record(loss)
            nn.utils.clip_grad_norm_(net.parameters(), 0.01)
            optimizer.step()

    found = unharmed(train, sgd, tmp_path, lambda: model(dtype))
    same(found, told)
    assert found["step"] == [0, 1, 2, 3]
    assert max(found[f"update_ratio/{SITE}/W_q"]) > 0


def test_an_update_that_float32_cannot_hold_is_seen_in_float64(tmp_path: Path) -> None:
    net = model(torch.float64)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-12)
    with recording(net, tmp_path, optimizer) as record:
        loss = net(torch.randn(2, 5, 16, dtype=torch.float64)).square().mean()
        loss.backward()
        before = net.self_attn.in_proj_weight[:16].detach().clone()
        record(loss)
        optimizer.step()
    moved = (net.self_attn.in_proj_weight[:16].detach() - before).norm() / before.norm()
    assert rows(tmp_path)[f"update_ratio/{SITE}/W_q"][0] == pytest.approx(moved.item(), rel=1e-5)


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 16, sparse=True)
        self.self_attn = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        out: Tensor = self.self_attn(x, x, x)[0]
        return out


def words() -> nn.Module:
    torch.manual_seed(0)
    return Words()


def test_sparse_gradients_count_each_row_once(tmp_path: Path) -> None:
    told: list[dict[str, float]] = []

    def train(net: nn.Module, given: Any) -> None:
        record, optimizer = given
        told.clear()
        for _ in range(3):
            optimizer.zero_grad()
            loss = net(torch.randint(0, 10, (4, 9))).square().mean()  # words come again
            loss.backward()
            told.append(norms_of(net))
            record(loss)
            optimizer.step()

    same(unharmed(train, sgd, tmp_path, words), told)


def test_a_step_without_gradients_has_norms_of_zero(tmp_path: Path) -> None:
    def train(net: nn.Module, given: Any) -> None:
        record, optimizer = given
        for step in range(2):
            loss = net(torch.randn(2, 5, 16)).square().mean()
            if step:
                loss.backward()
            record(loss)
            optimizer.step()

    found = unharmed(train, sgd, tmp_path)
    for name, values in found.items():
        if "norm/" in name and not name.startswith("weight"):
            assert values[0] == 0
            assert values[1] > 0


@pytest.mark.parametrize("told_the_scaler", [False, True])
@pytest.mark.parametrize("unscaled_first", [False, True])
@pytest.mark.parametrize("optimizer", [sgd, fused])
def test_norms_under_a_grad_scaler_have_no_scale_and_an_overflow_stands_at_its_step(
    optimizer: Any, unscaled_first: bool, told_the_scaler: bool, tmp_path: Path
) -> None:
    told: list[dict[str, float]] = []

    def train(net: nn.Module, given: Any) -> None:
        record, steps = given
        scaler = torch.amp.GradScaler("cpu", growth_interval=2)
        told.clear()
        for step in range(6):
            steps.zero_grad()
            loss = net(torch.randn(2, 5, 16)).square().mean() * (math.inf if step == 2 else 1)
            scaler.scale(loss).backward()
            told.append(norms_of(net, scaler.get_scale()))
            if unscaled_first:
                scaler.unscale_(steps)
            record(loss, scaler=scaler) if told_the_scaler else record(loss)
            scaler.step(steps)
            scaler.update()

    found = unharmed(train, optimizer, tmp_path)
    assert found["step"] == list(range(6))
    assert found["loss/total"][2] == math.inf
    assert not math.isfinite(found["grad_norm/total"][2])
    same({name: values[:2] + values[3:] for name, values in found.items()}, told[:2] + told[3:])
    ratios = found[f"update_ratio/{SITE}/W_q"]
    assert ratios[2] == 0
    assert all(ratio > 0 for ratio in ratios[:2] + ratios[3:])


def test_what_the_optimizer_does_not_own_loses_the_scale_too(tmp_path: Path) -> None:
    net = model()
    own = [p for name, p in net.named_parameters() if "self_attn" not in name]
    optimizer, scaler = sgd(iter(own)), torch.amp.GradScaler("cpu")
    with recording(net, tmp_path, optimizer) as record:
        loss = net(torch.randn(2, 5, 16)).square().mean()
        scaler.scale(loss).backward()
        wanted = norms_of(net, scaler.get_scale())
        scaler.unscale_(optimizer)
        record(loss)
        scaler.step(optimizer)
    same(rows(tmp_path), [wanted])


def test_a_scaler_is_as_it_was_after_the_recording(tmp_path: Path) -> None:
    before = torch.amp.GradScaler.step, torch.amp.GradScaler.unscale_
    net = model()
    with recording(net, tmp_path, sgd(net.parameters())):
        assert torch.amp.GradScaler.step is not before[0]
    assert (torch.amp.GradScaler.step, torch.amp.GradScaler.unscale_) == before


def test_accelerate_is_recorded(tmp_path: Path) -> None:
    accelerate = import_module("accelerate")
    told: list[dict[str, float]] = []
    ends = []
    for folder in (None, tmp_path):
        accelerator = accelerate.Accelerator(gradient_accumulation_steps=2, cpu=True)
        net = model()
        net, optimizer = accelerator.prepare(net, torch.optim.AdamW(net.parameters(), lr=0.01))
        torch.manual_seed(1)
        told.clear()
        with recording(net, folder, optimizer) if folder else nullcontext() as record:
            for _ in range(6):
                with accelerator.accumulate(net):
                    loss = net(torch.randn(2, 5, 16)).square().mean()
                    accelerator.backward(loss)
                    if accelerator.sync_gradients:
                        told.append(norms_of(net))
                        if record:
                            record(loss)
                        accelerator.clip_grad_norm_(net.parameters(), 0.01)
                    optimizer.step()
                    optimizer.zero_grad()
        ends.append(net.state_dict())
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    found = rows(tmp_path)
    same(found, told)
    assert found["step"] == [0, 1, 2]
    assert min(found[f"update_ratio/{SITE}/W_q"]) > 0


def test_accelerates_own_scaler_is_noticed(tmp_path: Path) -> None:
    from accelerate import Accelerator
    from accelerate.optimizer import AcceleratedOptimizer

    Accelerator(cpu=True)
    net, scaler = model(), torch.amp.GradScaler("cpu")
    optimizer = AcceleratedOptimizer(sgd(net.parameters()), device_placement=False, scaler=scaler)
    told = []
    with recording(net, tmp_path, optimizer) as record:
        for step in range(4):
            loss = net(torch.randn(2, 5, 16)).square().mean() * (math.inf if step == 1 else 1)
            scaler.scale(loss).backward()
            told.append(norms_of(net, scaler.get_scale()))
            record(loss)
            optimizer.step()
            optimizer.zero_grad()
    found = rows(tmp_path)
    assert found["step"] == [0, 1, 2, 3]
    assert found["loss/total"][1] == math.inf
    same({name: values[:1] + values[2:] for name, values in found.items()}, told[:1] + told[2:])


@contextmanager
def _heard(trainer: Any, told: list[dict[str, float]]) -> Iterator[None]:
    """The norms where the trainer begins to clip, from its own call."""
    plain = trainer.accelerator.clip_grad_norm_

    def clip(parameters: Any, *args: Any, **kwargs: Any) -> Any:
        net = trainer.model
        grads = [p.grad.double() for p in net.parameters() if p.grad is not None]
        site = "transformer.h.0.attn"
        whole = dict(net.named_parameters())[f"{site}.c_attn.weight"].grad.double()
        total = math.sqrt(sum(grad.square().sum().item() for grad in grads))
        told.append({"grad_norm/total": total, f"grad_norm/{site}/W_k": whole[:, 32:64].norm().item()})
        return plain(parameters, *args, **kwargs)

    trainer.accelerator.clip_grad_norm_ = clip
    yield


def test_the_trainer_of_transformers_is_recorded(tmp_path: Path) -> None:
    library = transformers()
    data = [{"input_ids": torch.randint(3, 40, (8,)), "labels": torch.randint(3, 40, (8,))} for _ in range(24)]
    ends: list[dict[str, Tensor]] = []
    losses: list[float] = []
    told: list[dict[str, float]] = []
    for folder in (None, tmp_path / "rows"):
        torch.manual_seed(0)
        config = library.AutoConfig.for_model("gpt2", n_embd=32, n_layer=1, n_head=4, n_positions=16, **foreign.TOKENS)
        options = library.TrainingArguments(
            output_dir=str(tmp_path / "out"),
            per_device_train_batch_size=2,
            gradient_accumulation_steps=3,
            max_grad_norm=0.05,
            max_steps=4,
            learning_rate=1e-3,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        net = library.AutoModelForCausalLM.from_config(config)
        trainer = library.Trainer(model=net, args=options, train_dataset=data)
        told.clear()
        with recording_trainer(trainer, folder) if folder else nullcontext(), _heard(trainer, told):
            trainer.train()
        ends.append(trainer.model.state_dict())
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        assert "training_step" not in trainer.__dict__
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    found = rows(tmp_path / "rows")
    assert found["step"] == [0, 1, 2, 3]
    same(found, told)
    assert found["loss/total"] == pytest.approx(losses, abs=1e-3)  # the trainer rounds what it logs
    assert min(found["update_ratio/transformer.h.0.attn/W_q"]) > 0


def test_a_closure_makes_a_row_for_each_call(tmp_path: Path) -> None:
    told: list[dict[str, float]] = []

    def train(net: nn.Module, given: Any) -> None:
        record, optimizer = given
        net.eval()
        x = torch.randn(2, 5, 16)
        told.clear()

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = net(x).square().mean()
            loss.backward()
            told.append(norms_of(net))
            record(loss)
            return loss

        for _ in range(2):
            optimizer.step(closure)

    found = unharmed(train, lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3), tmp_path)
    assert len(found["step"]) > 2
    same(found, told)


class Wrapper:
    """As DeepSpeed's and others: steps through what it holds."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def step(self) -> None:
        self.optimizer.step()


@pytest.mark.parametrize("wrap", [Wrapper, lambda own: Wrapper(Wrapper(own)), torch.optim.lr_scheduler.ConstantLR])
def test_wrapped_optimizers_and_schedulers_are_unwrapped(wrap: Callable[..., Any], tmp_path: Path) -> None:
    net = model()
    optimizer = sgd(net.parameters())
    with recording(net, tmp_path, wrap(optimizer)) as record:
        for _ in range(2):
            loss = net(torch.randn(2, 5, 16)).square().mean()
            loss.backward()
            record(loss)
            optimizer.step()
            with torch.no_grad():
                for parameter in net.parameters():  # between two steps, by another hand
                    parameter.mul_(2)
    assert max(rows(tmp_path)[f"update_ratio/{SITE}/W_q"]) < 0.5


def test_an_optimizer_without_hooks_is_recorded_and_said(tmp_path: Path) -> None:
    net = model()

    class Own:
        def __init__(self) -> None:
            self.param_groups = [{"params": list(net.parameters()), "lr": 0.1}]

        @torch.no_grad()
        def step(self) -> None:
            for parameter in net.parameters():
                parameter -= 0.1 * parameter.grad

    optimizer = Own()
    with recording(net, tmp_path, optimizer) as record:
        for _ in range(3):
            net.zero_grad()
            loss = net(torch.randn(2, 5, 16)).square().mean()
            loss.backward()
            record(loss)
            optimizer.step()
    found = rows(tmp_path)
    assert found["step"] == [0, 1, 2]
    assert min(found[f"update_ratio/{SITE}/W_q"]) > 0
    assert "has no step hooks" in (tmp_path / "log.txt").read_text()


def test_rows_stand_under_the_users_own_steps(tmp_path: Path) -> None:
    net = model()
    optimizer = sgd(net.parameters())
    with recording(net, tmp_path, optimizer, start_step=5) as record:
        for step in (None, 10, 20, None, 40):
            loss = net(torch.randn(2, 5, 16)).square().mean()
            loss.backward()
            record(loss, step=step)
            optimizer.step()
        with pytest.warns(RuntimeWarning, match="for step 7 after step 40"):
            record(loss, step=7)
    assert rows(tmp_path)["step"] == [5, 10, 20, 21, 40, 7]


def test_a_matrix_that_moves_without_a_gradient_has_no_norm_rather_than_zero(tmp_path: Path) -> None:
    """As an optimizer does that steps inside the backward pass."""
    net = model()
    optimizer = sgd(net.parameters())
    with recording(net, tmp_path, optimizer) as record:
        loss = net(torch.randn(2, 5, 16)).square().mean()
        record(loss)
        loss.backward()
        optimizer.step()
    found = rows(tmp_path)
    assert math.isnan(found[f"grad_norm/{SITE}/W_q"][0])
    assert math.isnan(found[f"grad_norm/{SITE}/W_q/head.1"][0])
    assert found[f"weight_norm/{SITE}/W_q"][0] > 0


@pytest.mark.parametrize("broken", ["sink", "norms", "loss"])
def test_a_broken_instrument_is_one_warning_and_the_training_goes_on(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left")

    ends = []
    for recorded in (False, True):
        net = model()
        optimizer = sgd(net.parameters())
        torch.manual_seed(1)
        with recording(net, tmp_path, optimizer) if recorded else nullcontext() as record:
            if recorded and broken == "sink":
                monkeypatch.setattr(FolderSink, "__call__", fail)
                monkeypatch.setattr(recorder, "FLUSH_S", 0)
            if isinstance(record, Record) and broken == "norms":
                monkeypatch.setattr(record.norms, "before", fail)
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                for _ in range(4):
                    optimizer.zero_grad()
                    loss = net(torch.randn(2, 5, 16)).square().mean()
                    loss.backward()
                    if record:
                        record(torch.ones(3) if broken == "loss" else loss)
                    optimizer.step()
        ends.append(net.state_dict())
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    told = [str(one.message) for one in warned if "recording:" in str(one.message)]
    assert len(told) == 1
    assert "from step 0 on there is no" in told[0]
    if broken != "sink":
        found = rows(tmp_path)
        assert found["step"] == [0, 1, 2, 3]
        missing = "loss/total" if broken == "loss" else f"grad_norm/{SITE}/W_q"
        assert all(math.isnan(value) for value in found[missing])
        assert all(value > 0 for value in found["grad_norm/total"])


def test_wrong_use_is_refused_before_training_begins(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no attention"), recording(nn.Linear(3, 3), tmp_path, None):
        pass
    with pytest.raises(ValueError, match="not an optimizer"), recording(model(), tmp_path, "adam"):
        pass


def test_nothing_is_raised_where_warnings_are_errors(tmp_path: Path) -> None:
    net = model()
    with warnings.catch_warnings(), recording(net, tmp_path, sgd(net.parameters())) as record:
        warnings.simplefilter("error")
        record(torch.ones(3))
    assert "from step 0 on there is no loss/total" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize("late", [False, True])
def test_a_record_after_the_step_is_told_once(late: bool, tmp_path: Path) -> None:
    """Its update ratios would be those of the next step."""
    net = model()
    optimizer = sgd(net.parameters())
    with warnings.catch_warnings(record=True) as warned, recording(net, tmp_path, optimizer) as record:
        warnings.simplefilter("always")
        for _ in range(4):
            optimizer.zero_grad()
            loss = net(torch.randn(2, 5, 16)).square().mean()
            loss.backward()
            if not late:
                record(loss)
            optimizer.step()
            if late:
                record(loss)
    told = [str(one.message) for one in warned if "call record before the step" in str(one.message)]
    assert len(told) == late
    assert rows(tmp_path)["step"] == [0, 1, 2, 3]


def test_lora_under_the_trainer_of_transformers_is_recorded(tmp_path: Path) -> None:
    library = transformers()
    peft = import_module("peft")
    torch.manual_seed(0)
    data = [{"input_ids": torch.randint(3, 40, (8,)), "labels": torch.randint(3, 40, (8,))} for _ in range(24)]
    config = library.AutoConfig.for_model("gpt2", n_embd=32, n_layer=1, n_head=4, n_positions=16, **foreign.TOKENS)
    plain = library.AutoModelForCausalLM.from_config(config)
    options = library.TrainingArguments(
        output_dir=str(tmp_path / "out"),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_grad_norm=0.05,
        max_steps=4,
        learning_rate=1e-2,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    given = peft.LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True)
    tuned = peft.get_peft_model(plain, given)
    trainer = library.Trainer(model=tuned, args=options, train_dataset=data)
    clipped = trainer.accelerator.clip_grad_norm_
    told: list[dict[str, float]] = []
    site, matrices = "base_model.model.transformer.h.0.attn", ("lora_A", "lora_B")

    def clip(*args: Any, **kwargs: Any) -> Any:
        own = dict(tuned.named_parameters())
        grads = {matrix: own[f"{site}.c_attn.{matrix}.default.weight"].grad.double() for matrix in matrices}
        total = math.sqrt(sum(grad.square().sum().item() for grad in grads.values()))
        norms = {f"grad_norm/{site}/W_qkv/{matrix}": grad.norm().item() for matrix, grad in grads.items()}
        told.append({"grad_norm/total": total, **norms})
        return clipped(*args, **kwargs)

    trainer.accelerator.clip_grad_norm_ = clip
    with recording_trainer(trainer, tmp_path / "rows"):
        trainer.train()
    found = rows(tmp_path / "rows")
    same(found, told)
    for series in ("grad_norm", "update_ratio"):
        assert min(found[f"{series}/{site}/W_q"]) > 0


def test_a_loop_is_recorded_beside_another_package_of_the_name_experiments(tmp_path: Path) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").write_text("raise ImportError('the experiments of somebody else')\n")
    script = tmp_path / "mine.py"
    script.write_text(
        "import sys, torch\n"
        "from workers.trainer.adapt import attach\n"
        "from workers.trainer.recording import recording, recording_trainer\n"
        "model = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)\n"
        "optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n"
        "with recording(model, sys.argv[1], optimizer) as record:\n"
        "    loss = model(torch.randn(2, 4, 16)).square().mean()\n"
        "    loss.backward()\n"
        "    record(loss)\n"
        "    optimizer.step()\n"
        "assert 'experiments' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, str(script), str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "train.arrow").stat().st_size > 0
