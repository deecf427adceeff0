"""Hungarian matching of queries to targets, for all layers and images at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from workers.trainer.tasks.segment.boxes import iou_and_giou

DEAREST = 1e9  # replaces a cost that is not finite, so that there still is an assignment
SCORE_COST, L1_COST, GIOU_COST = 1.0, 5.0, 2.0


@dataclass(frozen=True)
class Matches:
    """n matched pairs: the decoder layer, the image, the query and the target of each."""

    layers: Tensor
    rows: Tensor
    queries: Tensor
    targets: Tensor

    def last(self, layers: int) -> Matches:
        """Those of the last layer."""
        keep = self.layers == layers - 1
        return Matches(self.layers[keep], self.rows[keep], self.queries[keep], self.targets[keep])


@torch.no_grad()
def match(scores: Tensor, boxes: Tensor, targets: Tensor, valid: Tensor) -> Matches:
    """Cheapest one-to-one assignment. scores L, B, Q; boxes L, B, Q, 4; targets B, G, 4; valid B, G.
    Costs one copy to the host, since the assignment is solved there."""
    costs = np.nan_to_num(cost_matrix(scores, boxes, targets).cpu().numpy(), nan=DEAREST, posinf=DEAREST)
    counts = valid.sum(1).tolist()  # real targets come first
    matches = [np.zeros((4, 0), np.int64)]
    for layer, row in np.ndindex(costs.shape[:2]):
        if count := counts[row]:
            queries, chosen = linear_sum_assignment(costs[layer, row, :, :count])
            matches.append(np.stack([np.full_like(queries, layer), np.full_like(queries, row), queries, chosen]))
    pairs = np.concatenate(matches, 1)
    return Matches(*torch.from_numpy(pairs).to(scores.device))


def cost_matrix(scores: Tensor, boxes: Tensor, targets: Tensor) -> Tensor:
    """L, B, Q, G: a high score, near edges and much overlap cost little. The score's cost is −log p: while boxes are
    alike, a slightly preferred query stays matched, so its score can grow."""
    boxes, targets = boxes.unsqueeze(-2), targets[None, :, None]
    l1 = (boxes - targets).abs().sum(-1)
    _, giou = iou_and_giou(boxes, targets)
    return L1_COST * l1 - GIOU_COST * giou - SCORE_COST * F.logsigmoid(scores).unsqueeze(-1)
