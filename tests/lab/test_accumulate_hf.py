"""The task `hf`: accumulated micro-batches have the gradients of one batch, whose loss is written out here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.spec import SegmentLoss, parse_spec
from tests.lab import foreign
from tests.lab.collected import Collected
from tests.lab.test_hf import DIGITS, GPT2, TEXT, VIT, raw
from workers.trainer.data.order import batch_indices
from workers.trainer.recording.recorder import Recorder
from workers.trainer.tasks.hf.sam3 import find
from workers.trainer.training.loop import Session

STEP = 16
SCENES = {"dataset": "scenes", "train_size": 64, "val_size": 8}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "scenes": (SCENES, foreign.SAM3),
    "digits": (DIGITS, VIT),
    "text": (TEXT, GPT2),
}


@pytest.fixture(autouse=True)
def _in_double_precision() -> Iterator[None]:
    with patch.object(Tensor, "float", Tensor.double):
        yield
    torch.set_default_dtype(torch.float32)


def _session(case: str, batch: int, scratch: Path) -> Session:
    data, config = CASES[case]
    train = {"steps": 3, "batch_size": batch, "accumulate": STEP // batch, "predictions": 0}
    session = Session(parse_spec(raw(data, config, train=train)), Recorder(Collected(), lambda: 0.0), scratch)
    torch.set_default_dtype(torch.float64)
    session.task.model.double().eval()  # SAM 3 drops out at random, another thing in each forward pass
    session.task.model.register_forward_pre_hook(_widened, with_kwargs=True)
    for parameter in session.task.model.parameters():
        parameter.grad = None if parameter.grad is None else torch.zeros_like(parameter)
    return session


def _widened(_model: nn.Module, _args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    def wide(value: Any) -> Any:
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    return (), {name: wide(value) for name, value in given.items()}


def _gradients(session: Session) -> dict[str, Tensor]:
    return {name: each.grad.clone() for name, each in session.task.model.named_parameters() if each.grad is not None}


def _close(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    scale = max(float(each.abs().max()) for each in wanted.values())
    assert found.keys() == wanted.keys()
    assert scale > 1e-3
    for name, gradient in found.items():
        assert float((gradient - wanted[name]).abs().max()) <= 1e-10 * scale, name


@pytest.mark.parametrize("case", CASES)
def test_sixteen_in_one_batch_in_four_and_in_sixteen_have_one_gradient(case: str, tmp_path: Path) -> None:
    whole = _session(case, STEP, tmp_path)
    total = whole.backward(1)["total"].item()
    for batch in (4, 1):
        torch.set_default_dtype(torch.float32)  # the model begins in it
        cut = _session(case, batch, tmp_path)
        assert cut.backward(1)["total"].item() == pytest.approx(total, rel=1e-10)
        _close(_gradients(cut), _gradients(whole))


def test_the_gradient_of_four_by_four_is_that_of_the_loss_written_out(tmp_path: Path) -> None:
    session = _session("scenes", 4, tmp_path)
    found = session.backward(1)["total"].item()
    task: Any = session.task
    rows = batch_indices(session.spec.seed, STEP, STEP, task.training.size).tolist()  # of step 1
    batch = task.training.batch(rows)
    tokens, token_mask = task.words(task.training, rows, batch)
    heads = find(task.model, batch.images, tokens, token_mask, task.side)
    loss = written_out(heads, batch, session.spec.loss)  # type: ignore[union-attr]
    assert loss.item() == pytest.approx(found, rel=1e-10)
    kept = {name: each for name, each in task.model.named_parameters() if each.grad is not None}
    grads = torch.autograd.grad(loss, list(kept.values()), allow_unused=True)
    wanted = {name: torch.zeros_like(kept[name]) if g is None else g for name, g in zip(kept, grads, strict=True)}
    _close(_gradients(session), wanted)


def written_out(heads: Any, batch: Any, weights: SegmentLoss) -> Tensor:
    """DETR's loss pair by pair, as the notes of a paper would have it: every term the mean over what it counts."""
    scores, l1, giou, bce, dice, presence = ([] for _ in range(6))
    masks = heads.all_masks()
    layers, images, queries = heads.scores.shape
    for layer in range(layers):
        for image in range(images):
            targets = [batch.boxes[image, place].double() for place in range(int(batch.valid[image].sum()))]
            answers = heads.presence[layer, image]
            presence.append(F.softplus(-answers) if targets else F.softplus(answers))
            if not targets:
                continue
            boxes, logits = heads.boxes[layer, image], heads.scores[layer, image]
            far = [[(box - target).abs().sum() for target in targets] for box in boxes]
            over = [[_giou(box, target) for target in targets] for box in boxes]
            cost = np.array(
                [
                    [
                        5 * far[q][t].item() - 2 * over[q][t].item() + F.softplus(-logits[q]).item()
                        for t in range(len(targets))
                    ]
                    for q in range(queries)
                ]
            )
            pairs = list(zip(*linear_sum_assignment(cost), strict=True))
            matched = {q for q, _ in pairs}
            scores += [F.softplus(-logits[q]) if q in matched else F.softplus(logits[q]) for q in range(queries)]
            for q, t in pairs:
                l1.append(far[q][t])
                giou.append(1 - over[q][t])
                if layer == layers - 1:
                    told, truth = masks[image, q], batch.masks[image, t].double()
                    share = 1 / (1 + (-told).exp())
                    bce.append(-(truth * share.log() + (1 - truth) * (1 - share).log()).mean())
                    dice.append(1 - (2 * (share * truth).sum() + 1) / (share.sum() + truth.sum() + 1))
    terms = {"score": scores, "box_l1": l1, "box_giou": giou, "mask_bce": bce, "mask_dice": dice, "presence": presence}
    return sum((getattr(weights, name) * sum(values) / len(values) for name, values in terms.items()), torch.zeros(()))


def _giou(a: Tensor, b: Tensor) -> Tensor:
    (ax, ay, aw, ah), (bx, by, bw, bh) = a, b
    left, right = torch.maximum(ax - aw / 2, bx - bw / 2), torch.minimum(ax + aw / 2, bx + bw / 2)
    top, bottom = torch.maximum(ay - ah / 2, by - bh / 2), torch.minimum(ay + ah / 2, by + bh / 2)
    inner = (right - left).clamp(min=0) * (bottom - top).clamp(min=0)
    union = aw * ah + bw * bh - inner
    width = torch.maximum(ax + aw / 2, bx + bw / 2) - torch.minimum(ax - aw / 2, bx - bw / 2)
    height = torch.maximum(ay + ah / 2, by + bh / 2) - torch.minimum(ay - ah / 2, by - bh / 2)
    return inner / union - (width * height - union) / (width * height)
