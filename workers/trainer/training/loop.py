"""The training loop, and the session that holds what it needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from experiments.spec import Spec
from experiments.spec.revision import REVISION
from workers.protocol import Notice, Started, StopReason
from workers.trainer.adapt import attention_notices
from workers.trainer.adapt.evaluating import evaluating
from workers.trainer.attention.gradient_chain.max_error import MaxChainError
from workers.trainer.attention.sites import describe, trained, untrained_sites
from workers.trainer.data.digest import digest_of, reading
from workers.trainer.inspection import maps
from workers.trainer.recording import histograms
from workers.trainer.recording.norms import Norms, clip, total_norm
from workers.trainer.recording.probe import probe, probe_names
from workers.trainer.recording.recorder import STEP_MS, NonFinite, Recorder
from workers.trainer.task import Task
from workers.trainer.tasks.hf.config import trained_before
from workers.trainer.tasks.registry import build_task
from workers.trainer.training.accumulate import accumulated
from workers.trainer.training.checkpoint import Stateful, facts_of, load_checkpoint, save_checkpoint
from workers.trainer.training.deterministic import Deterministic
from workers.trainer.training.device import device_name, pinned_device
from workers.trainer.training.ema import EMA
from workers.trainer.training.finite import Finite
from workers.trainer.training.forwards import Forwards
from workers.trainer.training.inherit import checkpoint_notices, inherit
from workers.trainer.training.optimizer import build_optimizer, learning_rate, set_learning_rate
from workers.trainer.training.precision import Precision
from workers.trainer.training.stopwatch import Stopwatch
from workers.trainer.training.unreached import unreached, unreached_notices

WAITING_CHECKPOINTS = 8  # the supervisor removes a file when it has stored it
SCALARS = ("lr", "grad_norm/total", "grad_norm/clip_scale", STEP_MS)


@dataclass(frozen=True)
class Fork:
    """The checkpoint is another run's, with this spec, if still known."""

    parent: Spec | None


@dataclass(frozen=True)
class Outcome:
    """How many steps are done, and why training stopped before the end (None: it did not)."""

    step: int
    stopped: StopReason | None


def train(
    spec: Spec,
    recorder: Recorder,
    should_stop: Callable[[], StopReason | None],
    *,
    scratch: Path,
    checkpoint: Path | None = None,
    fork: Fork | None = None,
) -> Outcome:
    """Train from the start or from a checkpoint. Checkpoints and pictures are written to `scratch`."""
    with trained_before(checkpoint is not None):
        session = Session(spec, recorder, scratch)
    start = session.resume(checkpoint, fork)
    session.open(start)
    for step in range(start, spec.train.steps):
        stopwatch = Stopwatch(session.device)
        lr = session.schedule(step)
        losses = session.backward(step)
        norm = session.total_norm()
        record = session.records(step)
        if record:
            session.norms.before()
        scale = clip(session.gradients, norm, spec.optimizer.clip_norm)
        session.optimizer_step()
        if record:
            session.report(step, losses, (lr, norm, scale), stopwatch)
        session.evaluate_due(step)
        recorder.complete(step)
        stop_reason = should_stop()
        if stop_reason or session.checkpoint_due(step):
            session.save(step, losses["total"])
        if stop_reason and step + 1 < spec.train.steps:
            return Outcome(step + 1, stop_reason)
    return Outcome(spec.train.steps, None)


