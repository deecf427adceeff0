"""Losses, the optimizer, the length of a run, what it records and where it executes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from .base import Section
from .question import EXPLORE


class SegmentLoss(Section):
    """Weights of the loss terms of DETR-style prompted segmentation."""

    score: float = Field(2.0, ge=0, le=1000, description="weight of loss/score (whether a query is a match)")
    box_l1: float = Field(5.0, ge=0, le=1000, description="weight of loss/box_l1")
    box_giou: float = Field(2.0, ge=0, le=1000, description="weight of loss/box_giou")
    mask_bce: float = Field(5.0, ge=0, le=1000, description="weight of loss/mask_bce")
    mask_dice: float = Field(5.0, ge=0, le=1000, description="weight of loss/mask_dice")
    presence: float = Field(1.0, ge=0, le=1000, description="weight of loss/presence")
    mask_form: Literal["bce_dice", "l2"] = Field("bce_dice", description="l2: mask_l2 replaces the two mask terms")
    mask_l2: float = Field(25.0, ge=0, le=1000, description="weight of loss/mask_l2, where mask_form is l2")
    aux: bool = Field(True, description="apply box and score losses to every decoder layer")


class Optimizer(Section):
    """The optimizer, its schedule and its clipping."""

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(1e-3, gt=0, le=10, description="peak learning rate")
    weight_decay: float = Field(0.01, ge=0, le=1, description="of weights, not of biases and norms")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's β₁")
    beta2: float = Field(0.999, ge=0, lt=1, description="AdamW's β₂")
    momentum: float = Field(0.0, ge=0, lt=1, description="SGD's momentum")
    warmup_steps: int = Field(100, ge=0, le=1_000_000, description="steps of linear warm-up, at most train.steps")
    schedule: Literal["cosine", "constant", "linear", "inverse_sqrt", "step"] = Field(
        "cosine", description="after the warm-up"
    )
    drop_every: int = Field(1000, ge=1, le=10_000_000, description="steps between drops, for the schedule 'step'")
    drop_factor: float = Field(0.1, gt=0, lt=1, description="factor of a drop, for the schedule 'step'")
    clip_norm: float | None = Field(0.1, gt=0, le=1e6, description="largest total gradient norm; null turns it off")


class Train(Section):
    """Length, batch size, and the intervals of evaluations and checkpoints."""

    steps: int = Field(1000, ge=1, le=10_000_000, description="optimizer steps")
    batch_size: int = Field(16, ge=1, le=4096)
    accumulate: int = Field(1, ge=1, le=256, description="micro-batches per optimizer step")
    eval_every: int = Field(100, ge=1, le=10_000_000, description="steps between evaluations")
    checkpoint_every: int = Field(100, ge=1, le=10_000_000, description="steps between checkpoints")
    predictions: int = Field(8, ge=0, le=64, description="validation samples drawn at each evaluation")
    on_nan: Literal["fail", "record"] = Field(
        "fail", description="when a loss, gradient norm or weight is not finite: fail ends the run; record continues it"
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="bf16 and fp16: autocast")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of the weights' EMA, which is evaluated")
    recompute: bool = Field(False, description="gradient checkpointing: compute layers twice to save memory")
    compile: bool = Field(False, description="torch.compile for the training passes; needs a C++ compiler")
    deterministic: bool = Field(True, description="use only kernels that repeat bit for bit, where torch has them")


class Record(Section):
    """What the recorder stores. Losses and gradient norms are stored at every recorded step."""

    every: int = Field(1, ge=1, le=10_000, description="steps between recorded points")
    per_head: bool = Field(True, description="a gradient norm for each head, besides that of the whole matrix")
    update_ratio: bool = Field(True, description="‖ΔW‖/‖W‖ of the optimizer step, per matrix")
    weight_norm: bool = Field(True, description="‖W‖ per matrix")
    probe_every: int = Field(100, ge=1, le=10_000_000, description="steps between probes of explicit attention")
    histograms: bool = Field(True, description="histograms of gradients and weights, at up to 64 probes")
    finals: bool = Field(True, description="evaluate the trained model on the test split after the last step")
    maps_every: int | None = Field(
        None, ge=0, le=10_000_000, description="steps between maps; null: some probes; 0: none"
    )


class Resources(Section):
    """Where the run may execute. Threads are part of the spec, since results depend on them bit for bit."""

    pool: str = Field("cpu", pattern=r"^[a-z0-9][a-z0-9.-]{0,30}$", description="pool whose queue the run joins")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gpus: int = Field(0, ge=0, le=1, description="GPUs the run needs")
    threads: int = Field(2, ge=1, le=64, description="CPU threads of the trainer")
    max_minutes: float | None = Field(
        None, gt=0, le=1_000_000, description="wall-clock time of all attempts; null: no limit"
    )
    max_memory_mb: int | None = Field(None, ge=64, le=100_000_000, description="resident memory; null: no limit")

    @field_validator("pool")
    @classmethod
    def _is_for_runs(cls, pool: str) -> str:
        if pool == EXPLORE:
            raise PydanticCustomError("reserved", "the pool 'explore' is for inspections and takes no runs")
        return pool
