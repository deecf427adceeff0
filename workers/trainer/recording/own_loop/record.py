"""Record a user's own training loop: the series of the standalone trainer, in a folder."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workers.protocol import MAX_ITEMS, Notice, Result, Started
from workers.trainer.adapt import attach, attention_notices
from workers.trainer.adapt.attachment import adapted_since
from workers.trainer.adapt.parts import Part
from workers.trainer.attention.sites import describe, parts
from workers.trainer.recording.folder import FolderSink
from workers.trainer.recording.norms import Everything, Norms, total_norm
from workers.trainer.recording.own_loop.columns import Columns
from workers.trainer.recording.own_loop.grad_scale import Listener, is_scaled, listen, unwrapped
from workers.trainer.recording.own_loop.guarded import Guarded
from workers.trainer.recording.own_loop.owners import OtherGradients, Owners
from workers.trainer.recording.own_loop.replaced import Replaced
from workers.trainer.recording.recorder import Recorder

TOTAL = "grad_norm/total"
TRAIN = ("loss/total", "lr", TOTAL)


@dataclass
class Waiting:
    """A row before its optimizer step. `factor` unscales the optimizer's gradients; `unseen` are matrices without a
    gradient."""

    step: int
    loss: Tensor
    lr: Tensor
    norm: Tensor  # of the gradients that the optimizer owns
    others: OtherGradients
    factor: Tensor | None
    unseen: tuple[str, ...]
    gone: tuple[str, ...]  # matrices that the model no longer has
    dropped: bool  # a backward pass ran, and its gradients were dropped
    passes: int  # backward passes before it
    scaled: bool  # a pass has added to the optimizer's gradients since a scaler unscaled them
    stepped: bool = False  # the optimizer has stepped since


class Record:
    """Call it with the loss when gradients are complete and not yet clipped. Each call is a row, numbered by `step` or
    by the calls. The optimizer's next step completes the row; where it is skipped, as by a GradScaler after an
    overflow, the update ratios are 0. Where other optimizers own some of the matrices, the next call completes the row.
    A matrix that changed without a gradient has a norm of NaN, not 0; so has one that the model no longer has. Never
    synchronizes with the device, and never raises."""

    def __init__(
        self, model: nn.Module, recorder: Recorder, optimizer: Any, start_step: int = 0, scaler: Any = None
    ) -> None:
        self.model, self.recorder, self.scaler = model, recorder, scaler
        self.optimizer = unwrapped(optimizer)
        self.norms = Norms(model, Everything())
        self.step = start_step
        self.guarded = Guarded(recorder.log)
        self.device = next(model.parameters()).device
        self._highest = start_step
        self._waiting: Waiting | None = None
        self._warned_late = False
        self._scale: Tensor | None = None  # of the gradients unscaled last
        self._own = {id(each) for group in self.optimizer.param_groups for each in group["params"]}
        self._owners, self._warned_unknown = Owners(model, self._own), False
        names = [*TRAIN, *self.norms.names]
        recorder.open(start_step, names, {}, self.device)
        self._parts = dict(parts(model))
        self._columns = Columns(names, self._parts, self._own, self.device)
        self._replaced, self._gone = Replaced(model, self._parts), tuple[str, ...]()
        self._alone = not others_of(self.optimizer, self._parts)
        self._stop = listen(Listener(self.optimizer, self._unscaled, self._skipped_or_stepped))
        self._hook = self.optimizer.register_step_post_hook(self._stepped) if hooked(self.optimizer) else None
        # Backward passes that have reached the first parameter: all, and those before the last row, step, unscaling.
        self._passes = self._passes_recorded = self._passes_stepped = self._passes_unscaled = 0
        self._counter = self._counted()

    def __call__(self, loss: Tensor | float, step: int | None = None, *, scaler: Any = None) -> None:
        with torch.no_grad():
            self._completed()
            self.guarded.step = self.step
            self.guarded("row", lambda: self._take(loss, step, scaler or self.scaler), None)

    def close(self) -> None:
        for hook in (self._hook, self._counter):
            if hook is not None:
                hook.remove()
        self._stop()
        self._owners.close()
        self._completed()
        self.guarded("row", self._end, None)

    def _take(self, loss: Tensor | float, step: int | None, scaler: Any) -> None:
        now = self.step if step is None else int(step)
        if now < self.step:
            self.guarded.warn(
                f"record was called for step {now} after step {self.step - 1}: rows keep the order of calls"
            )
        self.step, self.guarded.step = now + 1, now
        nothing = torch.full((), math.nan, device=self.device)
        norm, others = self.guarded(TOTAL, self._total, (nothing, OtherGradients.of_nothing(nothing)))
        self.guarded("norm of single matrices", self.norms.before, None)
        total_loss = self.guarded("loss/total", lambda: self._number(loss), nothing)
        lr = self.guarded("lr", lambda: self._number(self.optimizer.param_groups[0]["lr"]), nothing)
        unseen = tuple(name for name, part in self._parts.items() if not part.has_grad)
        gone = self.guarded("check of what is read", self._missing, self._gone)
        factor, dropped = self._factor(scaler), self._comes_late(now)
        scaled = self._scale is not None and self._passes_unscaled < self._passes
        self._waiting = Waiting(now, total_loss, lr, norm, others, factor, unseen, gone, dropped, self._passes, scaled)
        self._passes_recorded = self._passes

    def _missing(self) -> tuple[str, ...]:
        """Matrices that the model no longer has; warns of new ones."""
        gone = self._replaced.now()
        if new := [name for name in gone if name not in self._gone]:
            names = f"{', '.join(new[:3])}{f' and {len(new) - 3} more' if len(new) > 3 else ''}"
            self.guarded.warn(f"from step {self.guarded.step} on there is no {names}: the model has replaced it")
        self._gone = gone
        return gone

    def _comes_late(self, now: int) -> bool:
        """Whether the gradients of the last pass were dropped. Warns if the optimizer has stepped since that pass."""
        passed = self._passes_recorded < self._passes
        if passed and self._passes == self._passes_stepped and not self._warned_late:
            self._warned_late = True
            self.guarded.warn(
                f"record(loss) of step {now} was called after the optimizer's step: its norms are of the remaining "
                "gradients, its update ratios of the next step; call record before the step"
            )
        return passed and all(each.grad is None for group in self.optimizer.param_groups for each in group["params"])

    def _number(self, value: Tensor | float) -> Tensor:
        """A single number on the device."""
        if not isinstance(value, Tensor):
            return torch.full((), float(value), device=self.device)
        if value.numel() != 1:
            raise ValueError(f"a loss must be one number, not a tensor of shape {tuple(value.shape)}")
        return value.detach().to(self.device, torch.float32).reshape(())

    def _total(self) -> tuple[Tensor, OtherGradients]:
        own = [each.grad for each in self.model.parameters() if each.grad is not None and id(each) in self._own]
        return total_norm([each.detach() for each in own]).to(self.device), self._owners.read()

    def _factor(self, scaler: Any) -> Tensor | None:
        """1 ÷ the scale, where a scaler was given and the gradients still have its scale; None: not known yet."""
        if scaler is None or not scaler.is_enabled():
            return None
        self._owners.add_scaler(scaler)
        scale = getattr(scaler, "_scale", None)
        self._scale = scale.detach().clone() if isinstance(scale, Tensor) else self._number(scaler.get_scale())
        return 1 / self._scale if is_scaled(scaler, self.optimizer) else torch.ones_like(self._scale)

    def _unscaled(self, optimizer: Any, scaler: Any, scale: Tensor) -> None:
        """Gradients were just unscaled: a waiting row was measured with this scale."""
        new, row = self._owners.unscaled(optimizer, scaler, self.optimizer), self._waiting
        if new and row is not None:
            row.others.unscaled(new, scale)
        if optimizer is self.optimizer:
            self._scale, self._passes_unscaled = scale, self._passes
            if row is not None and row.factor is None and row.passes == self._passes:
                row.factor = 1 / scale

    def _counted(self) -> Any:
        """Count backward passes at one parameter."""

        def count(_parameter: Tensor) -> None:
            self._passes += 1

        owned = (each for group in self.optimizer.param_groups for each in group["params"])
        first = next((each for each in owned if each.requires_grad and each.is_leaf), None)
        return first.register_post_accumulate_grad_hook(count) if first is not None else None

    def _stepped(self, *_: object) -> None:
        self._passes_stepped = self._passes
        if self._waiting is not None:
            self._waiting.stepped = True
        if self._waiting is not None and self._waiting.passes != self._passes and not self._warned_late:
            self._warned_late = True
            self.guarded.warn(
                f"a backward pass ran between record(loss) of step {self._waiting.step} and the optimizer's step: its "
                "norms are those before that pass, its update ratios those of the step; call record before the step"
            )
        self._skipped_or_stepped()

    def _skipped_or_stepped(self) -> None:
        """Where other optimizers update matrices too, their steps may still follow."""
        if self._alone:
            self._completed()

    def _completed(self) -> None:
        """The optimizer has stepped, or will not: write the waiting row, if there is one."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            with torch.no_grad():
                self.guarded("row", lambda: self._write(waiting), None)

    def _write(self, waiting: Waiting) -> None:
        self.guarded.step = waiting.step
        empty = torch.full((len(self.norms.names),), math.nan, device=self.device)
        matrices = self.guarded("norm of single matrices", self.norms.after, empty).to(self.device)
        row = torch.cat([torch.stack([waiting.loss, waiting.lr, waiting.norm]).float(), matrices])
        row = self._columns.blanked(self._unscale(row, waiting), waiting.unseen)
        self.recorder.train(waiting.step, self._columns.without(row, waiting.gone, norms=waiting.dropped))
        self._highest = max(self._highest, waiting.step)
        self.recorder.complete(self._highest)

    def _unscale(self, row: Tensor, waiting: Waiting) -> Tensor:
        """Unscaled norms, with the norm of all gradients in the place of the optimizer's own."""
        own, others = self._own_factor(waiting), waiting.others
        scale = self._scale if others.scale is None else others.scale
        ambiguous = self._owners.ambiguous(is_scaled=self._scale is not None)
        adapters = math.nan if ambiguous else 1.0 if scale is None else (1 / scale).to(self.device)
        why = ambiguous or self._owners.undetected()
        rest = math.nan if why else adapters
        self._warn_unknown(why, others)
        row[TRAIN.index(TOTAL)] = others.total(waiting.norm.double() * own, rest)
        if scale is None and not others.factors:
            return row
        masks = [(self._columns.owned_by(owner.parameters), factor) for owner, factor in others.factors]
        return self._columns.scaled(row, own, masks, adapters, rest)

    def _own_factor(self, waiting: Waiting) -> Tensor | float:
        if waiting.factor is not None:
            return waiting.factor.to(self.device)
        if waiting.scaled and not waiting.stepped and waiting.others.scale is not None:
            return (1 / waiting.others.scale).to(self.device)  # gradients that accumulate for a later step
        return 1.0

    def _warn_unknown(self, why: str, others: OtherGradients) -> None:
        what = "gradients of another optimizer are NaN: scaled ones were added to unscaled ones" if others.mixed else ""
        if why and others.has_rest:
            what = f"gradients that this optimizer does not own are NaN: {why}"
        if what and not self._warned_unknown:
            self._warned_unknown = True
            self.guarded.warn(f"from step {self.guarded.step} on norms of {what}")

    def _end(self) -> None:
        self.recorder.flush()
        self.recorder.send(Result(step=self.step))


