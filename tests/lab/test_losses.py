"""Matching and losses against definitions written out one pair at a time."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from workers.trainer.tasks.segment.boxes import iou_and_giou
from workers.trainer.tasks.segment.losses import box_losses, mask_losses, presence_loss, score_loss
from workers.trainer.tasks.segment.matcher import Matches, cost_matrix, match
from workers.trainer.tasks.segment.measures import chosen_queries, mask_iou

Box = tuple[float, float, float, float]


def _boxes(*shape: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, 4, generator=random) * torch.tensor([1, 1, 0.5, 0.5]) + torch.tensor([0, 0, 0.05, 0.05])


def _edges(box: Tensor) -> Box:
    x, y, width, height = box.tolist()
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _by_hand(a: Tensor, b: Tensor) -> tuple[float, float]:
    """IoU and GIoU of one pair, from the paper's definition."""
    one, two = _edges(a), _edges(b)
    inner = _area((max(one[0], two[0]), max(one[1], two[1]), min(one[2], two[2]), min(one[3], two[3])))
    outer = _area((min(one[0], two[0]), min(one[1], two[1]), max(one[2], two[2]), max(one[3], two[3])))
    union = _area(one) + _area(two) - inner
    return inner / union, inner / union - (outer - union) / outer


def test_iou_and_giou_are_those_of_the_definition() -> None:
    a, b = _boxes(40), _boxes(40, seed=1)
    iou, giou = iou_and_giou(a, b)
    for row in range(40):
        assert (iou[row].item(), giou[row].item()) == pytest.approx(_by_hand(a[row], b[row]), abs=1e-5)


def test_the_matcher_finds_the_cheapest_assignment_of_all() -> None:
    layers, images, queries, targets = 2, 3, 5, 3
    scores = torch.randn(layers, images, queries, generator=torch.Generator().manual_seed(2))
    boxes, wanted = _boxes(layers, images, queries), _boxes(images, targets, seed=3)
    valid = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])
    pairs = match(scores, boxes, wanted, valid)
    costs = cost_matrix(scores, boxes, wanted)
    for layer, image in itertools.product(range(layers), range(images)):
        count = int(valid[image].sum())
        mine = (pairs.layers == layer) & (pairs.rows == image)
        assert sorted(pairs.targets[mine].tolist()) == list(range(count))
        assert len(set(pairs.queries[mine].tolist())) == count
        found = costs[layer, image, pairs.queries[mine], pairs.targets[mine]].sum().item()
        orders = itertools.permutations(range(queries), count)
        best = min(sum(costs[layer, image, q, t].item() for t, q in enumerate(order)) for order in orders)
        assert found == pytest.approx(best, abs=1e-5)


def test_the_cost_of_a_pair_is_its_weighted_sum() -> None:
    scores, boxes, wanted = torch.randn(1, 1, 2), _boxes(1, 1, 2), _boxes(1, 1, seed=4)
    cost = cost_matrix(scores, boxes, wanted)
    for query in range(2):
        found, target = boxes[0, 0, query], wanted[0, 0]
        l1 = sum(abs(a - b) for a, b in zip(found.tolist(), target.tolist(), strict=True))
        share = 1 / (1 + math.exp(-scores[0, 0, query].item()))
        expected = 5 * l1 - 2 * _by_hand(found, target)[1] - math.log(share)
        assert cost[0, 0, query, 0].item() == pytest.approx(expected, abs=1e-5)


def test_box_losses_are_means_over_pairs() -> None:
    a, b = _boxes(6), _boxes(6, seed=5)
    l1, giou = box_losses(a, b)
    assert l1.item() == pytest.approx((a - b).abs().sum().item() / 6, rel=1e-5)
    assert giou.item() == pytest.approx(sum(1 - _by_hand(a[i], b[i])[1] for i in range(6)) / 6, abs=1e-5)


def test_mask_losses_are_cross_entropy_and_dice() -> None:
    logits = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(6))
    wanted = (torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(7)) < 0.5).float()
    bce, dice = mask_losses(logits, wanted)
    assert bce.item() == pytest.approx(F.binary_cross_entropy(logits.sigmoid(), wanted).item(), rel=1e-5)
    shares = logits.sigmoid()
    each = [1 - (2 * (shares[i] * wanted[i]).sum() + 1) / (shares[i].sum() + wanted[i].sum() + 1) for i in range(3)]
    assert dice.item() == pytest.approx(float(sum(each)) / 3, rel=1e-5)


def test_a_perfect_answer_costs_almost_nothing() -> None:
    wanted = torch.zeros(1, 8, 8)
    wanted[0, 2:5, 2:6] = 1
    bce, dice = mask_losses((wanted * 2 - 1) * 30, wanted)
    box = _boxes(1)
    l1, giou = box_losses(box, box)
    assert max(bce.item(), dice.item(), l1.item(), giou.item()) < 1e-4


def test_scores_are_judged_only_where_the_prompt_names_something() -> None:
    scores = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(8), requires_grad=True)
    index = torch.tensor
    pairs = Matches(index([0, 1]), index([0, 0]), index([1, 2]), index([0, 0]))
    loss = score_loss(scores, pairs, torch.tensor([True, False]))
    wanted = torch.tensor([[0.0, 1, 0], [0, 0, 1]])
    assert loss.item() == pytest.approx(F.binary_cross_entropy(scores[:, 0].sigmoid(), wanted).item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert gradient[:, 1].abs().max() == 0
    assert gradient[:, 0].abs().min() > 0


def test_losses_of_a_batch_without_any_target_are_zero_and_differentiable() -> None:
    none = torch.zeros(0, dtype=torch.long)
    pairs = Matches(none, none, none, none)
    scores = torch.randn(2, 3, 4, requires_grad=True)
    masks = torch.zeros(0, 4, 4, requires_grad=True)
    boxes = torch.zeros(0, 4, requires_grad=True)
    total = score_loss(scores, pairs, torch.zeros(3, dtype=torch.bool))
    total = total + sum(box_losses(boxes, torch.zeros(0, 4))) + sum(mask_losses(masks, torch.zeros(0, 4, 4)))
    assert total.item() == 0
    total.backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()


def test_presence_is_asked_of_every_layer() -> None:
    logits = torch.tensor([[2.0, -1.0], [0.5, 0.0]])
    present = torch.tensor([True, False])
    expected = F.binary_cross_entropy(logits.sigmoid(), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    assert presence_loss(logits, present).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_best_query_counts_even_when_none_is_sure() -> None:
    scores = torch.tensor([[-3.0, -1.0, -2.0], [1.0, 2.0, -1.0]])
    assert chosen_queries(scores).tolist() == [[False, True, False], [True, True, False]]


def test_mask_iou_of_known_squares() -> None:
    a, b = torch.zeros(1, 4, 4, dtype=torch.bool), torch.zeros(1, 4, 4, dtype=torch.bool)
    a[0, :2], b[0, 1:3] = True, True
    assert mask_iou(a, b).item() == pytest.approx(1 / 3)