class Session:
    """What one training run holds: the task, the optimizer, what is measured, and when each is due."""

    def __init__(self, spec: Spec, recorder: Recorder, scratch: Path) -> None:
        self.spec, self.recorder, self.scratch = spec, recorder, scratch
        self.device = pinned_device(spec)
        with reading() as self.inputs:
            self.task: Task = build_task(spec, self.device)
        self.parameters = trained(self.task.model)
        self.optimizer = build_optimizer(spec.optimizer, self.parameters)
        self.norms = Norms(self.task.model, spec.record)
        self.max_error = MaxChainError.of(self.task)
        train, model = spec.train, self.task.model
        untrained = [parameter for name, parameter in model.named_parameters() if name not in self.parameters]
        self.precision = Precision(train, self.device, self.optimizer, untrained)
        self.ema, self.forwards = EMA(train.ema, self.parameters), Forwards(train, model)
        self.stateful: dict[str, Stateful] = {"precision": self.precision, "average": self.ema}
        if self.max_error:
            self.stateful["chain"] = self.max_error
        self.finite = Finite(model, self.device, recorder)
        self.unreached = unreached(self.task, self.parameters)
        self.deterministic = Deterministic(train, self.device)
        self.start_notices = [
            *unreached_notices(list(self.unreached)),
            *self.deterministic.notices(self.task, self.parameters, self.precision),
        ]
        # Gradients are zeroed and kept, so that each has a norm at every step. Without one an optimizer leaves the
        # parameter out, weight decay included.
        unreached_ids = {id(parameter) for parameter in self.unreached.values()}
        for parameter in self.task.model.parameters():
            if parameter.requires_grad and id(parameter) not in unreached_ids:
                parameter.grad = torch.zeros_like(parameter)
        torch.manual_seed(spec.seed)

    @property
    def gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]

    @property
    def finals(self) -> list[str]:
        """Names of the test measures taken after the last step."""
        return [*self.task.finals, *(self.max_error.names if self.max_error else ())] if self.spec.record.finals else []

    def resume(self, checkpoint: Path | None, fork: Fork | None = None) -> int:
        if checkpoint is None:
            return 0
        facts = facts_of(checkpoint)
        self.start_notices += checkpoint_notices(facts, self.inputs, self.device.type, fork is not None)
        if fork is not None:
            step, text = inherit(checkpoint, self.spec, fork.parent, self.task.model, self.optimizer)
            self.recorder.log(text)
            # The average starts at the inherited weights.
            self.stateful["average"] = self.ema = EMA(self.spec.train.ema, self.parameters)
            return step
        step = load_checkpoint(checkpoint, self.spec, self.task.model, self.optimizer, self.stateful, self.inputs)
        for parameter in self.unreached.values():  # an optimizer state: a later batch reached the parameter after all
            if parameter in self.optimizer.state:
                parameter.grad = torch.zeros_like(parameter)
        return step

    def open(self, start: int) -> None:
        model = self.task.model
        count = sum(parameter.numel() for parameter in model.parameters())
        notices = self.notices()
        self.recorder.send(
            Started(
                device=device_name(self.device),
                parameters=count,
                sites=describe(model),
                notices=notices,
                inputs=self.inputs,
                data_digest=digest_of(self.inputs),
                revision=REVISION,
                device_kind=self.device.type,
            )
        )
        for notice in notices:
            self.recorder.log(notice.text)
        losses = [f"loss/{part}" for part in ("total", *self.task.parts)]
        groups = {
            "eval": [f"eval/{name}" for name in self.task.metrics],
            "probe": probe_names(self.task, self.spec.record.per_head),
            "test": [f"test/{name}" for name in self.finals],
        }
        finite = ["loss/total"] if self.precision.skips_overflows else ["loss/total", "grad_norm/total"]
        self.recorder.open(start, [*losses, *SCALARS, *self.norms.names], groups, self.device, finite)
        if names := untrained_sites(model):
            self.recorder.log(f"not trained, so their gradient norms are 0: {', '.join(names)}")

    def notices(self) -> list[Notice]:
        """What a reader of this run's numbers must know."""
        return [*self.start_notices, *attention_notices(self.task.model), *getattr(self.task, "notices", ())]

    def schedule(self, step: int) -> float:
        lr = learning_rate(self.spec.optimizer, step, self.spec.train.steps)
        set_learning_rate(self.optimizer, lr)
        return lr

    def backward(self, step: int) -> Mapping[str, Tensor]:
        """Gradients of the mean over the step, however many micro-batches it has; returns its mean loss terms."""
        self.task.model.zero_grad(set_to_none=False)
        count = self.spec.train.accumulate
        micro_steps = range(step * count, (step + 1) * count)
        sums: dict[str, Tensor] = {}
        for micro_step in micro_steps:
            with self.forwards.swapped(), self.deterministic.passes():
                with self.precision.cast():
                    losses = accumulated(self.task, micro_step, micro_steps)
                self.precision.backward(losses["total"])
            sums = {name: sums.get(name, 0) + value.detach() for name, value in losses.items()}
        self.precision.unscale()
        return sums

    def total_norm(self) -> Tensor:
        """Of all gradients before clipping. Infinite where fp16 is about to skip the step."""
        norm = total_norm(self.gradients, large=False)  # AdamW squares gradients too: larger ones give no step
        if not self.precision.skips_overflows:
            self.finite.observe(norm)
        return norm

    def optimizer_step(self) -> None:
        """Step the optimizer, then update the average."""
        self.ema.update(self.precision.step())

    def records(self, step: int) -> bool:
        return step % self.spec.record.every == 0 or self._last(step)

    def report(
        self, step: int, losses: Mapping[str, Tensor], scalars: tuple[float | Tensor, ...], stopwatch: Stopwatch
    ) -> None:
        stopwatch.stop()
        terms = [losses[name] for name in ("total", *self.task.parts)]
        given = (*scalars, math.nan)  # the stopwatch is read when the row has arrived
        numbers = [value if isinstance(value, Tensor) else _filled(value, self.device) for value in given]
        row = torch.cat([torch.stack([*terms, *numbers]).float(), self.norms.after()])
        self.recorder.train(step, row, stopwatch.milliseconds)

    def evaluate_due(self, step: int) -> None:
        """Evaluate, probe and write maps where they are due and the weights are finite."""
        last = self._last(step)
        measures = (
            (self._probe, last or step % self.spec.record.probe_every == 0),
            (self._write_maps, maps.due(self.spec, step)),
            (self._evaluate, last or (step + 1) % self.spec.train.eval_every == 0),
            (self._finish, last and bool(self.finals)),
        )
        due = [measure for measure, is_due in measures if is_due]
        if due and not self.finite.broken(step):
            for measure in due:
                measure(step)

    def checkpoint_due(self, step: int) -> bool:
        """Not while many earlier checkpoints wait to be stored: more would only fill the disk."""
        due = (step + 1) % self.spec.train.checkpoint_every == 0
        return self._last(step) or (due and len(list(self.scratch.glob("checkpoint-*"))) < WAITING_CHECKPOINTS)

    def save(self, step: int, loss: Tensor) -> None:
        """Flush first: a checkpoint is never ahead of the series. Weights that are not finite are never saved."""
        self.recorder.flush()
        finite = {"loss/total": bool(loss.isfinite()), "grad_norm/total": self.finite.gradients()}
        if self.spec.train.on_nan == "fail" and not all(finite.values()):
            raise NonFinite(step, next(name for name, is_finite in finite.items() if not is_finite))
        if self.finite.broken(step):
            return
        if self._last(step) and (skipped := int(self.precision.skipped)):
            self.recorder.log(f"steps that fp16 skipped in this attempt, since gradients overflowed: {skipped}")
        path = self.scratch / f"checkpoint-{step + 1:08d}.safetensors"
        kept = self.task.model, self.optimizer, self.stateful, self.inputs
        self.recorder.send(save_checkpoint(path, step + 1, self.spec, *kept))

    def _probe(self, step: int) -> None:
        values = probe(self.task, self.spec.record.per_head)
        if self.max_error:
            self.max_error.update(values)
        self.recorder.add("probe", step, values)
        record = self.spec.record
        if record.histograms and histograms.due(step, self.spec.train.steps, record.probe_every):
            self.recorder.send(histograms.write(self.task.model, step, self.scratch))

    def _write_maps(self, step: int) -> None:
        for artifact in maps.write(self.task, self.spec.task, step, self.scratch):
            self.recorder.send(artifact)

    def _finish(self, step: int) -> None:
        with evaluating(self.task.model), self.ema.shown(), trained_before():
            finals = {**self.task.final(), **(self.max_error.finals() if self.max_error else {})}
        self.recorder.add("test", step, {f"test/{name}": value for name, value in finals.items()})

    def _evaluate(self, step: int) -> None:
        with evaluating(self.task.model), self.ema.shown():
            values = self.task.evaluate()
            self.recorder.add("eval", step, {f"eval/{name}": value for name, value in values.items()})
            self.recorder.log(f"step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
            for picture in self.task.draw(self.spec.train.predictions) if self.spec.train.predictions else ():
                self.recorder.send(picture.write(step, self.scratch))

    def _last(self, step: int) -> bool:
        return step + 1 == self.spec.train.steps


def _filled(value: float, device: torch.device) -> Tensor:
    """A scalar created on the device: no copy, no wait."""
    return torch.full((), value, device=device)