def hooked(optimizer: Any) -> bool:
    return hasattr(optimizer, "_optimizer_step_post_hooks")


def others_of(optimizer: Any, read: Mapping[str, Part]) -> list[str]:
    """Matrices that train but belong to other optimizers."""
    own = {id(each) for group in optimizer.param_groups for each in group["params"]}
    return [name for name, part in read.items() if part.parameter.requires_grad and id(part.parameter) not in own]


def _notices(optimizer: Any, model: nn.Module) -> list[Notice]:
    between = "update ratios cover all updates between two calls of record"
    if not hooked(optimizer):
        return [Notice(kind="update_ratio", text=f"{type(optimizer).__name__} has no step hooks: {between}")]
    if others := others_of(optimizer, dict(parts(model))):
        text = f"{len(others)} matrices belong to other optimizers: {between}"
        return [Notice(kind="update_ratio", text=text, items=others[:MAX_ITEMS])]
    return []


@contextmanager
def recording(
    model: nn.Module, folder: Path | str, optimizer: Any, *, start_step: int = 0, scaler: Any = None
) -> Iterator[Record]:
    """Attach to the model, unless it is attached, and write the series of every step to `folder`, over what is there.
    `optimizer` may be wrapped (accelerate, DeepSpeed, a scheduler). torch's GradScaler is detected; pass any other as
    `scaler`. Raises ValueError where no attention is recognised or `optimizer` is not an optimizer; during training
    nothing is raised."""
    if not describe(model) or adapted_since(model):
        attach(model)
    inner = unwrapped(optimizer)
    if not hasattr(inner, "param_groups"):
        raise ValueError(f"{type(optimizer).__name__} is not an optimizer: it has no param_groups")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    recorder = Recorder(FolderSink(folder), lambda: time.monotonic() - began, fail_on_nan=False)
    count = sum(parameter.numel() for parameter in model.parameters())
    device, notices = str(next(model.parameters()).device), [*attention_notices(model), *_notices(inner, model)]
    recorder.send(Started(device=device, parameters=count, sites=describe(model), notices=notices))
    for notice in notices:
        recorder.log(notice.text)
    record = Record(model, recorder, optimizer, start_step, scaler)
    try:
        yield record
    finally:
        record.close()
