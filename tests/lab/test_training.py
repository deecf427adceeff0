"""Every variant trains, starts where the others start, and sam3-lite learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.spec import parse_spec
from experiments.submissions.presets import presets
from tests.lab.collected import tiny, train_collected
from workers.trainer.attention.sites import initialize_weights
from workers.trainer.attention.variants import VARIANTS
from workers.trainer.nets.classifier import Classifier


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_trains_and_its_loss_falls(tmp_path: Path, variant: str) -> None:
    train = {"steps": 100, "batch_size": 32, "eval_every": 100, "checkpoint_every": 100}
    model = {"attention": {"variant": variant, "init": "xavier"}, "layers": 2, "d_model": 32, "patch": 2, "ffn": 64}
    sink, _ = train_collected(tiny(model=model, train=train, optimizer={"lr": 0.005, "warmup_steps": 10}), tmp_path)
    losses = sink.values("loss/total")
    assert np.isfinite(losses).all()
    least = {"uniform": 0.03}.get(variant, 0.3)  # without any choice of whom to hear, a digit is hard to read
    assert losses[-10:].mean() < losses[:10].mean() - least


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_trains_as_a_segmenter(tmp_path: Path, variant: str) -> None:
    sink, _ = train_collected(tiny("segment", model={"attention": {"variant": variant}}), tmp_path)
    assert np.isfinite(sink.values("loss/total")).all()


def test_two_variants_start_from_equal_weights_wherever_both_have_them() -> None:
    def built(variant: str) -> dict[str, torch.Tensor]:
        spec = tiny(model={"attention": {"variant": variant}})
        model = Classifier(spec.model, side=8, channels=1, classes=10)  # type: ignore[arg-type]
        initialize_weights(model, spec.seed)
        return dict(model.named_parameters())

    full, no_q = built("full"), built("no_q")
    assert set(full) - set(no_q) == {f"encoder.{layer}.self_attention.W_q" for layer in (0, 1)}
    assert all(torch.equal(full[name], value) for name, value in no_q.items())


def test_zeros_teach_attention_nothing(tmp_path: Path) -> None:
    sink, _ = train_collected(tiny(model={"attention": {"init": "zeros"}}), tmp_path)
    assert sink.values("grad_norm/encoder.0.self/W_q").max() == 0
    assert sink.values("update_ratio/encoder.0.self/W_q").max() == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sam3_lite_finds_half_of_a_mask_within_200_steps(tmp_path: Path) -> None:
    raw = presets()["sam3-lite"].spec  # on images of half the side, which a step sees in half the time
    train = {**raw["train"], "steps": 200, "eval_every": 200, "checkpoint_every": 200, "predictions": 0}
    data = {**raw["data"], "canvas": 32, "val_size": 64}
    record = {"probe_every": 200, "finals": False}
    sink, _ = train_collected(parse_spec({**raw, "train": train, "data": data, "record": record}), tmp_path)
    measured = {name: values[-1] for name, (_, values) in sink.series("eval").items()}
    assert measured["eval/mask_iou"] >= 0.45, measured
    assert measured["eval/prompt_iou"] >= 0.45, measured
    losses = sink.values("loss/total")
    assert losses[-10:].mean() < 0.6 * losses[:10].mean()
